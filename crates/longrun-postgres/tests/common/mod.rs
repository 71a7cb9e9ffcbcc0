//! A store on the private server of the test program.

use std::sync::LazyLock;
use std::time::Duration;

use longrun_postgres::testing::PrivateServer;
use longrun_postgres::{PostgresOptions, PostgresStore};
use longrun_store::conformance::Reopenable;
use tokio::runtime::Runtime;

/// What the stores of all tests work in.
pub(crate) static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

/// A server, or a loud word and no test.
#[macro_export]
macro_rules! server_or_skip {
    () => {
        match longrun_postgres::testing::PrivateServer::shared() {
            Ok(server) => server,
            Err(missing) => {
                eprintln!("SKIPPED: {missing}");
                return;
            }
        }
    };
}

/// A store in a schema that nobody has used, as it is opened again and again.
pub(crate) fn fresh() -> Reopenable<PostgresStore> {
    let server = PrivateServer::shared().expect("PostgreSQL is here");
    let options = options(server, &server.fresh_schema());
    Reopenable::new(move || RUNTIME.block_on(PostgresStore::open(options.clone())).unwrap())
}

/// For a server that is not far away.
pub(crate) fn options(server: &PrivateServer, schema: &str) -> PostgresOptions {
    PostgresOptions::new(server.address()).schema(schema).connections_max(2).lease(Duration::from_secs(60))
}
