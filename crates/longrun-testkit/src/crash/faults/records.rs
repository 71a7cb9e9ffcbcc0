//! Single records that cannot be read: their operation is held, with the cause; the others go on (C18).

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use longrun::{Engine, HoldReason, OperationId, Store};
use longrun_store::conformance::records::reseal;
use longrun_store::{Batch, Kv, KvStore, OpenError, StoreError, Table};

use super::super::census::Census;
use super::super::ground::Ground;
use super::super::verify::Mode;
use super::{Bench, copy};

const END_WITHIN: Duration = Duration::from_secs(60);

pub(super) fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let ground = bench.ground("records")?;
    bench.killed(&ground)?;
    let result = future_layout(bench, &ground);
    bench.check("a future layout", result);
    let result = unreadable(bench, &ground);
    bench.check("a flipped bit and a future version in records", result);
    let result = unknown_kind(&ground);
    bench.check("a kind that is not registered", result);
    let result = bench.whole(&ground, Mode { look: false, tell: true });
    bench.check("after a kind was missing, nothing is lost", result);
    Ok(())
}

/// Changes one stored value, below everything that would notice.
fn change(
    ground: &Ground,
    table: Table,
    key: &[u8],
    change: impl FnOnce(&mut Vec<u8>),
) -> anyhow::Result<()> {
    let kv = ground.open_kv()?;
    let mut value = kv.get(table, key)?.context("there is no such record")?;
    change(&mut value);
    let mut batch = Batch::default();
    batch.put(table, key.to_vec(), value);
    Ok(kv.commit(&batch)?)
}

fn future_layout(bench: &Bench, ground: &Ground) -> anyhow::Result<()> {
    let copied = copy(ground, &bench.root.path().join("future-layout"))?;
    change(&copied, Table::Meta, b"format", |value| {
        // A small number, alone in the payload.
        if let Some(last) = value.last_mut() {
            *last = 99;
        }
        reseal(value);
    })?;
    match KvStore::open(copied.open_kv()?) {
        Err(OpenError::FutureLayout { found: 99 }) => Ok(()),
        Err(other) => bail!("not the right error: {other:?}"),
        Ok(_) => bail!("it was opened"),
    }
}

fn unreadable(bench: &Bench, ground: &Ground) -> anyhow::Result<()> {
    let copied = copy(ground, &bench.root.path().join("unreadable"))?;
    let census = {
        let opened = copied.open()?;
        bench.runtime.block_on(Census::take(opened.store.as_ref()))?
    };
    let unfinished: Vec<OperationId> = census.unfinished().map(|entry| entry.operation.id()).collect();
    let [flipped, future, others @ ..] = &unfinished[..] else { bail!("too few are unfinished") };
    change(&copied, Table::Operations, flipped.as_bytes(), |value| {
        let middle = value.len() / 2;
        value[middle] ^= 4;
    })?;
    change(&copied, Table::Operations, future.as_bytes(), |value| {
        value[2..4].copy_from_slice(&99_u16.to_be_bytes());
        reseal(value);
    })?;
    // The effects are those of the original: not to be touched here.
    let copied = Ground { effects: bench.root.path().join("unreadable-effects"), ..copied };
    let opened = copied.open()?;
    bench.runtime.block_on(async {
        let store: Arc<dyn Store> = opened.for_engine(None);
        let effects = copied.open_effects()?;
        for (id, steps) in ground.open_effects()?.all()? {
            steps
                .iter()
                .try_for_each(|step| std::fs::write(copied.effects.join(format!("{id}-{step}")), b""))?;
        }
        ensure!(effects.all_broken()?.is_empty());
        let engine = copied.start(Arc::clone(&store)).await?;
        for id in others {
            let operation = engine.wait(*id, END_WITHIN).await?;
            ensure!(operation.done(), "C18: {id} does not end because of others");
        }
        match store.load(*flipped).await {
            Err(StoreError::Corrupt { .. }) => {}
            other => bail!("a flipped bit gives {other:?}"),
        }
        match store.load(*future).await {
            Err(StoreError::FutureFormat { found: 99, .. }) => {}
            other => bail!("a future version gives {other:?}"),
        }
        let held: Vec<_> = engine.held().into_iter().map(|held| held.operation).collect();
        ensure!(held.contains(flipped) && held.contains(future), "they are not held: {held:?}");
        let after = Census::take(store.as_ref()).await?;
        ensure!(after.operations.len() + 2 == census.operations.len(), "others have gone too");
        engine.shutdown(Duration::from_secs(5)).await;
        Ok(())
    })
}

/// A program without the kind leaves the operations alone; with it they go on.
fn unknown_kind(ground: &Ground) -> anyhow::Result<()> {
    let opened = ground.open()?;
    // Its own, so that all tasks, and with them the last handles of the store, are gone when this returns.
    let runtime = super::super::runtime()?;
    let result = runtime.block_on(async {
        let unfinished = Census::take(opened.store.as_ref()).await?.unfinished().count();
        let engine = Engine::builder_shared(opened.for_engine(None)).start().await?;
        let held = engine.preflight().await?;
        ensure!(held.len() == unfinished, "{} of {unfinished} are held", held.len());
        let named = held.iter().all(|held| matches!(held.reason, HoldReason::UnknownKind(_)));
        ensure!(named, "not the right reasons: {held:?}");
        engine.shutdown(Duration::from_secs(5)).await;
        Ok(())
    });
    runtime.shutdown_timeout(Duration::from_secs(5));
    result
}
