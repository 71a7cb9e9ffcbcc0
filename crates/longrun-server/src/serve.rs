//! `longrun serve`: the snapshot service on a disk folder, over gRPC and REST.

mod metrics;
mod options;

use std::future::pending;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use longrun::{Caller, Engine};
use longrun_server::auth::{Anonymous, Tokens};
use longrun_server::listen::{Limits as ConnectionLimits, Listener, acceptor};
use longrun_server::quota::FolderRate;
use longrun_server::{Faces, grpc, rest};
use longrun_snapshot::data::{ChunkFolder, DiskFolder};
use longrun_snapshot::service::Limits;
use longrun_snapshot::{DataPlane, SnapshotService};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub(crate) use options::Options;

/// How often what nobody refers to is removed from the chunk folder.
const COLLECT_EVERY: Duration = Duration::from_secs(60 * 60);

/// Serves until it is told to stop.
pub(crate) async fn run(options: Options) -> Result<()> {
    options.check()?;
    let metrics = options.metrics.map(metrics::Metrics::install).transpose()?;
    // Before anything is opened, so that a signal meanwhile is not lost.
    let stop = stop_signals()?;
    let snapshots = open(&options).await?;
    let served = serve(&options, snapshots.clone(), metrics, stop).await;
    // Also when serving failed: the store is closed in peace.
    let nothing_left = snapshots.engine().shutdown(options.grace()).await;
    if !nothing_left {
        tracing::warn!("work was left where it stands, for the next start");
    }
    served
}

/// The service, with what it keeps under the data folder.
async fn open(options: &Options) -> Result<SnapshotService> {
    // Not every store makes the folder, and the chunks need it too. It is nobody else's to look into.
    let data = &options.data;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(data);
    made.with_context(|| format!("cannot make {}", data.display()))?;
    let store = options.store.open(&options.data.join("store"))?;
    let chunks = options.data.join("chunks");
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
    Ok(SnapshotService::new(engine, plane, limits).admission(FolderRate::per_second(options.folder_rate)))
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
    let mut faces = faces(snapshots.clone(), options.auth_token_file.as_deref())?;
    faces = match &options.advertise {
        Some(address) => faces.advertise(address.as_str()),
        None => faces.listens_at(addresses.0.to_string()),
    };
    let (routes, health) = grpc::routes(&faces).await.context("cannot describe the services")?;

    let collecting = tokio::spawn(collect(snapshots));
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
    collecting.abort();
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

fn faces(snapshots: SnapshotService, token_file: Option<&Path>) -> Result<Faces> {
    Ok(match token_file {
        Some(path) => {
            let tokens = Tokens::read(path).with_context(|| format!("cannot use {}", path.display()))?;
            Faces::of_snapshots(snapshots.access(tokens.clone()), tokens)
        }
        None => Faces::of_snapshots(snapshots, Anonymous::as_caller(Caller::new("anonymous")?)),
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

impl Options {
    fn check(&self) -> Result<()> {
        let off_loopback = [self.grpc, self.http].into_iter().find(|address| !address.ip().is_loopback());
        if let Some(address) = off_loopback
            && !self.insecure
        {
            ensure!(
                self.tls_cert.is_some(),
                "{address} can be reached from outside: give --tls-cert and --tls-key, or --insecure"
            );
            ensure!(
                self.auth_token_file.is_some(),
                "{address} can be reached from outside: give --auth-token-file, or --insecure"
            );
        }
        ensure!(self.disks.is_dir(), "there is no folder {}", self.disks.display());
        Ok(())
    }
}
