//! What a plan may rely on of other resources: a rule about all children of a parent, and a parent that is READY.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use longrun::{
    Code, EMPTY_TYPE, Engine, IdPrefix, Kind, OperationQuery, PageRequest, PlanBuilder, Planned, Resource,
    ResourceId, ResourceList, ResourceStatus, Status, Store, SubmitError, async_trait,
};
use serde::{Deserialize, Serialize};

use crate::common::disk::Knobs;
use crate::common::nodes::Nodes;
use crate::common::{Rig, call, millis};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Pupil(String);

impl Resource for Pupil {
    const KIND: &'static str = "test.pupil";
    const TYPE_URL: &'static str = "test/Pupil";
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Manner {
    Plain,
    LooksElsewhereToo,
    Panics,
}

/// Takes a pupil into a class, if the name is free there.
struct Enrol;

#[async_trait]
impl Kind for Enrol {
    const NAME: &'static str = "test.enrol";
    const RESPONSE_TYPE: &'static str = Pupil::TYPE_URL;
    type Request = (ResourceId, String, Manner);
    type Metadata = ResourceId;
    type Response = Pupil;

    async fn plan(&self, (class, name, manner): &Self::Request, plan: &mut PlanBuilder) -> Planned<Self> {
        let others = plan.children::<Pupil>(class).await?;
        match manner {
            Manner::Plain => assert_eq!(plan.children::<Pupil>(class).await?, others, "again"),
            Manner::LooksElsewhereToo => _ = plan.children::<Pupil>(&id("elsewhere")).await?,
            Manner::Panics => std::panic::panic_any("the plan panics"),
        }
        if others.iter().any(|other| other.body.0 == *name) {
            return Err(Status::new(Code::AlreadyExists, "the name is taken"));
        }
        let (id, pupil) = (plan.new_id(IdPrefix::new("pup")?), Pupil(name.clone()));
        let value = plan.value(&pupil);
        plan.create(&id, class, name, &pupil, &value)?;
        Ok((id, value))
    }
}

/// Marks a pupil as damaged, or removes it; the latter only if it is READY.
struct Visit;

#[async_trait]
impl Kind for Visit {
    const NAME: &'static str = "test.visit";
    const RESPONSE_TYPE: &'static str = EMPTY_TYPE;
    type Request = (ResourceId, bool);
    type Metadata = ();
    type Response = ();

    async fn plan(&self, (id, break_it): &Self::Request, plan: &mut PlanBuilder) -> Planned<Self> {
        if *break_it {
            let found = plan.get::<Pupil>(id).await?;
            let same = plan.value(&found.body);
            plan.update(&found, found.row.name.clone(), ResourceStatus::Error, &same);
        } else {
            plan.get_ready::<Pupil>(id).await?;
        }
        Ok(((), plan.value(&())))
    }
}

fn id(text: &str) -> ResourceId {
    ResourceId::new(text).unwrap()
}

async fn rig() -> Rig {
    Rig::with(|builder| builder.kind(Enrol).kind(Visit)).await
}

async fn enrol(engine: &Engine, class: &str, name: &str, manner: Manner) -> Result<ResourceId, Code> {
    let accepted = engine.submit::<Enrol>(&(id(class), name.to_owned(), manner), call()).await;
    accepted.map(|operation| operation.metadata().decode().unwrap()).map_err(|error| error.code())
}

async fn names(engine: &Engine, class: &str) -> Vec<String> {
    let list = ResourceList::of(id(class));
    let page = engine.list_resources::<Pupil>(&list, &PageRequest::default()).await.unwrap();
    let mut names: Vec<_> = page.items.into_iter().map(|found| found.body.0).collect();
    names.sort();
    names
}

#[tokio::test(start_paused = true)]
async fn of_those_that_break_a_rule_about_children_together_one_is_accepted() {
    let rig = rig().await;
    for (commit, answer) in [(0, 0), (3, 0), (0, 3), (2, 2)] {
        Knobs::set(&rig.knobs.commit_ms, commit);
        Knobs::set(&rig.knobs.answer_ms, answer);
        let class = format!("class-{commit}-{answer}");
        let all = join_all((0..30).map(|n| {
            let (engine, class) = (rig.engine(), &class);
            async move {
                tokio::time::sleep(millis(n % 7)).await;
                enrol(engine, class, &format!("n{}", n % 5), Manner::Plain).await
            }
        }))
        .await;
        let mut codes = BTreeMap::<_, usize>::new();
        all.into_iter().for_each(|result| *codes.entry(result.err()).or_default() += 1);
        assert_eq!(codes, BTreeMap::from([(None, 5), (Some(Code::AlreadyExists), 25)]));
        assert_eq!(names(rig.engine(), &class).await, ["n0", "n1", "n2", "n3", "n4"]);
    }
}

#[tokio::test(start_paused = true)]
async fn of_those_that_break_a_rule_about_children_at_several_nodes_one_is_accepted() {
    let nodes = Nodes::with(3, |builder| builder.kind(Enrol)).await;
    for round in 0..5 {
        let class = format!("class-{round}");
        let all = join_all((0..30).map(|n| {
            let (engine, class) = (nodes.engine(n % 3), &class);
            async move { enrol(engine, class, &format!("n{}", n % 5), Manner::Plain).await }
        }))
        .await;
        let mut codes = BTreeMap::<_, usize>::new();
        all.into_iter().for_each(|result| *codes.entry(result.err()).or_default() += 1);
        assert_eq!(codes, BTreeMap::from([(None, 5), (Some(Code::AlreadyExists), 25)]));
        assert_eq!(names(nodes.engine(round % 3), &class).await, ["n0", "n1", "n2", "n3", "n4"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_draft_that_relies_on_children_is_refused_when_they_have_changed() {
    let nodes = Nodes::with(2, |builder| builder.kind(Enrol)).await;
    let draft = async |name: &str| {
        let request = (id("class"), name.to_owned(), Manner::Plain);
        nodes.engine(0).draft::<Enrol>(&request, call()).await.unwrap()
    };
    let (one, other) = (draft("ann").await, draft("ann").await);
    nodes.store.commit(one.commit().unwrap().clone()).await.unwrap();
    let refused = nodes.store.commit(other.commit().unwrap().clone()).await.unwrap_err();
    let refused = other.refused(refused);
    assert!(matches!(refused, SubmitError::Condition(_)) && refused.code() == Code::Aborted, "{refused:?}");
    assert_eq!(names(nodes.engine(1), "class").await, ["ann"]);
    assert_eq!(enrol(nodes.engine(1), "class", "ann", Manner::Plain).await, Err(Code::AlreadyExists));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_leaves_its_turn_to_the_commit_that_is_under_way() {
    let rig = rig().await;
    Knobs::set(&rig.knobs.commit_ms, 100);
    let gone = enrol(rig.engine(), "class", "ann", Manner::Plain);
    assert!(tokio::time::timeout(millis(10), gone).await.is_err());
    assert_eq!(enrol(rig.engine(), "class", "ann", Manner::Plain).await, Err(Code::AlreadyExists));
    assert_eq!(names(rig.engine(), "class").await, ["ann"]);
    // One that goes away while it waits for its turn keeps nobody waiting.
    let first = enrol(rig.engine(), "class", "ben", Manner::Plain);
    let second = tokio::time::timeout(millis(10), enrol(rig.engine(), "class", "ben", Manner::Plain));
    let (first, second) = tokio::join!(first, second);
    assert!(first.is_ok() && second.is_err());
    assert!(enrol(rig.engine(), "class", "cat", Manner::Plain).await.is_ok());
    assert_eq!(names(rig.engine(), "class").await, ["ann", "ben", "cat"]);
}

#[tokio::test(start_paused = true)]
async fn a_plan_looks_at_the_children_of_one_parent_only_and_its_panic_frees_its_turn() {
    let rig = rig().await;
    assert_eq!(enrol(rig.engine(), "class", "ann", Manner::LooksElsewhereToo).await, Err(Code::Internal));
    assert_eq!(enrol(rig.engine(), "class", "ann", Manner::Panics).await, Err(Code::Internal));
    assert!(enrol(rig.engine(), "class", "ann", Manner::Plain).await.is_ok());
    assert!(enrol(rig.engine(), "elsewhere", "ann", Manner::Plain).await.is_ok(), "another family");
}

#[tokio::test(start_paused = true)]
async fn what_has_to_be_there_and_ready_is_refused_by_a_code_that_says_why() {
    let rig = rig().await;
    let visit =
        async |id: &ResourceId, break_it| rig.engine().submit::<Visit>(&(id.clone(), break_it), call()).await;
    let missing = visit(&id("nobody"), false).await.unwrap_err().status();
    assert_eq!((missing.code(), missing.message()), (Code::NotFound, "test.pupil nobody not found"));
    let ann = enrol(rig.engine(), "class", "ann", Manner::Plain).await.unwrap();
    let visited = visit(&ann, false).await.unwrap();
    assert_eq!(visited.response().unwrap().type_url(), EMPTY_TYPE);
    visit(&ann, true).await.unwrap();
    let refused = visit(&ann, false).await.unwrap_err();
    assert!(matches!(refused, SubmitError::Refused(_)), "at once, not after five plans");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.to_string().ends_with("is ERROR, it must be READY"), "{refused}");
    let of_ann = OperationQuery::OfResource(Pupil::key(&ann).unwrap());
    let page = rig.engine().list_operations(&of_ann, &PageRequest::default()).await.unwrap();
    let kinds: Vec<_> = page.items.iter().map(|operation| operation.kind().as_str()).collect();
    assert_eq!(kinds, [Visit::NAME, Enrol::NAME], "those that change it, not those that rely on it");
}
