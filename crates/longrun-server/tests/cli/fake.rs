//! A server that answers as it was told to, and remembers what it was asked.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use longrun_api::google::longrunning::operations_server::{Operations, OperationsServer};
use longrun_api::google::longrunning::{
    self, CancelOperationRequest, DeleteOperationRequest, GetOperationRequest, ListOperationsRequest,
    ListOperationsResponse, WaitOperationRequest,
};
use longrun_api::well_known::Empty;
use longrun_api::yandex::cloud::compute::v1::snapshot_service_server::{
    SnapshotService, SnapshotServiceServer,
};
use longrun_api::yandex::cloud::compute::v1::{
    CreateSnapshotRequest, DeleteSnapshotRequest, GetSnapshotRequest, ListSnapshotOperationsRequest,
    ListSnapshotOperationsResponse, ListSnapshotsRequest, ListSnapshotsResponse, Snapshot,
    UpdateSnapshotRequest,
};
use longrun_api::yandex::cloud::operation as cloud;
use longrun_api::yandex::cloud::operation::operation_service_server::{
    OperationService, OperationServiceServer,
};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::process::Command;
use tonic::metadata::MetadataMap;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

/// A call as the server got it.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) message: Value,
    pub(crate) headers: MetadataMap,
}

impl Call {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// Makes an answer, each time it is asked to.
type Answers = Arc<dyn Fn() -> Answer + Send + Sync>;

/// What the server answers with.
enum Answer {
    /// A `Result<A, Status>` of the method's own answer.
    This(Box<dyn Any + Send>),
    /// Nothing, ever.
    Nothing,
}

#[derive(Default)]
struct State {
    /// Answers to calls of a method on something, one after the other; the last one again and again.
    script: Mutex<BTreeMap<String, VecDeque<Answers>>>,
    calls: Mutex<Vec<Call>>,
}

/// A running fake.
#[derive(Clone)]
pub(crate) struct Fake {
    state: Arc<State>,
    pub(crate) address: SocketAddr,
}

impl Fake {
    pub(crate) async fn start() -> Self {
        Self::serve(Server::builder()).await
    }

    pub(crate) async fn start_tls(certificate: &str, key: &str) -> Self {
        let tls = ServerTlsConfig::new().identity(Identity::from_pem(certificate, key));
        Self::serve(Server::builder().tls_config(tls).unwrap()).await
    }

    async fn serve(mut server: Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Self { state: Arc::default(), address: listener.local_addr().unwrap() };
        let router = server
            .add_service(OperationsServer::new(fake.clone()))
            .add_service(OperationServiceServer::new(fake.clone()))
            .add_service(SnapshotServiceServer::new(fake.clone()));
        tokio::spawn(router.serve_with_incoming(TcpIncoming::from(listener)));
        fake
    }

    /// The next answer to a method on something: `Get fd8`, or `List` for what has no id.
    pub(crate) fn on<A: Clone + Send + Sync + 'static>(
        &self,
        call: &str,
        answer: Result<A, Status>,
    ) -> &Self {
        self.push(call, Arc::new(move || Answer::This(Box::new(answer.clone()))))
    }

    /// The call is never answered.
    pub(crate) fn silent_on(&self, call: &str) -> &Self {
        self.push(call, Arc::new(|| Answer::Nothing))
    }

    fn push(&self, call: &str, answer: Answers) -> &Self {
        self.state.script.lock().unwrap().entry(call.to_owned()).or_default().push_back(answer);
        self
    }

    /// The calls so far.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.state.calls.lock().unwrap().clone()
    }

    /// The only call so far.
    pub(crate) fn call(&self) -> Call {
        let calls = self.calls();
        assert_eq!(calls.len(), 1, "{calls:?}");
        calls[0].clone()
    }

    async fn answer<Q: serde::Serialize, A: 'static>(
        &self,
        method: &'static str,
        id: &str,
        request: Request<Q>,
    ) -> Result<Response<A>, Status> {
        let (headers, _, message) = request.into_parts();
        let message = serde_json::to_value(message).unwrap();
        self.state.calls.lock().unwrap().push(Call { message, headers });
        let key = format!("{method} {id}");
        let answer = {
            let mut script = self.state.script.lock().unwrap();
            let Some(answers) = script.get_mut(key.trim_end()) else {
                return Err(Status::internal(format!("not in the script: {key}")));
            };
            let next = answers.front().unwrap().clone();
            if answers.len() > 1 {
                answers.pop_front();
            }
            next()
        };
        match answer {
            Answer::This(answer) => {
                let answer = answer.downcast::<Result<A, Status>>();
                (*answer.unwrap_or_else(|_| panic!("another type is in the script: {key}")))
                    .map(Response::new)
            }
            Answer::Nothing => std::future::pending().await,
        }
    }

    /// Runs the program against this server.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Run {
        run(arguments, &[("LONGRUN_SERVER", &self.address.to_string())]).await
    }
}

/// What a run of the program came to.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Run {
    /// Standard output as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Runs the program with these variables and none of the tester's own.
pub(crate) async fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_longrun"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("LONGRUN_")) {
        command.env_remove(name);
    }
    command.env_remove("RUST_LOG").envs(variables.iter().copied()).args(arguments).stdin(Stdio::null());
    let output = command.kill_on_drop(true).output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Run { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

#[tonic::async_trait]
impl Operations for Fake {
    async fn list_operations(
        &self,
        request: Request<ListOperationsRequest>,
    ) -> Result<Response<ListOperationsResponse>, Status> {
        self.answer("ListOperations", "", request).await
    }

    async fn get_operation(
        &self,
        request: Request<GetOperationRequest>,
    ) -> Result<Response<longrunning::Operation>, Status> {
        let id = request.get_ref().name.clone();
        self.answer("GetOperation", &id, request).await
    }

    async fn delete_operation(
        &self,
        request: Request<DeleteOperationRequest>,
    ) -> Result<Response<Empty>, Status> {
        let id = request.get_ref().name.clone();
        self.answer("DeleteOperation", &id, request).await
    }

    async fn cancel_operation(
        &self,
        request: Request<CancelOperationRequest>,
    ) -> Result<Response<Empty>, Status> {
        let id = request.get_ref().name.clone();
        self.answer("CancelOperation", &id, request).await
    }

    async fn wait_operation(
        &self,
        request: Request<WaitOperationRequest>,
    ) -> Result<Response<longrunning::Operation>, Status> {
        let id = request.get_ref().name.clone();
        self.answer("WaitOperation", &id, request).await
    }
}

#[tonic::async_trait]
impl OperationService for Fake {
    async fn get(
        &self,
        request: Request<cloud::GetOperationRequest>,
    ) -> Result<Response<cloud::Operation>, Status> {
        let id = request.get_ref().operation_id.clone();
        self.answer("OperationService.Get", &id, request).await
    }

    async fn cancel(
        &self,
        request: Request<cloud::CancelOperationRequest>,
    ) -> Result<Response<cloud::Operation>, Status> {
        let id = request.get_ref().operation_id.clone();
        self.answer("Cancel", &id, request).await
    }
}

#[tonic::async_trait]
impl SnapshotService for Fake {
    async fn get(&self, request: Request<GetSnapshotRequest>) -> Result<Response<Snapshot>, Status> {
        let id = request.get_ref().snapshot_id.clone();
        self.answer("Get", &id, request).await
    }

    async fn list(
        &self,
        request: Request<ListSnapshotsRequest>,
    ) -> Result<Response<ListSnapshotsResponse>, Status> {
        self.answer("List", "", request).await
    }

    async fn create(
        &self,
        request: Request<CreateSnapshotRequest>,
    ) -> Result<Response<cloud::Operation>, Status> {
        self.answer("Create", "", request).await
    }

    async fn update(
        &self,
        request: Request<UpdateSnapshotRequest>,
    ) -> Result<Response<cloud::Operation>, Status> {
        let id = request.get_ref().snapshot_id.clone();
        self.answer("Update", &id, request).await
    }

    async fn delete(
        &self,
        request: Request<DeleteSnapshotRequest>,
    ) -> Result<Response<cloud::Operation>, Status> {
        let id = request.get_ref().snapshot_id.clone();
        self.answer("Delete", &id, request).await
    }

    async fn list_operations(
        &self,
        request: Request<ListSnapshotOperationsRequest>,
    ) -> Result<Response<ListSnapshotOperationsResponse>, Status> {
        let id = request.get_ref().snapshot_id.clone();
        self.answer("SnapshotOperations", &id, request).await
    }
}
