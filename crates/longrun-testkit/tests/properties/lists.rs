//! Lists of resources, paged while resources come and go.

use std::collections::BTreeSet;

use longrun::{
    Call, Caller, Code, Engine, Kind, PageRequest, PlanBuilder, Planned, Resource, ResourceId, Row, Status,
    async_trait,
};
use longrun_testkit::strategies::{ListShape, lists, page_sizes};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use crate::world::World;

/// A resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thing(u8);

impl Resource for Thing {
    const KIND: &'static str = "properties.thing";
    const TYPE_URL: &'static str = "properties/Thing";
}

const NAMES: &[&str] = &["a", "b", ""];

/// What comes or goes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Edit {
    id: u8,
    /// Made under this name, or removed.
    name: Option<String>,
}

/// Makes or removes a thing, at once.
pub struct Change;

#[async_trait]
impl Kind for Change {
    const NAME: &'static str = "properties.change";
    type Request = Edit;
    type Metadata = ();
    type Response = Thing;

    async fn plan(&self, edit: &Edit, plan: &mut PlanBuilder) -> Planned<Self> {
        let id = ResourceId::new(format!("r{}", edit.id))?;
        let out = plan.value(&Thing(edit.id));
        let found = plan.find::<Thing>(&id).await?;
        match (&edit.name, found) {
            (Some(name), None) => plan.create(&id, &parent(), name, &Thing(edit.id), &out)?,
            (None, Some(found)) => plan.delete(&found),
            _ => return Err(Status::new(Code::FailedPrecondition, "nothing to do")),
        }
        Ok(((), out))
    }
}

fn parent() -> ResourceId {
    ResourceId::new("p").unwrap()
}

async fn edit(engine: &Engine, edit: &Edit) {
    // One that has nothing to do is refused.
    if let Ok(operation) = engine.submit::<Change>(edit, Call::by(Caller::new("alice").unwrap())).await {
        assert!(engine.wait_done(operation.id()).await.unwrap().response().is_some());
    }
}

fn edits(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Edit>> {
    let name = proptest::option::weighted(0.6, proptest::sample::select(NAMES));
    let edit = (0..24_u8, name).prop_map(|(id, name)| Edit { id, name: name.map(str::to_owned) });
    proptest::collection::vec(edit, count)
}

/// All of a list at once.
async fn whole(engine: &Engine, shape: &ListShape) -> Vec<Row> {
    let page = PageRequest { size: 1000, token: String::new() };
    let page = engine.list_resources::<Thing>(&shape.under(parent()), &page).await.unwrap();
    assert_eq!(page.next_token, "");
    page.items.into_iter().map(|found| found.row).collect()
}

fn holds(shape: &ListShape, row: &Row) -> bool {
    shape.status.is_none_or(|status| status == row.status)
        && shape.name.as_ref().is_none_or(|name| *name == row.name)
}

proptest! {
    #![proptest_config(crate::config(192))]

    /// S36: what is there throughout is listed once, whatever comes and goes between the pages. S37: the order is the same whatever
    /// is picked, and what is picked is what a filter over all would pick.
    #[test]
    fn s36_s37_pages_neither_skip_nor_repeat_what_stays(
        shape in lists(NAMES),
        size in page_sizes(),
        before in edits(0..40),
        between in proptest::collection::vec(edits(0..3), 0..12),
    ) {
        let world = World::new();
        let (listed, stays) = world.with(async |engine| {
            for one in &before {
                edit(engine, one).await;
            }
            let all = ListShape { status: None, name: None, ..shape.clone() };
            let picked: Vec<_> = whole(engine, &all).await.into_iter().filter(|row| holds(&shape, row)).collect();
            let rows = whole(engine, &shape).await;
            assert_eq!(rows, picked, "S37");
            let mut stays: BTreeSet<_> = rows.into_iter().map(|row| (row.key, row.created_at)).collect();
            let (mut listed, mut token, mut between) = (Vec::new(), String::new(), between.iter());
            loop {
                let page = PageRequest { size, token };
                let page = engine.list_resources::<Thing>(&shape.under(parent()), &page).await.unwrap();
                assert!(page.items.len() <= size);
                listed.extend(page.items.into_iter().map(|found| found.row));
                token = page.next_token;
                if token.is_empty() {
                    return (listed, stays);
                }
                for one in between.next().into_iter().flatten() {
                    // Another of the same id is another.
                    stays.retain(|(key, _)| key.id.as_str() != format!("r{}", one.id));
                    edit(engine, one).await;
                }
            }
        });
        prop_assert!(listed.iter().all(|row| holds(&shape, row)), "S37: what was not asked for");
        for (key, created_at) in &stays {
            let times = listed.iter().filter(|row| row.key == *key && row.created_at == *created_at).count();
            prop_assert_eq!(times, 1, "S36: {} was listed {} times", key, times);
        }
    }
}
