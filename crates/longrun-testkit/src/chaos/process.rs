//! A node, as those outside have it: a process that is asked, killed, paused and started anew.

use std::collections::HashMap;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{Mutex as AsyncMutex, oneshot};

use super::node::{Answer, Ask, Question, Told};
use crate::panics::lock;

/// How long an answer may take before the asker goes elsewhere.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How long a node may take to start.
const START_WITHIN: Duration = Duration::from_secs(30);

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Result<Told, String>>>>>;

#[derive(Debug)]
pub(super) struct Node {
    pub(super) number: usize,
    store: String,
    world: String,
    lease: Duration,
    next: AtomicU64,
    life: AsyncMutex<Option<Life>>,
}

/// One process.
#[derive(Debug)]
struct Life {
    child: Child,
    input: ChildStdin,
    waiting: Waiting,
}

impl Node {
    pub(super) fn new(number: usize, store: String, world: String, lease: Duration) -> Self {
        Self { number, store, world, lease, next: AtomicU64::new(0), life: AsyncMutex::new(None) }
    }

    /// Starts it; the database has to be there.
    pub(super) async fn start(&self) -> Result<()> {
        let mut life = self.life.lock().await;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["node", "--store", &self.store, "--world", &self.world, "--lease-millis"]);
        command.arg(self.lease.as_millis().to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().context("a node cannot be started")?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let (Some(input), Some(output)) = (input, output) else { bail!("a node has no input or no output") };
        let mut lines = BufReader::new(output).lines();
        let ready = tokio::time::timeout(START_WITHIN, lines.next_line()).await;
        let ready = ready.context("a node does not start")??;
        if ready.as_deref() != Some("ready") {
            bail!("a node did not start: {ready:?}");
        }
        let waiting = Waiting::default();
        let answered = Arc::clone(&waiting);
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let Ok(Answer { number, told }) = serde_json::from_str(&line) else { continue };
                let asker = lock(&answered).remove(&number);
                _ = asker.map(|asker| asker.send(told));
            }
            // Nobody answers any more.
            lock(&answered).clear();
        });
        *life = Some(Life { child, input, waiting });
        Ok(())
    }

    /// Asks. An error says that there is no answer, or what the node answered instead.
    pub(super) async fn ask(&self, ask: Ask) -> Result<Result<Told, String>> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        {
            let mut life = self.life.lock().await;
            let life = life.as_mut().context("it is not there")?;
            lock(&life.waiting).insert(number, reply);
            let mut line = serde_json::to_vec(&Question { number, ask })?;
            line.push(b'\n');
            let written = tokio::time::timeout(ANSWER_WITHIN, life.input.write_all(&line)).await;
            written.map_err(|_| anyhow!("it does not listen"))??;
        }
        let answer = tokio::time::timeout(ANSWER_WITHIN, answer).await;
        Ok(answer.map_err(|_| anyhow!("it does not answer"))??)
    }

    /// SIGKILL.
    pub(super) async fn kill(&self) {
        if let Some(mut life) = self.life.lock().await.take() {
            _ = life.child.kill().await;
        }
    }

    /// SIGSTOP, or SIGCONT.
    pub(super) async fn pause(&self, paused: bool) {
        let life = self.life.lock().await;
        let pid = life.as_ref().and_then(|life| life.child.id()).and_then(|pid| i32::try_from(pid).ok());
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            _ = kill_process(pid, if paused { Signal::STOP } else { Signal::CONT });
        }
    }

    /// Whether its process has ended although nobody has killed it.
    pub(super) async fn ended_by_itself(&self) -> bool {
        let mut life = self.life.lock().await;
        life.as_mut().is_some_and(|life| matches!(life.child.try_wait(), Ok(Some(_))))
    }
}
