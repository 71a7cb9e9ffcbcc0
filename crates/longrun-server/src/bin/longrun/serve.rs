//! `longrun serve`: the snapshot service on a disk folder, over gRPC and REST.

mod metrics;
mod options;

use std::future::pending;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use longrun::{Caller, Engine};
use longrun_server::auth::{Anonymous, Tokens};
use longrun_server::listen::{Limits as ConnectionLimits, Listener, acceptor};
use longrun_server::quota::FolderRate;
use longrun_server::{Faces, grpc, rest};
use longrun_snapshot::data::{ChunkFolder, DiskFolder};
use longrun_snapshot::service::Limits;
use longrun_snapshot::{DataPlane, SnapshotService};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub(crate) use options::Options;

use crate::stores::{StoreChoice, StorePlace};

/// How often what nobody refers to is removed from the chunk folder.
const COLLECT_EVERY: Duration = Duration::from_secs(60 * 60);

/// How long after the start everything stored is read for the first time, if not before.
const FIRST_SCRUB: Duration = Duration::from_secs(6 * 60 * 60);

/// Serves until it is told to stop.
pub(crate) async fn run(options: Options) -> Result<()> {
    options.check()?;
    let metrics = options.metrics.map(metrics::Metrics::install).transpose()?;
    // Before anything is opened, so that a signal meanwhile is not lost.
    let stop = stop_signals()?;
    let (snapshots, _chunks) = open(&options).await?;
    let served = serve(&options, snapshots.clone(), metrics, stop).await;
    // Also when serving failed: the store is closed in peace.
    let nothing_left = snapshots.engine().shutdown(options.grace()).await;
    if !nothing_left {
        tracing::warn!("work was left where it stands, for the next start");
    }
    served
}

/// The service, with what it keeps under the data folder, and the folder of its chunks if that goes with it.
async fn open(options: &Options) -> Result<(SnapshotService, Option<TempDir>)> {
    // Not every store makes the folder, and the chunks need it too. It is nobody else's to look into.
    let data = &options.data;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(data);
    made.with_context(|| format!("cannot make {}", data.display()))?;
    let store = options.store.open(&data.join("store"), options.sharing()).await?;
    // A store in memory is another one each time, and chunks belong to one store.
    let is_volatile = options.store == StorePlace::Own(StoreChoice::Memory);
    let temporary =
        is_volatile.then(|| tempfile::Builder::new().prefix("chunks-").tempdir_in(data)).transpose()?;
    let chunks = temporary.as_ref().map_or_else(|| data.join("chunks"), |folder| folder.path().to_owned());
    let chunks = ChunkFolder::open(&chunks).with_context(|| format!("cannot open {}", chunks.display()))?;
    let mut plane =
        DataPlane::new(DiskFolder::new(&options.disks), chunks).delete_grace(options.delete_grace());
    if let Some(rate) = options.copy_rate {
        plane = plane.copy_rate(rate);
    }
    let limits = Limits::default();
    let mut builder = SnapshotService::register(Engine::builder_shared(store), &plane, limits);
    if let Some(operations) = options.max_running {
        builder = builder.running_max(operations.get());
    }
    let held = builder.preflight().await.context("cannot look at what is unfinished")?;
    for held in &held {
        tracing::error!(operation = %held.operation, reason = %held.reason, "this version cannot work on it; it is kept");
    }
    let engine = builder.start().await.context("cannot start the engine")?;
    let snapshots = SnapshotService::new(engine, plane, limits);
    // Folders that were mixed up are told of now, and not by each create.
    snapshots.claim_chunks().await.context("the chunk folder cannot be used")?;
    Ok((snapshots.admission(FolderRate::per_second(options.folder_rate)), temporary))
}

async fn serve(
    options: &Options,
    snapshots: SnapshotService,
    metrics: Option<metrics::Metrics>,
    stop: watch::Receiver<bool>,
) -> Result<()> {
    let tls = match (&options.tls_cert, &options.tls_key) {
        (Some(certificate), Some(key)) => Some(acceptor(certificate, key)?),
        _ => None,
    };
    let bind = async |address| {
        let listener = Listener::bind(address, tls.clone(), ConnectionLimits::default()).await;
        listener.with_context(|| format!("cannot listen on {address}"))
    };
    let (grpc, http) = (bind(options.grpc).await?, bind(options.http).await?);
    let addresses = (grpc.address()?, http.address()?);
    let mut faces = faces(snapshots.clone(), options.auth_token_file.as_deref(), options.on_loopback())?;
    faces = match &options.advertise {
        Some(address) => faces.advertise(address.as_str()),
        None => faces.listens_at(addresses.0.to_string()),
    };
    let (routes, health) = grpc::routes(&faces).await.context("cannot describe the services")?;

    let mut tending = vec![tokio::spawn(collect(snapshots.clone()))];
    if let Some(every) = options.scrub_every() {
        tending.push(tokio::spawn(scrub(snapshots, every, Caller::new("scrub")?)));
    }
    let mut serving = vec![
        tokio::spawn(grpc.serve(routes, until(stop.clone()))),
        tokio::spawn(http.serve(rest::router(&faces), until(stop.clone()))),
    ];
    if let Some(metrics) = metrics {
        let listener = Listener::bind(metrics.address(), None, ConnectionLimits::default()).await;
        let listener = listener.with_context(|| format!("cannot listen on {}", metrics.address()))?;
        tracing::info!(address = %listener.address()?, "metrics, under /metrics");
        serving.push(tokio::spawn(listener.serve(metrics.router(), until(stop.clone()))));
    }
    say_ready(&addresses)?;

    until(stop.clone()).await;
    tracing::info!("stops: takes no more, and lets what runs come to an end");
    health.set_service_status("", tonic_health::ServingStatus::NotServing).await;
    faces.drain();
    tending.iter().for_each(JoinHandle::abort);
    let ended = tokio::time::timeout(options.grace(), async {
        for server in &mut serving {
            _ = server.await;
        }
    });
    if ended.await.is_err() {
        tracing::warn!("some connections did not end in time");
    }
    serving.iter().for_each(JoinHandle::abort);
    Ok(())
}

fn faces(snapshots: SnapshotService, token_file: Option<&Path>, on_loopback: bool) -> Result<Faces> {
    Ok(match token_file {
        Some(path) => {
            let tokens = Tokens::read(path).with_context(|| format!("cannot use {}", path.display()))?;
            Faces::of_snapshots(snapshots.access(tokens.clone()), tokens)
        }
        None => {
            let anonymous = Anonymous::as_caller(Caller::new("anonymous")?);
            Faces::of_snapshots(snapshots, if on_loopback { anonymous.on_loopback() } else { anonymous })
        }
    })
}

/// The one line on standard output: whoever started the program waits for it.
fn say_ready((grpc, http): &(std::net::SocketAddr, std::net::SocketAddr)) -> Result<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "ready grpc={grpc} http={http}")?;
    Ok(output.flush()?)
}

/// Removes, at the start and then every hour, what crashes left behind.
async fn collect(snapshots: SnapshotService) {
    let mut every = tokio::time::interval(COLLECT_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        match snapshots.collect().await {
            Ok(collected) => tracing::info!(?collected, "collected what nobody refers to"),
            Err(error) => tracing::warn!(%error, "could not collect what nobody refers to"),
        }
    }
}

/// Reads everything that is stored, again and again: what nobody reads for a year is found damaged when it is needed.
async fn scrub(snapshots: SnapshotService, every: Duration, by: Caller) {
    // A service that is started anew more often than it scrubs would never do it.
    let mut pause = every.min(FIRST_SCRUB);
    loop {
        tokio::time::sleep(pause).await;
        match snapshots.scrub(&by).await {
            Ok(scrubbed) => tracing::info!(?scrubbed, "read all that is stored"),
            Err(error) => tracing::warn!(%error, "could not read all that is stored"),
        }
        pause = every;
    }
}

async fn until(mut stop: watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        // Nobody is left to say so.
        pending::<()>().await;
    }
}

/// True after the first SIGTERM or SIGINT. The second ends the process at once.
fn stop_signals() -> Result<watch::Receiver<bool>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (stop, stops) = watch::channel(false);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if stop.send_replace(true) {
                std::process::exit(1);
            }
        }
    });
    Ok(stops)
}
