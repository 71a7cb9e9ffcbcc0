//! Opens a state and compares it with what was acknowledged before its moment.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::disk::{self, Tree};
use super::history::History;
use super::site::{self, World};
use crate::crash::cli::{DurabilityChoice, StoreChoice};
use crate::crash::effects::by_operation;
use crate::crash::facts::Facts;
use crate::crash::ground::Ground;
use crate::crash::verify::{self, Mode, Seen};

/// A world that goes on with the moments.
pub(super) struct Outside<'h> {
    history: &'h History,
    pub(super) world: World,
    known: Facts,
    facts_taken: usize,
    effects_taken: usize,
}

impl<'h> Outside<'h> {
    pub(super) fn new(history: &'h History, before: &World) -> anyhow::Result<Self> {
        let mut known = Facts::default();
        before.facts.iter().try_for_each(|line| known.add_line(line))?;
        Ok(Self { history, world: before.clone(), known, facts_taken: 0, effects_taken: 0 })
    }

    pub(super) fn advance(&mut self, moment: usize) -> anyhow::Result<()> {
        while let Some((_, line)) = self.history.facts.get(self.facts_taken).filter(|(at, _)| *at <= moment) {
            self.known.add_line(line)?;
            self.world.facts.push(line.clone());
            self.facts_taken += 1;
        }
        while let Some((_, name, made)) =
            self.history.effects.get(self.effects_taken).filter(|(at, ..)| *at <= moment)
        {
            if *made {
                self.world.effects.insert(name.clone());
            } else {
                self.world.effects.remove(name);
            }
            self.effects_taken += 1;
        }
        Ok(())
    }
}

/// Looks at states, one after the other.
pub(super) struct Judge {
    store: StoreChoice,
    durability: DurabilityChoice,
    folder: TempDir,
    runtime: tokio::runtime::Runtime,
    pub(super) seen: Seen,
    number: u64,
}

impl Judge {
    pub(super) fn new(store: StoreChoice, durability: DurabilityChoice) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let folder = site::scratch("longrun-replay-")?;
        Ok(Self { store, durability, folder, runtime, seen: Seen::default(), number: 0 })
    }

    fn next(&mut self) -> PathBuf {
        self.number += 1;
        self.folder.path().join(self.number.to_string())
    }

    /// What is wrong with a state. With `finish` an engine takes up what is unfinished.
    pub(super) fn look(
        &mut self,
        tree: &Tree,
        outside: &Outside<'_>,
        finish: bool,
    ) -> anyhow::Result<Vec<String>> {
        let root = self.next();
        let disk = root.join("disk");
        fs::create_dir_all(&disk)?;
        disk::put(tree, &disk)?;
        let at = Ground::under(&root, disk.join("kv"), self.store, self.durability);
        let effects = by_operation(&outside.world.effects)?;
        let mut wrong = self.open(&at, outside, &effects);
        self.seen.acknowledged += outside.known.acknowledged();
        if finish && wrong.is_empty() {
            let again = self.next();
            let at = site::put(tree, &outside.world, &again, self.store, self.durability)?;
            let runtime = crate::crash::runtime()?;
            match runtime.block_on(verify::verify(&at, Mode { look: false, tell: false })) {
                Ok((seen, found)) => {
                    self.seen.add(seen);
                    wrong.extend(found);
                }
                Err(error) => wrong.push(format!("L2: {error:#}")),
            }
            drop(runtime);
            fs::remove_dir_all(again)?;
        }
        fs::remove_dir_all(root)?;
        Ok(wrong)
    }

    fn open(
        &mut self,
        at: &Ground,
        outside: &Outside<'_>,
        effects: &BTreeMap<longrun::OperationId, BTreeSet<u16>>,
    ) -> Vec<String> {
        let opened = match at.open() {
            Ok(opened) => opened,
            // No state may: what was not acknowledged is no reason to refuse what was, or to refuse a new store.
            Err(error) => return vec![format!("S16: the store does not open: {error:#}")],
        };
        let mut seen = Seen::default();
        let compared = self.runtime.block_on(verify::compare(&opened, &outside.known, effects, &mut seen));
        self.seen.operations += seen.operations;
        self.seen.unfinished += seen.unfinished;
        compared.unwrap_or_else(|error| vec![format!("S16: it cannot be read: {error:#}")])
    }
}
