//! Clients: of gRPC by tonic and by hand, of REST by hyper and by hand; and what an answer is.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use longrun_api::google::longrunning::operations_client::OperationsClient;
use longrun_api::google::rpc;
use longrun_api::yandex::cloud::compute::v1 as compute;
use longrun_api::yandex::cloud::compute::v1::snapshot_service_client::SnapshotServiceClient;
use longrun_api::yandex::cloud::operation::operation_service_client::OperationServiceClient;
use longrun_api::yandex::cloud::operation::{GetOperationRequest, Operation};
use prost::Message;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};

use crate::server::{PATIENCE, Server};

pub(crate) const CREATE: &str = "/yandex.cloud.compute.v1.SnapshotService/Create";

/// A refusal, whichever face it came through.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    /// The gRPC code, in the body over REST.
    pub(crate) code: i32,
    /// The HTTP status; over gRPC there is none.
    pub(crate) http: Option<u16>,
    pub(crate) reason: String,
    pub(crate) facts: std::collections::BTreeMap<String, String>,
    pub(crate) fields: Vec<String>,
    pub(crate) retry: bool,
    pub(crate) request_id: String,
    /// Everything that came, as text: what a stranger wrote must not be in it.
    pub(crate) raw: String,
}

impl Refusal {
    fn of_status(status: &rpc::Status, http: Option<u16>, raw: String) -> Self {
        let detail = |name: &str| {
            status.details.iter().find(|any| any.type_url == format!("type.googleapis.com/google.rpc.{name}"))
        };
        let info = detail("ErrorInfo").map(|any| rpc::ErrorInfo::decode(any.value.clone()).unwrap());
        let info = info.unwrap_or_else(|| panic!("no reason in {status:?}"));
        let bad = detail("BadRequest").map(|any| rpc::BadRequest::decode(any.value.clone()).unwrap());
        let request = detail("RequestInfo").map(|any| rpc::RequestInfo::decode(any.value.clone()).unwrap());
        let fields =
            bad.map(|bad| bad.field_violations.into_iter().map(|violation| violation.field).collect());
        Self {
            code: status.code,
            http,
            reason: info.reason,
            facts: info.metadata,
            fields: fields.unwrap_or_default(),
            retry: detail("RetryInfo").is_some(),
            request_id: request.map(|request| request.request_id).unwrap_or_default(),
            raw,
        }
    }
}

/// What a call over gRPC was refused with.
#[track_caller]
pub(crate) fn grpc_refusal<A: std::fmt::Debug>(result: Result<A, tonic::Status>) -> Refusal {
    let status = result.expect_err("must be refused");
    let parsed = rpc::Status::decode(status.details())
        .unwrap_or_else(|error| panic!("{error} in the details of {status:?}"));
    assert_eq!((parsed.code, parsed.message.as_str()), (status.code() as i32, status.message()));
    let id = status.metadata().get("x-request-id").map(|id| id.to_str().unwrap().to_owned());
    let raw = format!("{status:?} {} {:?}", status.message(), String::from_utf8_lossy(status.details()));
    let refusal = Refusal::of_status(&parsed, None, raw);
    assert_eq!(
        Some(&refusal.request_id),
        id.as_ref(),
        "the id of the request is in the trailers and in the details"
    );
    refusal
}

/// A call with headers.
pub(crate) fn call<Q>(message: Q, headers: &[(&'static str, &str)]) -> tonic::Request<Q> {
    let mut request = tonic::Request::new(message);
    for (name, value) in headers {
        request.metadata_mut().insert(*name, value.parse().unwrap());
    }
    request
}

impl Server {
    pub(crate) fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.grpc)).unwrap().connect_lazy()
    }

    pub(crate) fn operations(&self) -> OperationServiceClient<Channel> {
        OperationServiceClient::new(self.channel())
    }

    pub(crate) fn longrunning(&self) -> OperationsClient<Channel> {
        OperationsClient::new(self.channel())
    }

    pub(crate) fn snapshots_client(&self) -> SnapshotServiceClient<Channel> {
        SnapshotServiceClient::new(self.channel())
    }

    /// Creates a snapshot in a folder and waits until it is there. Gives the operation and the snapshot's id.
    pub(crate) async fn snapshot(
        &self,
        folder: &str,
        name: &str,
        headers: &[(&'static str, &str)],
    ) -> (Operation, String) {
        let operation = self.create(folder, name, headers).await;
        let done = self.done(&operation.id).await;
        assert!(done.error().is_none(), "{done:?}");
        (operation.clone(), snapshot_of(&operation))
    }

    pub(crate) async fn create(
        &self,
        folder: &str,
        name: &str,
        headers: &[(&'static str, &str)],
    ) -> Operation {
        let request = create(folder, name);
        self.snapshots_client().create(call(request, headers)).await.unwrap().into_inner()
    }

    /// Waits until an operation is done.
    pub(crate) async fn done(&self, id: &str) -> longrun::Operation {
        let id = longrun::OperationId::parse(id).unwrap();
        tokio::time::timeout(PATIENCE, self.snapshots.engine().wait_done(id)).await.unwrap().unwrap()
    }

    /// A request over REST, whole.
    pub(crate) async fn rest(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Rest {
        let mut request = Request::builder().method(method).uri(path).header("host", "test");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let stream = TcpStream::connect(self.http).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let response = sender.send_request(request.body(Full::new(body.into())).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Rest { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    pub(crate) async fn get(&self, path: &str) -> Rest {
        self.rest(Method::GET, path, &[], "").await
    }

    pub(crate) async fn post(&self, path: &str, body: impl Into<Bytes>) -> Rest {
        self.rest(Method::POST, path, &[], body).await
    }

    /// A message over gRPC, as bytes: framed, but else as it is.
    pub(crate) async fn raw_grpc(&self, path: &str, headers: &[(&str, &str)], frame: Bytes) -> RawAnswer {
        raw_grpc(self.grpc, path, headers, frame).await
    }

    /// That the server answers, over both faces.
    pub(crate) async fn lives(&self) {
        let request = GetOperationRequest { operation_id: "missing".to_owned() };
        let refused = self.operations().get(bearer(request)).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::NotFound, "{refused:?}");
        let answer = self
            .rest(Method::GET, "/operations/missing", &[("authorization", "Bearer alice-token")], "")
            .await;
        assert_eq!(answer.status, 404);
        assert_eq!(self.get("/endpoints").await.status, 200);
    }
}

/// A call by alice, where that matters.
pub(crate) fn bearer<Q>(message: Q) -> tonic::Request<Q> {
    call(message, &[("authorization", "Bearer alice-token")])
}

pub(crate) fn create(folder: &str, name: &str) -> compute::CreateSnapshotRequest {
    compute::CreateSnapshotRequest {
        folder_id: folder.to_owned(),
        disk_id: "disk-1".to_owned(),
        name: name.to_owned(),
        ..Default::default()
    }
}

pub(crate) fn create_json(folder: &str, name: &str) -> Value {
    json!({ "folderId": folder, "diskId": "disk-1", "name": name })
}

/// The id of the snapshot that an operation is about.
pub(crate) fn snapshot_of(operation: &Operation) -> String {
    let metadata = operation.metadata.as_ref().unwrap();
    compute::CreateSnapshotMetadata::decode(metadata.value.clone()).unwrap().snapshot_id
}

/// An answer over REST.
#[derive(Debug)]
pub(crate) struct Rest {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Rest {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    #[track_caller]
    pub(crate) fn refusal(&self) -> Refusal {
        assert_ne!(self.status, 200, "must be refused: {self:?}");
        let status: rpc::Status =
            serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        let raw = format!("{:?} {}", self.headers, String::from_utf8_lossy(&self.body));
        let refusal = Refusal::of_status(&status, Some(self.status), raw);
        assert_eq!(self.headers["x-request-id"], refusal.request_id.as_str());
        refusal
    }
}

/// An answer over HTTP/2, with its trailers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RawAnswer {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: HeaderMap,
}

impl RawAnswer {
    #[track_caller]
    pub(crate) fn refusal(&self) -> Refusal {
        assert!(self.body.is_empty() && self.trailers.is_empty(), "trailers alone: {self:?}");
        let status = tonic::Status::from_header_map(&self.headers).unwrap_or_else(|| panic!("{self:?}"));
        grpc_refusal::<()>(Err(status))
    }
}

/// Puts a message into the frame of gRPC.
pub(crate) fn framed(flag: u8, message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap();
    [&[flag][..], &length.to_be_bytes(), message].concat().into()
}

pub(crate) async fn raw_grpc(
    to: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    frame: Bytes,
) -> RawAnswer {
    let stream = TcpStream::connect(to).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut request = Request::post(format!("http://{to}{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = sender.send_request(request.body(Full::new(frame)).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let collected = body.collect().await.unwrap();
    let trailers = collected.trailers().cloned().unwrap_or_default();
    RawAnswer { headers: parts.headers, body: collected.to_bytes(), trailers }
}

/// Sends bytes as they are and reads until the server closes, or for as long as the patience lasts.
pub(crate) async fn raw(to: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let stream = TcpStream::connect(to).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let bytes = bytes.to_vec();
    // The server may close before it has read everything.
    let write = tokio::spawn(async move {
        _ = writer.write_all(&bytes).await;
        writer
    });
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, reader.read_to_end(&mut answer)).await;
    _ = read.expect("the server closes");
    drop(write.await);
    answer
}

/// The status of an answer of HTTP/1.
pub(crate) fn status_line(answer: &[u8]) -> u16 {
    let text = String::from_utf8_lossy(answer);
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.unwrap_or_else(|| panic!("no status in {text:?}"))
}

/// The HTTP status of an answer that may be no answer of gRPC; none if the stream was reset.
pub(crate) async fn raw_grpc_status(
    to: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    frame: Bytes,
) -> Option<u16> {
    let stream = TcpStream::connect(to).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut request = Request::post(format!("http://{to}{path}")).header("content-type", "application/grpc");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = sender.send_request(request.body(Full::new(frame)).unwrap()).await;
    response.ok().map(|response| response.status().as_u16())
}
