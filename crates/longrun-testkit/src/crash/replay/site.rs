//! A store and the world around it, in memory, to be put down as often as it is needed.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::Context;
use tempfile::TempDir;

use super::disk::{self, Tree};
use crate::crash::cli::{DurabilityChoice, StoreChoice};
use crate::crash::ground::Ground;

/// The world outside of the disk at a moment: it does not forget when the power goes.
#[derive(Clone, Debug, Default)]
pub(super) struct World {
    /// Lines of facts.
    pub(super) facts: Vec<String>,
    /// Names of the files of all effects.
    pub(super) effects: BTreeSet<String>,
}

/// A store, and the world around it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Site {
    pub(super) tree: Tree,
    pub(super) world: World,
}

impl Site {
    /// What is on a ground.
    pub(crate) fn read(ground: &Ground) -> anyhow::Result<Self> {
        let above = ground.dir.parent().context("the store is nowhere")?;
        let facts = fs::read_to_string(&ground.facts)?;
        let mut world = World { facts: facts.lines().map(str::to_owned).collect(), effects: BTreeSet::new() };
        for entry in fs::read_dir(&ground.effects)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                world.effects.insert(entry.file_name().to_string_lossy().into_owned());
            }
        }
        Ok(Self { tree: disk::read(above, &ground.dir)?, world })
    }

    /// How often an engine was up.
    pub(crate) fn ready(&self) -> u64 {
        self.world.facts.iter().filter(|line| *line == "ready").count() as u64
    }

    /// Puts it into a folder, which is empty or is made.
    pub(crate) fn put(
        &self,
        root: &Path,
        store: StoreChoice,
        durability: DurabilityChoice,
    ) -> anyhow::Result<Ground> {
        put(&self.tree, &self.world, root, store, durability)
    }
}

/// Puts a store and a world into a folder, which is empty or is made.
pub(super) fn put(
    tree: &Tree,
    world: &World,
    root: &Path,
    store: StoreChoice,
    durability: DurabilityChoice,
) -> anyhow::Result<Ground> {
    let disk = root.join("disk");
    fs::create_dir_all(&disk)?;
    disk::put(tree, &disk)?;
    let ground = Ground::under(root, disk.join("kv"), store, durability);
    ground.open_effects()?;
    for name in &world.effects {
        fs::write(ground.effects.join(name), b"")?;
    }
    fs::write(&ground.facts, world.facts.iter().map(|line| format!("{line}\n")).collect::<String>())?;
    Ok(ground)
}

/// A folder in memory, if the machine has one: it takes thousands of small files a second.
pub(crate) fn scratch(prefix: &str) -> anyhow::Result<TempDir> {
    TempDir::with_prefix_in(prefix, "/dev/shm").or_else(|_| Ok(TempDir::with_prefix(prefix)?))
}
