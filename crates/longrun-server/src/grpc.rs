//! gRPC: the services, and all of them together.
//!
//! Each can be mounted alone in a server by tonic; [`routes`] has all of them, with health and reflection.

mod adapt;
mod answer;
mod body;
mod services;
#[cfg(feature = "snapshot")]
mod snapshots;

use std::convert::Infallible;

use axum::Router;
use longrun_api::google::longrunning::operations_server::OperationsServer;
#[cfg(feature = "snapshot")]
use longrun_api::yandex::cloud::compute::v1::snapshot_service_server::SnapshotServiceServer;
use longrun_api::yandex::cloud::endpoint::api_endpoint_service_server::ApiEndpointServiceServer;
use longrun_api::yandex::cloud::operation::operation_service_server::OperationServiceServer;
use tonic::codec::CompressionEncoding;
use tonic::server::NamedService;
use tonic_health::server::HealthReporter;

pub use adapt::Adapted;
pub use services::FacesService;

use crate::faces::Faces;
use crate::limits::{ASK_BYTES_MAX, MESSAGE_BYTES_MAX};

/// `yandex.cloud.operation.OperationService`.
pub fn operations(faces: &Faces) -> Adapted<OperationServiceServer<FacesService>> {
    let server = OperationServiceServer::new(FacesService(faces.clone()));
    let server = server.accept_compressed(CompressionEncoding::Gzip);
    Adapted::new(server.max_decoding_message_size(MESSAGE_BYTES_MAX), faces)
}

/// `yandex.cloud.compute.v1.SnapshotService`.
#[cfg(feature = "snapshot")]
pub fn snapshots(faces: &Faces) -> Adapted<SnapshotServiceServer<FacesService>> {
    let server = SnapshotServiceServer::new(FacesService(faces.clone()));
    let server = server.accept_compressed(CompressionEncoding::Gzip);
    Adapted::new(server.max_decoding_message_size(MESSAGE_BYTES_MAX), faces)
}

/// `google.longrunning.Operations`.
pub fn longrunning(faces: &Faces) -> Adapted<OperationsServer<FacesService>> {
    let server = OperationsServer::new(FacesService(faces.clone()));
    let server = server.accept_compressed(CompressionEncoding::Gzip);
    Adapted::new(server.max_decoding_message_size(MESSAGE_BYTES_MAX), faces)
}

/// `yandex.cloud.endpoint.ApiEndpointService`.
pub fn endpoints(faces: &Faces) -> Adapted<ApiEndpointServiceServer<FacesService>> {
    let server = ApiEndpointServiceServer::new(FacesService(faces.clone()));
    let server = server.accept_compressed(CompressionEncoding::Gzip);
    Adapted::open(server.max_decoding_message_size(ASK_BYTES_MAX), faces)
}

/// All services, with health and reflection. The reporter tells the health service how things are.
pub async fn routes(faces: &Faces) -> Result<(Router, HealthReporter), tonic_reflection::server::Error> {
    let (health, health_service) = tonic_health::server::health_reporter();
    let mut routes = tonic::service::Routes::default()
        .add_service(Adapted::open(health_service.max_decoding_message_size(ASK_BYTES_MAX), faces))
        .add_service(Adapted::open(reflection().build_v1()?.max_decoding_message_size(ASK_BYTES_MAX), faces))
        .add_service(Adapted::open(
            reflection().build_v1alpha()?.max_decoding_message_size(ASK_BYTES_MAX),
            faces,
        ));
    routes = mounted(&health, routes, operations(faces)).await;
    routes = mounted(&health, routes, longrunning(faces)).await;
    routes = mounted(&health, routes, endpoints(faces)).await;
    #[cfg(feature = "snapshot")]
    if faces.has_snapshots() {
        routes = mounted(&health, routes, snapshots(faces)).await;
    }
    Ok((routes.into_axum_router(), health))
}

async fn mounted<S>(
    health: &HealthReporter,
    routes: tonic::service::Routes,
    service: S,
) -> tonic::service::Routes
where
    S: tower::Service<
            http::Request<tonic::body::Body>,
            Response = http::Response<tonic::body::Body>,
            Error = Infallible,
        > + NamedService
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
{
    health.set_serving::<S>().await;
    routes.add_service(service)
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(longrun_api::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}
