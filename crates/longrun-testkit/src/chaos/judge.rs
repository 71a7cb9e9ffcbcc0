//! What must be true when the faults have stopped.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;

use super::DONE_WITHIN;
use super::clients::History;
use super::world::World;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub(super) checked: usize,
    pub(super) violations: Vec<String>,
    counts: BTreeMap<&'static str, u64>,
    /// How long after the last fault everything was done.
    done_after: Option<Duration>,
}

pub(super) struct Judge<'a> {
    address: &'a str,
    history: &'a History,
}

impl<'a> Judge<'a> {
    pub(super) fn new(address: &'a str, history: &'a History) -> Self {
        Self { address, history }
    }

    /// Waits until everything is done, and looks at all of it. `calm` is when the faults stopped.
    pub(super) async fn wait_and_judge(&self, calm: Instant) -> Result<Verdict> {
        let world = World::reach(self.address).await?;
        let mut verdict = Verdict { counts: self.history.counts.clone(), ..Verdict::default() };
        verdict.violations.extend(self.history.violations.iter().cloned());
        let unfinished = "SELECT count(*) FROM longrun.operations WHERE done_at IS NULL";
        loop {
            let left: i64 = world.ask(unfinished).await?[0].get(0);
            if left == 0 {
                verdict.done_after = Some(calm.elapsed());
                break;
            }
            if calm.elapsed() >= DONE_WITHIN {
                verdict
                    .violations
                    .push(format!("L1: {left} operations are not done {DONE_WITHIN:?} after the last fault"));
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.judge(&world, &mut verdict).await?;
        Ok(verdict)
    }

    async fn judge(&self, world: &World, verdict: &mut Verdict) -> Result<()> {
        // C1, C15: what was acknowledged is there, and each key is one operation.
        let stored = world.ask("SELECT id, phase FROM longrun.operations").await?;
        let phases: BTreeMap<String, String> = stored.iter().map(|row| (row.get(0), row.get(1))).collect();
        verdict.checked = phases.len();
        // C13, S10: a cancel that was answered has decided, or came too late.
        for (id, shown) in &self.history.cancels {
            let succeeded = phases.get(id).is_some_and(|phase| phase == "succeeded");
            if succeeded != shown.response {
                verdict.violations.push(format!(
                    "C13: a cancel was answered with {shown:?}, and the operation is {:?}",
                    phases.get(id)
                ));
            }
        }
        for (key, (_, id)) in &self.history.keys {
            if let Some(id) = id
                && !phases.contains_key(id)
            {
                verdict.violations.push(format!("C1: {key} was acknowledged as {id}, which is not there"));
            }
        }
        let keys: i64 =
            world.ask("SELECT count(DISTINCT operation) FROM longrun.idempotency").await?[0].get(0);
        if keys != i64::try_from(phases.len())? || phases.len() > self.history.keys.len() {
            let asked = self.history.keys.len();
            verdict.violations.push(format!(
                "C15: {asked} keys were asked for, {keys} are known, {} operations",
                phases.len()
            ));
        }
        // C4: effects are there if, and only if, the operation has succeeded.
        let mut effects: BTreeMap<String, BTreeSet<i32>> = BTreeMap::new();
        for row in world.ask("SELECT operation, step FROM world.effects WHERE there").await? {
            effects.entry(row.get(0)).or_default().insert(row.get(1));
        }
        let asked: BTreeMap<&String, _> =
            self.history.keys.values().filter_map(|(request, id)| Some((id.as_ref()?, request))).collect();
        for (id, phase) in &phases {
            let found = effects.remove(id).unwrap_or_default();
            let wanted: BTreeSet<i32> = match (phase.as_str(), asked.get(id)) {
                ("succeeded", Some(request)) => (0..request.steps.into()).collect(),
                ("succeeded", None) => found.clone(),
                _ => BTreeSet::new(),
            };
            if found != wanted && phase != "pending" && phase != "rolling back" {
                verdict.violations.push(format!("C4: {id} is {phase}, its effects are {found:?}"));
            }
            let what = match phase.as_str() {
                "succeeded" => "operations that succeeded",
                "rolled back" => "operations that were rolled back",
                _ => "other operations",
            };
            *verdict.counts.entry(what).or_default() += 1;
        }
        if !effects.is_empty() {
            verdict
                .violations
                .push(format!("C1: effects of operations that are not there: {:?}", effects.keys()));
        }
        // C7: rows agree with their operations.
        let rows = "SELECT count(*) FILTER (WHERE r.id IS NULL AND o.phase = 'succeeded'),
                count(*) FILTER (WHERE r.id IS NOT NULL AND o.phase = 'rolled back'),
                count(*) FILTER (WHERE r.operation IS NOT NULL)
            FROM longrun.operation_resources l JOIN longrun.operations o ON o.id = l.operation
            LEFT JOIN longrun.resources r ON r.kind = l.kind AND r.id = l.id WHERE o.done_at IS NOT NULL";
        let row = &world.ask(rows).await?[0];
        let [missing, left, held]: [i64; 3] = [row.get(0), row.get(1), row.get(2)];
        if (missing, left, held) != (0, 0, 0) {
            verdict
                .violations
                .push(format!("C7: {missing} rows are missing, {left} were left, {held} are held by nobody"));
        }
        // C17: after a claim nothing is written with an earlier fence.
        let late = "SELECT count(*) FROM world.turns t JOIN world.claims c ON c.operation = t.operation
            WHERE t.fence < c.fence AND t.revision > c.revision";
        let late: i64 = world.ask(late).await?[0].get(0);
        if late != 0 {
            verdict.violations.push(format!(
                "C17: {late} turns were taken of nodes whose operations were claimed by others"
            ));
        }
        let claims: i64 = world.ask("SELECT count(*) FROM world.claims").await?[0].get(0);
        verdict.counts.insert("claims", u64::try_from(claims)?);
        // No journal is left of what is done.
        let journal = "SELECT count(*) FROM longrun.operation_journal j
            JOIN longrun.operations o ON o.id = j.operation WHERE o.done_at IS NOT NULL";
        let journal: i64 = world.ask(journal).await?[0].get(0);
        if journal != 0 {
            verdict
                .violations
                .push(format!("C17: {journal} entries were written to operations that are done"));
        }
        let refused: i64 = world.ask("SELECT count(*) FROM world.refused").await?[0].get(0);
        verdict.counts.insert("late effects that the world refused", u64::try_from(refused)?);
        Ok(())
    }
}

impl Verdict {
    pub(super) fn report(&self) {
        for (what, count) in &self.counts {
            println!("  {count:>6}  {what}");
        }
        match self.done_after {
            Some(after) => println!("all done {:.1} s after the last fault", after.as_secs_f64()),
            None => println!("not all done {DONE_WITHIN:?} after the last fault"),
        }
        for violation in &self.violations {
            println!("violation: {violation}");
        }
    }
}
