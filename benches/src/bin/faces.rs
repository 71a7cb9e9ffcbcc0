//! What the faces cost: Get of an operation over gRPC and REST beside an empty handler of tonic and axum, and the time from a
//! create to its acknowledgement beside the durable commit alone.
//!
//! ```sh
//! cargo run --release -p longrun-bench --bin faces -- [--seconds 3] [--rounds 5] [--connections 8] [--in-flight 8]
//! ```
//!
//! Clients and servers share the process and its cores, so the empty handler pays for the client, too. Each round runs one
//! after the other, in turn; the table has the medians over the rounds, the ratio pair by pair.

#![allow(clippy::print_stdout)] // The table is what it is for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use longrun::sled::{SledKv, SledOptions};
use longrun::store::{Batch, Kv};
use longrun::{Call, Caller, Engine, KvStore, Operation};
use longrun_api::yandex::cloud::operation::operation_service_client::OperationServiceClient;
use longrun_api::yandex::cloud::operation::operation_service_server::{
    OperationService, OperationServiceServer,
};
use longrun_api::yandex::cloud::operation::{self as wire, CancelOperationRequest, GetOperationRequest};
use longrun_bench::metered::Metered;
use longrun_server::auth::Anonymous;
use longrun_server::listen::{Limits as ConnectionLimits, Listener};
use longrun_server::{Faces, grpc, rest};
use longrun_snapshot::data::{ChunkFolder, DiskFolder};
use longrun_snapshot::service::{CreateSnapshotRequest, Limits};
use longrun_snapshot::{DataPlane, SnapshotService};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};

/// What can be said.
#[derive(Clone, Copy, Debug, Parser)]
struct Options {
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Rounds.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Connections.
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// Requests in flight on each connection of gRPC; REST has one.
    #[arg(long, default_value_t = 8)]
    in_flight: usize,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let ground = Ground::new().await?;
    let servers = Servers::start(&ground).await?;
    let mut table = Table3::default();
    for _ in 0..options.rounds {
        let empty = over_grpc(servers.empty_grpc, &ground.operation, options).await?;
        let ours = over_grpc(servers.grpc, &ground.operation, options).await?;
        table.add("Get over gRPC, requests/s", empty, ours, ours / empty);
        let empty = over_rest(servers.empty_http, &ground.operation, options).await?;
        let ours = over_rest(servers.http, &ground.operation, options).await?;
        table.add("Get over REST, requests/s", empty, ours, ours / empty);
        let (bare, direct, create) =
            (ground.bare_commit(options)?, ground.submit(options).await?, create(&servers, options).await?);
        table.add("submit to ack, ms", bare, direct, direct / bare);
        table.add("create over gRPC to ack, ms", bare, create, create / bare);
    }
    table.print();
    Ok(())
}

/// Rows of a table, with the figures of each round.
#[derive(Default)]
struct Table3(Vec<(&'static str, Vec<[f64; 3]>)>);

impl Table3 {
    fn add(&mut self, name: &'static str, bare: f64, ours: f64, ratio: f64) {
        let figures = [bare, ours, ratio];
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, rounds)) => rounds.push(figures),
            None => self.0.push((name, vec![figures])),
        }
    }

    fn print(&self) {
        println!("| | bare | longrun | longrun / bare |\n|---|---|---|---|");
        for (name, rounds) in &self.0 {
            let median = |place: usize| {
                let mut figures: Vec<f64> = rounds.iter().map(|round| round[place]).collect();
                figures.sort_by(f64::total_cmp);
                figures[figures.len() / 2]
            };
            println!("| {name} | {:.3} | {:.3} | {:.2} |", median(0), median(1), median(2));
        }
    }
}

/// A service on sled, with an operation that is done, and the bytes of the commit that accepts one.
struct Ground {
    folder: tempfile::TempDir,
    snapshots: SnapshotService,
    operation: String,
    accepted: Batch,
}

impl Ground {
    async fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let disks = folder.path().join("disks");
        std::fs::create_dir(&disks)?;
        // One hole: nothing to copy, so that what is measured is the acknowledgement.
        std::fs::File::create(disks.join("disk.raw"))?.set_len(4 << 20)?;
        let kv = SledKv::open(folder.path().join("store"), SledOptions::default())?;
        let (kv, meter) = Metered::new(kv);
        let plane = DataPlane::new(DiskFolder::new(disks), ChunkFolder::open(folder.path().join("chunks"))?);
        let limits = Limits::default();
        let builder = SnapshotService::register(Engine::builder(KvStore::open(kv)?), &plane, limits);
        let snapshots = SnapshotService::new(builder.start().await?, plane, limits);
        meter.record();
        let operation = done(&snapshots, snapshots.create(Call::by(caller()?), &request()).await?).await?;
        let accepted = meter.recorded().into_iter().next();
        Ok(Self {
            folder,
            snapshots,
            operation: operation.id().to_string(),
            accepted: accepted.context("a commit")?,
        })
    }

    /// The median time of the same bytes in a durable commit of their own, in milliseconds.
    fn bare_commit(&self, options: Options) -> Result<f64> {
        let kv = SledKv::open(self.folder.path().join("bare"), SledOptions::default())?;
        let mut times = Vec::new();
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(options.seconds) {
            let one = Instant::now();
            kv.commit(&self.accepted)?;
            times.push(one.elapsed());
        }
        Ok(median(times))
    }

    /// The same for a create through the engine, without a face.
    async fn submit(&self, options: Options) -> Result<f64> {
        let mut times = Vec::new();
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(options.seconds) {
            let one = Instant::now();
            let operation = self.snapshots.create(Call::by(caller()?), &request()).await?;
            times.push(one.elapsed());
            done(&self.snapshots, operation).await?;
        }
        Ok(median(times))
    }
}

fn caller() -> Result<Caller> {
    Ok(Caller::new("bench")?)
}

fn request() -> CreateSnapshotRequest {
    CreateSnapshotRequest { folder_id: "folder".to_owned(), disk_id: "disk".to_owned(), ..Default::default() }
}

async fn done(snapshots: &SnapshotService, operation: Operation) -> Result<Operation> {
    Ok(snapshots.engine().wait_done(operation.id()).await?)
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times.get(times.len() / 2).map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
}

/// Ours and the empty ones.
struct Servers {
    grpc: SocketAddr,
    http: SocketAddr,
    empty_grpc: SocketAddr,
    empty_http: SocketAddr,
}

impl Servers {
    async fn start(ground: &Ground) -> Result<Self> {
        let faces = Faces::of_snapshots(ground.snapshots.clone(), Anonymous::as_caller(caller()?));
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let bind = async || Listener::bind(any, None, ConnectionLimits::default()).await;
        let (grpc, http) = (bind().await?, bind().await?);
        let addresses = (grpc.address()?, http.address()?);
        let (routes, _) = grpc::routes(&faces).await?;
        tokio::spawn(grpc.serve(routes, std::future::pending()));
        tokio::spawn(http.serve(rest::router(&faces), std::future::pending()));

        let empty_grpc = tokio::net::TcpListener::bind(any).await?;
        let empty_http = tokio::net::TcpListener::bind(any).await?;
        let empty = (empty_grpc.local_addr()?, empty_http.local_addr()?);
        let incoming = tonic::transport::server::TcpIncoming::from(empty_grpc).with_nodelay(Some(true));
        tokio::spawn(
            Server::builder().add_service(OperationServiceServer::new(Nothing)).serve_with_incoming(incoming),
        );
        let router = axum::Router::new().route("/operations/{id}", axum::routing::get(async || "{}"));
        tokio::spawn(async move { axum::serve(empty_http, router).await });
        Ok(Self { grpc: addresses.0, http: addresses.1, empty_grpc: empty.0, empty_http: empty.1 })
    }
}

/// A service that does nothing.
struct Nothing;

#[tonic::async_trait]
impl OperationService for Nothing {
    async fn get(&self, _: Request<GetOperationRequest>) -> Result<Response<wire::Operation>, Status> {
        Ok(Response::new(wire::Operation::default()))
    }

    async fn cancel(&self, _: Request<CancelOperationRequest>) -> Result<Response<wire::Operation>, Status> {
        Ok(Response::new(wire::Operation::default()))
    }
}

async fn channel(address: SocketAddr) -> Result<Channel> {
    Ok(Endpoint::from_shared(format!("http://{address}"))?.tcp_nodelay(true).connect().await?)
}

/// Requests a second.
async fn over_grpc(address: SocketAddr, operation: &str, options: Options) -> Result<f64> {
    let (count, until) = (Arc::new(AtomicU64::new(0)), Instant::now() + Duration::from_secs(options.seconds));
    let mut tasks = Vec::new();
    for _ in 0..options.connections {
        let channel = channel(address).await?;
        for _ in 0..options.in_flight {
            let mut client = OperationServiceClient::new(channel.clone());
            let (count, operation_id) = (Arc::clone(&count), operation.to_owned());
            tasks.push(tokio::spawn(async move {
                while Instant::now() < until {
                    client.get(GetOperationRequest { operation_id: operation_id.clone() }).await?;
                    count.fetch_add(1, Ordering::Relaxed);
                }
                Ok::<(), Status>(())
            }));
        }
    }
    for task in tasks {
        task.await??;
    }
    Ok(per_second(&count, options))
}

async fn over_rest(address: SocketAddr, operation: &str, options: Options) -> Result<f64> {
    let (count, until) = (Arc::new(AtomicU64::new(0)), Instant::now() + Duration::from_secs(options.seconds));
    let mut tasks = Vec::new();
    for _ in 0..options.connections {
        let stream = tokio::net::TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let (count, uri) = (Arc::clone(&count), format!("/operations/{operation}"));
        tasks.push(tokio::spawn(async move {
            while Instant::now() < until {
                let request = http::Request::get(&uri).header("host", "bench").body(Empty::<&[u8]>::new())?;
                let response = sender.send_request(request).await?;
                anyhow::ensure!(response.status().is_success(), "{}", response.status());
                response.into_body().collect().await?;
                count.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    Ok(per_second(&count, options))
}

#[allow(clippy::cast_precision_loss)] // Counts of requests are far below 2^52.
fn per_second(count: &AtomicU64, options: Options) -> f64 {
    count.load(Ordering::Relaxed) as f64 / options.seconds as f64
}

/// The median time from a create over gRPC to its acknowledgement, in milliseconds, one at a time.
async fn create(servers: &Servers, options: Options) -> Result<f64> {
    use longrun_api::google::longrunning::WaitOperationRequest;
    use longrun_api::google::longrunning::operations_client::OperationsClient;
    use longrun_api::yandex::cloud::compute::v1::CreateSnapshotRequest;
    use longrun_api::yandex::cloud::compute::v1::snapshot_service_client::SnapshotServiceClient;

    let channel = channel(servers.grpc).await?;
    let (mut snapshots, mut operations) =
        (SnapshotServiceClient::new(channel.clone()), OperationsClient::new(channel));
    let mut times = Vec::new();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(options.seconds) {
        let wanted = request();
        let wanted = CreateSnapshotRequest {
            folder_id: wanted.folder_id,
            disk_id: wanted.disk_id,
            ..Default::default()
        };
        let one = Instant::now();
        let operation = snapshots.create(wanted).await?.into_inner();
        times.push(one.elapsed());
        let name = format!("operations/{}", operation.id);
        operations.wait_operation(WaitOperationRequest { name, timeout: None }).await?;
    }
    Ok(median(times))
}
