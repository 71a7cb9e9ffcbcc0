//! Children: this program again, as the writer or the verifier, and how they end.

use std::ffi::OsString;
use std::fs::{self, File};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};

use super::ground::Ground;
use super::verify::{Mode, Seen};

/// Numbers of requests that one writer may use.
pub(crate) const NUMBERS: u64 = 1_000_000;
/// How long an open may take before the test goes on without it.
pub(crate) const READY_WITHIN: Duration = Duration::from_secs(20);
/// A verification that takes longer hangs.
pub(crate) const VERIFY_WITHIN: Duration = Duration::from_secs(150);
/// A thread that is in a call longer than this is in it when the power goes.
const STOPPED_WITHIN: Duration = Duration::from_millis(100);
const POLL: Duration = Duration::from_millis(2);

/// A child that does not outlive this value.
#[derive(Debug)]
pub(crate) struct Victim(Child);

impl Victim {
    /// Starts a command.
    pub(crate) fn spawn(command: &mut Command) -> anyhow::Result<Self> {
        let name = command.get_program().to_owned();
        let child = command.spawn().with_context(|| format!("cannot start {}", name.display()))?;
        Ok(Self(child))
    }

    /// SIGSTOP, and waits until no thread of it runs. One may be in a system call that cannot be interrupted.
    pub(crate) fn stop(&mut self) -> anyhow::Result<()> {
        let pid = self.0.id();
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).context("not a process")?;
        // An error says that it has ended by itself.
        _ = kill_process(raw, Signal::STOP);
        let deadline = Instant::now() + STOPPED_WITHIN;
        while Instant::now() < deadline && runs(pid) {
            thread::yield_now();
        }
        Ok(())
    }

    /// SIGKILL, and waits until it is gone.
    pub(crate) fn kill(&mut self) -> anyhow::Result<ExitStatus> {
        // An error says that it has ended by itself.
        _ = self.0.kill();
        Ok(self.0.wait()?)
    }

    /// How it ended, if it did within `limit`.
    pub(crate) fn wait(&mut self, limit: Duration) -> anyhow::Result<Option<ExitStatus>> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(Some(status));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            thread::sleep(POLL);
        }
    }
}

/// True when a thread of a process is neither stopped nor in a call that waits for the disk.
fn runs(pid: u32) -> bool {
    // Threads end meanwhile, and with the last of them the process.
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    for thread in threads {
        let stat = thread.map(|thread| thread.path().join("stat")).and_then(fs::read_to_string);
        let stat = stat.unwrap_or_default();
        // The state follows the name, which is in parentheses and may hold any.
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        if matches!(state, Some('R' | 'S')) {
            return true;
        }
    }
    false
}

impl Drop for Victim {
    fn drop(&mut self) {
        _ = self.kill();
    }
}

/// True when strace is there and may trace.
pub(crate) fn strace_works() -> bool {
    let works = Command::new("strace").args(["-f", "-o", "/dev/null", "true"]).output();
    works.is_ok_and(|output| output.status.success())
}

/// How a writer is started.
#[derive(Clone, Debug, Default)]
pub(crate) struct WriterPlan {
    pub(crate) first: u64,
    pub(crate) seed: u64,
    pub(crate) operations: Option<u64>,
    pub(crate) early_ack: bool,
    /// A program that runs it, and its arguments.
    pub(crate) wrapper: Vec<OsString>,
}

/// Starts a writer whose facts go to the ground's file.
pub(crate) fn writer(ground: &Ground, plan: &WriterPlan) -> anyhow::Result<Victim> {
    let exe = std::env::current_exe().context("this program is not found")?;
    let mut words = plan.wrapper.iter().cloned().chain([exe.into_os_string()]);
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words).arg("writer").args(ground.arguments());
    command.args(["--leash", "--first", &plan.first.to_string(), "--seed", &plan.seed.to_string()]);
    if let Some(operations) = plan.operations {
        command.args(["--operations", &operations.to_string()]);
    }
    if plan.early_ack {
        command.arg("--early-ack");
    }
    let complaints = File::options().create(true).append(true).open(ground.facts.with_extension("stderr"))?;
    command.stdin(Stdio::piped()).stdout(ground.teller()?.into_file()).stderr(complaints);
    Victim::spawn(&mut command)
}

/// Has a writer work on a ground, and kills it when so many facts bind the store; it leaves unfinished operations.
pub(crate) fn killed_writer(
    ground: &Ground,
    seed: u64,
    facts_min: u64,
    within: Duration,
) -> anyhow::Result<()> {
    let mut writer = writer(ground, &WriterPlan { seed, ..WriterPlan::default() })?;
    let began = Instant::now();
    while ground.read_facts()?.acknowledged() < facts_min {
        anyhow::ensure!(began.elapsed() < within, "the writer does not get on");
        thread::sleep(Duration::from_millis(3));
    }
    writer.kill()?;
    Ok(())
}

fn verifier(ground: &Ground, mode: Mode, out: File) -> anyhow::Result<Victim> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("verify").args(ground.arguments());
    if mode.look {
        command.arg("--look");
    }
    if mode.tell {
        command.arg("--tell");
    }
    let complaints = File::options().create(true).append(true).open(ground.facts.with_extension("stderr"))?;
    Victim::spawn(command.stdin(Stdio::null()).stdout(out).stderr(complaints))
}

/// Verifies in a process of its own.
pub(crate) fn verify(ground: &Ground, mode: Mode) -> anyhow::Result<(Seen, Vec<String>)> {
    let path = ground.facts.with_extension("verify");
    let mut child = verifier(ground, mode, File::create(&path)?)?;
    let Some(status) = child.wait(VERIFY_WITHIN)? else {
        return Ok((Seen::default(), vec!["L1: verification hangs".to_owned()]));
    };
    let text = fs::read_to_string(&path)?;
    let mut seen = Seen::default();
    let mut wrong = Vec::new();
    for line in text.lines() {
        if let Some(counts) = line.strip_prefix("counts ") {
            seen = serde_json::from_str(counts)?;
        } else if let Some(what) = line.strip_prefix("VIOLATION ") {
            wrong.push(what.to_owned());
        }
    }
    if !status.success() && wrong.is_empty() {
        wrong.push(format!("verification ended with {status}: {text}"));
    }
    Ok((seen, wrong))
}

/// Waits until the facts tell of more than `ready_before` starts. False when that takes longer than [`READY_WITHIN`].
pub(crate) fn await_ready(ground: &Ground, ready_before: u64) -> anyhow::Result<bool> {
    let began = Instant::now();
    while began.elapsed() < READY_WITHIN {
        if ground.read_facts()?.ready > ready_before {
            return Ok(true);
        }
        thread::sleep(Duration::from_millis(3));
    }
    Ok(false)
}

/// The end of what children wrote to their standard error.
pub(crate) fn complaints(ground: &Ground) -> String {
    let text = fs::read(ground.facts.with_extension("stderr")).unwrap_or_default();
    let from = text.len().saturating_sub(1500);
    String::from_utf8_lossy(&text[from..]).into_owned()
}

/// Begins to verify, which recovers, stops that after a time, and interrupts it. True when it had not ended by then.
pub(crate) fn interrupt_verifier(
    ground: &Ground,
    after: Duration,
    interrupt: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<bool> {
    let mut child = verifier(ground, Mode::default(), File::create(ground.facts.with_extension("verify"))?)?;
    let ended = child.wait(after)?;
    if ended.is_none() {
        child.stop()?;
    }
    interrupt()?;
    child.kill()?;
    Ok(ended.is_none())
}
