//! Both faces in a server of one's own: a bakery, whose orders come in on a path of its own and are looked at through REST and
//! gRPC. Run it, then `curl -H content-type:application/json -d '{"sort": "sacher", "layers": 2}' http://ADDRESS/cakes`.
#![allow(clippy::print_stdout)]

#[path = "mount/bakery.rs"]
mod bakery;

use std::error::Error;
use std::net::SocketAddr;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use bakery::Cake;
use longrun::{Caller, Engine};
use longrun_api::{Types, dialect::cloud, http_status, yandex::cloud::operation::Operation};
use longrun_server::{Faces, auth::Anonymous, grpc, rest};
use tokio::net::TcpListener;

async fn order(State(engine): State<Engine>, Json(cake): Json<Cake>) -> Result<Json<Operation>, StatusCode> {
    let guest = Caller::new("guest").map_err(|_| StatusCode::BAD_REQUEST)?;
    match bakery::order(&engine, guest, &cake).await {
        Ok(operation) => Ok(Json(cloud::operation(&operation, &Types::default()))),
        Err(error) => Err(StatusCode::from_u16(http_status(error.code())).unwrap_or_default()),
    }
}

/// Serves in the background, and tells where: gRPC, REST.
pub async fn serve() -> Result<(SocketAddr, SocketAddr), Box<dyn Error>> {
    let engine = bakery::open().await?;
    // Who may call and see what is for an Authenticator and an OperationSource; here, everybody everything.
    let everybody = Anonymous::as_caller(Caller::new("guest")?);
    let faces = Faces::of_operations(engine.clone(), Types::default(), everybody);

    let own = Router::new().route("/cakes", post(order)).with_state(engine);
    let http = own.merge(rest::router(&faces));
    // Services of one's own go beside ours; grpc::routes has all of ours, with health and reflection.
    let services = tonic::service::Routes::new(grpc::operations(&faces));
    let grpc = services.add_service(grpc::longrunning(&faces)).into_axum_router();
    Ok((listen(grpc).await?, listen(http).await?))
}

async fn listen(router: Router) -> Result<SocketAddr, Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async { axum::serve(listener, router).await });
    Ok(address)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (grpc, http) = serve().await?;
    println!("gRPC on {grpc}, REST on http://{http}");
    Ok(tokio::signal::ctrl_c().await?)
}
