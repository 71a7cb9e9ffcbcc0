//! What operations that wait take in memory.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::ensure;
use longrun::{Call, Caller, Engine};
use serde::Serialize;

use crate::Result;
use crate::kinds::{self, Barrier, Happy, Held};
use crate::report::{MemoryLine, memory_mib};
use crate::stores::{self, StoreName};

/// How long a process rests before it is looked at.
const REST: Duration = Duration::from_secs(3);

/// What two processes take that do nothing but have a store open.
#[derive(Clone, Debug, Serialize)]
pub struct Memory {
    /// `longrun`.
    pub peer: &'static str,
    /// `memory`.
    pub workload: &'static str,
    /// Over which store.
    pub store: &'static str,
    /// Operations that wait in one of them.
    pub waiting: u64,
    /// Resident memory with none, in MiB.
    pub none_mib: f64,
    /// Resident memory with as many, in MiB.
    pub waiting_mib: f64,
}

/// Fills one store, and looks at a process that has it open, and at one with an empty store.
pub fn measure(name: StoreName, folder: &Path, waiting: u64) -> Result<Memory> {
    let (full, empty) = (folder.join("full"), folder.join("empty"));
    ask(&["fill-waiting", "--unfinished", &waiting.to_string()], name, &full)?;
    let waiting_mib = ask(&["rest", "--unfinished", "0"], name, &full)?.trim().parse()?;
    let none_mib = ask(&["rest", "--unfinished", "0"], name, &empty)?.trim().parse()?;
    Ok(Memory { peer: "longrun", workload: "memory", store: name.name(), waiting, none_mib, waiting_mib })
}

/// Has another process do something with a store.
fn ask(what: &[&str], name: StoreName, folder: &Path) -> Result<String> {
    let mut command = Command::new(std::env::current_exe()?);
    let output = command.args(what).args(["--store", name.name(), "--folder"]).arg(folder).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// Leaves that many operations on the disk that wait for a place.
pub async fn fill(name: StoreName, folder: &Path, waiting: u64) -> Result<()> {
    let opened = stores::open(name, folder).await?;
    let builder = Engine::builder_shared(opened.store).running_max(1);
    let engine = kinds::register(builder, &Barrier::new(false)).start().await?;
    // It has the only place.
    engine.submit::<Held>(&0, Call::by(Caller::new("bench")?)).await?;
    kinds::submit_all::<Happy>(&engine, waiting).await?;
    engine.shutdown(Duration::from_secs(60)).await;
    Ok(())
}

/// Opens a store, lets nothing in it come to its end, and says what that takes, in MiB.
pub async fn rest(name: StoreName, folder: &Path) -> Result<f64> {
    let opened = stores::open(name, folder).await?;
    let builder = Engine::builder_shared(opened.store).running_max(1);
    let _engine = kinds::register(builder, &Barrier::new(false)).start().await?;
    tokio::time::sleep(REST).await;
    memory_mib(MemoryLine::Now)
}
