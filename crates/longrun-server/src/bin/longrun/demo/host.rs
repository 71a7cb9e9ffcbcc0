//! Where the service of the demo runs, and how it is killed.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context, Result};
use longrun::{KvStore, Store};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::Folders;
use super::service::{Greeting, Request, Service};
use crate::stores::StoreChoice;

/// A service that can be killed and started again.
pub(super) struct Host {
    dir: PathBuf,
    place: Place,
    greeting: Greeting,
}

enum Place {
    /// A process of its own, over a store on disk.
    Process(StoreChoice, Option<Box<Process>>),
    /// This process, over a store in memory that outlives the engine.
    Memory(Arc<dyn Store>, Option<Box<Service>>),
}

struct Process {
    child: Child,
    requests: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Host {
    pub(super) async fn process(dir: &Path, store: StoreChoice) -> Result<Self> {
        Self::begin(dir, Place::Process(store, None)).await
    }

    pub(super) async fn memory(dir: &Path) -> Result<Self> {
        let store: Arc<dyn Store> = Arc::new(KvStore::memory().context("cannot open a store in memory")?);
        Self::begin(dir, Place::Memory(store, None)).await
    }

    async fn begin(dir: &Path, place: Place) -> Result<Self> {
        let greeting = Greeting { store: String::new(), unfinished: Default::default() };
        let mut host = Self { dir: dir.to_owned(), place, greeting };
        host.start().await?;
        Ok(host)
    }

    pub(super) fn describe(&self) -> &str {
        &self.greeting.store
    }

    pub(super) const fn describe_kill(&self) -> &'static str {
        match self.place {
            Place::Process(..) => "the serving process is killed (SIGKILL)",
            Place::Memory(..) => "the engine is dropped where it stands",
        }
    }

    /// The bytes that an operation had copied at its last checkpoint, when the service was last started.
    pub(super) fn left_at(&self, operation: &str) -> u64 {
        self.greeting.unfinished.get(operation).copied().unwrap_or(0)
    }

    pub(super) async fn start(&mut self) -> Result<()> {
        match &mut self.place {
            Place::Process(store, process) => {
                let (started, greeting) = Process::start(&self.dir, *store).await?;
                (*process, self.greeting) = (Some(Box::new(started)), greeting);
            }
            Place::Memory(store, service) => {
                let (started, greeting) =
                    Service::start(Arc::clone(store), &Folders::under(&self.dir)).await?;
                (*service, self.greeting) = (Some(Box::new(started)), greeting);
            }
        }
        Ok(())
    }

    pub(super) async fn kill(&mut self) -> Result<()> {
        match &mut self.place {
            Place::Process(_, process) => {
                let mut process = process.take().context("nothing runs")?;
                process.child.kill().await.context("cannot kill the service")?;
            }
            Place::Memory(_, service) => *service = None,
        }
        Ok(())
    }

    pub(super) async fn call(&mut self, request: &Request) -> Result<Value> {
        match &mut self.place {
            Place::Process(_, process) => process.as_mut().context("nothing runs")?.call(request).await,
            Place::Memory(_, service) => {
                Ok(service.as_ref().context("nothing runs")?.answer(request.clone()).await)
            }
        }
    }

    /// Ends the service in peace.
    pub(super) async fn stop(&mut self) -> Result<()> {
        self.call(&Request::Stop).await?;
        if let Place::Process(_, Some(process)) = &mut self.place {
            let ended = tokio::time::timeout(super::PATIENCE, process.child.wait()).await;
            ended.context("the service does not end")?.context("the service did not end")?;
        }
        Ok(())
    }
}

impl Process {
    async fn start(dir: &Path, store: StoreChoice) -> Result<(Self, Greeting)> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut child = Command::new(program)
            .args(["demo-serve", "--store", store.name(), "--dir"])
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start the service")?;
        let requests = child.stdin.take().context("the service has no input")?;
        let answers = BufReader::new(child.stdout.take().context("the service has no output")?).lines();
        let mut process = Self { child, requests, answers };
        let greeting = serde_json::from_value(process.line().await?).context("the service did not greet")?;
        Ok((process, greeting))
    }

    async fn call(&mut self, request: &Request) -> Result<Value> {
        self.requests.write_all(format!("{}\n", serde_json::to_string(request)?).as_bytes()).await?;
        self.line().await
    }

    async fn line(&mut self) -> Result<Value> {
        // Longer than any wait that a request asks for.
        let line = tokio::time::timeout(2 * super::PATIENCE, self.answers.next_line()).await;
        let line = line.context("the service does not answer")??.context("the service has ended")?;
        Ok(serde_json::from_str(&line)?)
    }
}
