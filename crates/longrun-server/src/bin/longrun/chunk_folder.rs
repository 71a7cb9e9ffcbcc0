//! `longrun snapshot`: what is in a chunk folder, without the service that put it there.

#![allow(clippy::print_stdout)] // What is found out is this program's output.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use longrun_snapshot::data::{self, ChunkFolder, ChunkStore, SnapshotId};
use serde_json::json;

/// What can be done with a snapshot.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Shows what a snapshot in a chunk folder is made of, as JSON.
    Inspect {
        #[command(flatten)]
        which: Which,
        /// With every chunk, one JSON object a line.
        #[arg(long)]
        chunks: bool,
    },
    /// Reads a whole snapshot in a chunk folder and checks every byte. Fails if any is damaged, and says which.
    Verify {
        #[command(flatten)]
        which: Which,
    },
    /// Gives the disk of a snapshot in a chunk folder back as a sparse raw file, which appears when it is whole.
    Restore {
        #[command(flatten)]
        which: Which,
        /// The file. One that is there is replaced.
        #[arg(long)]
        to: PathBuf,
    },
}

/// Which snapshot.
#[derive(Args)]
pub(crate) struct Which {
    /// The chunk folder.
    #[arg(long)]
    dir: PathBuf,
    /// The snapshot's id.
    #[arg(long)]
    id: SnapshotId,
}

impl Which {
    fn open(&self) -> Result<ChunkFolder> {
        // Opening makes a chunk folder of any folder; this is for looking at one.
        anyhow::ensure!(self.dir.join("manifests").is_dir(), "{} is no chunk folder", self.dir.display());
        ChunkFolder::open(&self.dir).with_context(|| format!("cannot open {}", self.dir.display()))
    }
}

/// Runs a command. False when it found damage.
pub(crate) fn run(command: &Command) -> Result<bool> {
    match command {
        Command::Inspect { which, chunks } => inspect(&which.open()?, &which.id, *chunks),
        Command::Verify { which } => verify(&which.open()?, &which.id),
        Command::Restore { which, to } => {
            let summary = data::restore(&which.open()?, &which.id, to, &mut |_| true)?;
            println!("{}", json!({ "bytes": summary.disk_size, "contentHash": summary.content_hash }));
            Ok(true)
        }
    }
}

fn inspect(store: &dyn ChunkStore, id: &SnapshotId, chunks: bool) -> Result<bool> {
    let found = data::inspect(store, id)?;
    let shown = json!({
        "snapshotId": id,
        "diskId": found.header.disk_id,
        "diskSize": found.summary.disk_size,
        "chunkBytes": found.header.chunk_bytes,
        "chunks": found.summary.chunks,
        "storedBytes": found.summary.stored_bytes,
        "contentHash": found.summary.content_hash,
    });
    println!("{shown:#}");
    if chunks {
        for entry in found.entries {
            let entry = entry?;
            let (index, bytes, fresh) = (entry.index, entry.stored_bytes, entry.fresh);
            let line = json!({
                "index": index, "chunk": entry.name.to_string(), "storedBytes": bytes, "written": fresh,
            });
            println!("{line}");
        }
    }
    Ok(true)
}

fn verify(store: &dyn ChunkStore, id: &SnapshotId) -> Result<bool> {
    let verdict = data::verify_all(store, id, &mut |_| true)?;
    for place in &verdict.places {
        println!("damaged: {place}");
    }
    let verified = verdict.verified;
    let (whole, hash) = (verified.chunks, verified.content_hash);
    println!("{}", json!({ "whole": whole, "damaged": verdict.damaged, "contentHash": hash }));
    Ok(verdict.damaged == 0)
}
