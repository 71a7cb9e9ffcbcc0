//! A full disk (L8): submits are refused as RESOURCE_EXHAUSTED, reads work, what runs pauses; when there is space again
//! all of it goes on, without a restart.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use longrun::{Call, Code, Engine, OperationId, OperationQuery, PageRequest, SubmitError};

use super::super::disk::Disk;
use super::super::facts::{Fact, Teller, outcome};
use super::super::ground::{Ground, caller};
use super::super::script::{Act, End, Request, Script, key_text};
use super::super::verify::Mode;
use super::{Bench, note};

const BEFORE: u64 = 40;
const RUNNING: u64 = 16;
/// How long the steps of those that run take: longer than it takes to fill the disk.
const STEP: Duration = Duration::from_millis(700);
const FULL_FOR: Duration = Duration::from_millis(3000);
const END_WITHIN: Duration = Duration::from_secs(60);

pub(super) fn run(bench: &mut Bench) -> anyhow::Result<()> {
    for round in 0..3_u64 {
        let root = bench.root.path().join(format!("full-{round}"));
        fs::create_dir_all(&root)?;
        let disk = match Disk::make(&root) {
            Ok(disk) => disk,
            Err(reason) => {
                bench.report.skip("a full disk", format!("{reason:#}"));
                return Ok(());
            }
        };
        let dir = disk.point().join("kv");
        let ground = Ground::under(&root, dir, bench.campaign.store, bench.campaign.durability);
        let ballast = disk.point().join("ballast");
        let left = bench.dice.within(0..200_000);
        let runtime = super::super::runtime()?;
        let result = runtime.block_on(fill_and_free(&ground, &ballast, left));
        // Ends all tasks, and with them the last handles of the store.
        runtime.shutdown_timeout(Duration::from_secs(5));
        bench.check(&format!("a full disk, round {round}"), result);
        let result = bench.whole(&ground, Mode { look: false, tell: true });
        bench.check(&format!("after a full disk, round {round}"), result);
        disk.end()?;
    }
    Ok(())
}

/// Fills a disk to the last block, but for `left` bytes.
fn fill(ballast: &Path, left: u64) -> anyhow::Result<()> {
    let mut file = File::create(ballast)?;
    for len in [1 << 20, 1 << 12] {
        while file.write_all(&vec![0xa5; len]).is_ok() {}
    }
    _ = file.sync_all();
    let len = file.metadata()?.len();
    file.set_len(len.saturating_sub(left))?;
    Ok(())
}

struct Client {
    engine: Engine,
    teller: Teller,
}

impl Client {
    async fn submit(&self, number: u64, micros: u64) -> Result<OperationId, SubmitError> {
        let request = Request { number, act: Act::Make, end: End::Well, micros, hiccup: false };
        let caller = caller().map_err(|_| SubmitError::ShuttingDown)?;
        let call = Call::by(caller).key(request.key()?);
        let operation = self.engine.submit::<Script>(&request, call).await?;
        self.teller.tell(&Fact::Accepted { id: operation.id(), key: key_text(number) });
        Ok(operation.id())
    }

    async fn ends_well(&self, id: OperationId) -> anyhow::Result<()> {
        let operation = self.engine.wait(id, END_WITHIN).await?;
        let Some(outcome) = outcome(&operation) else { bail!("L8: {id} does not go on: {operation:?}") };
        self.teller.tell(&Fact::Done { id, outcome: outcome.clone() });
        ensure!(outcome == "ok", "L8: {id} failed because of a full disk: {:?}", operation.error());
        Ok(())
    }

    /// What has to work on a full disk.
    async fn reads_work(&self, known: OperationId) -> anyhow::Result<()> {
        let operation = self.engine.get(known).await.context("L8: get does not work on a full disk")?;
        ensure!(operation.done(), "S11: {known} was done");
        let page = PageRequest::default();
        let listed = self.engine.list_operations(&OperationQuery::All, &page).await;
        let listed = listed.context("L8: list does not work on a full disk")?;
        ensure!(!listed.items.is_empty(), "L8: the list is empty");
        Ok(())
    }
}

async fn fill_and_free(ground: &Ground, ballast: &PathBuf, left: u64) -> anyhow::Result<()> {
    let opened = ground.open()?;
    let engine = ground.start(opened.for_engine(None)).await?;
    let client = Client { engine, teller: ground.teller()? };
    let mut known = None;
    for number in 0..BEFORE {
        let id = client.submit(number, 0).await?;
        client.ends_well(id).await?;
        known = Some(id);
    }
    let known = known.context("nothing was done")?;
    let mut running = Vec::new();
    let micros = u64::try_from(STEP.as_micros())?;
    for number in BEFORE..BEFORE + RUNNING {
        running.push(client.submit(number, micros).await?);
    }

    fill(ballast, left)?;
    let (full_since, mut refused, mut taken, mut unread) = (Instant::now(), 0_u64, 0_u64, 0_u64);
    let mut number = BEFORE + RUNNING;
    let mut first_unread = None;
    while full_since.elapsed() < FULL_FOR || refused == 0 {
        ensure!(full_since.elapsed() < END_WITHIN, "the disk does not get full");
        match client.submit(number, 0).await {
            Ok(id) => {
                taken += 1;
                running.push(id);
            }
            Err(error) => {
                let code = error.code();
                ensure!(
                    code == Code::ResourceExhausted,
                    "L8: a submit is refused as {code}: {:#}",
                    anyhow::Error::from(error)
                );
                refused += 1;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        number += 1;
        if let Err(error) = client.reads_work(known).await {
            unread += 1;
            first_unread.get_or_insert(error);
        }
    }
    for id in &running {
        if let Ok(operation) = client.engine.get(*id).await {
            ensure!(operation.error().is_none(), "L8: {id} failed on a full disk: {:?}", operation.error());
        }
    }
    note(&format!(
        "full for {:.1} s: {taken} taken before, {refused} refused, {unread} reads failed",
        full_since.elapsed().as_secs_f64()
    ));

    fs::remove_file(ballast)?;
    let freed = Instant::now();
    let again = loop {
        match client.submit(number, 0).await {
            Ok(id) => break id,
            Err(error) => {
                ensure!(
                    freed.elapsed() < Duration::from_secs(10),
                    "L8: still refused: {:#}",
                    anyhow::Error::from(error)
                );
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    note(&format!("taken again {:.2} s after there was space", freed.elapsed().as_secs_f64()));
    running.push(again);
    for id in running {
        client.ends_well(id).await?;
    }
    note(&format!("all ended {:.2} s after there was space", freed.elapsed().as_secs_f64()));
    client.reads_work(known).await?;
    client.engine.shutdown(Duration::from_secs(5)).await;
    match first_unread {
        Some(error) => Err(error.context(format!("{unread} reads failed while the disk was full"))),
        None => Ok(()),
    }
}
