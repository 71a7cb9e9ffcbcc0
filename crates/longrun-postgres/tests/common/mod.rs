//! A store on the private server of the test program.

use std::sync::LazyLock;
use std::time::Duration;

use async_trait::async_trait;
use longrun_core::Fence;
use longrun_postgres::testing::PrivateServer;
use longrun_postgres::tokio_postgres::{self, Client, NoTls};
use longrun_postgres::{PostgresOptions, PostgresStore};
use longrun_store::Store;
use longrun_store::conformance::StoreFixture;
use longrun_store::conformance::cluster::ClusterFixture;
use tokio::runtime::Runtime;

/// What the stores of all tests work in.
pub(crate) static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

/// The server of this program.
pub(crate) fn server() -> &'static PrivateServer {
    PrivateServer::shared().unwrap_or_else(|missing| panic!("{missing}"))
}

/// For a server that is not far away.
pub(crate) fn options(schema: &str) -> PostgresOptions {
    PostgresOptions::new(server().address()).schema(schema).connections_max(2).lease(Duration::from_secs(60))
}

/// A connection past the store.
pub(crate) async fn client() -> Client {
    let (client, connection) = tokio_postgres::connect(&server().address(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// A store in a schema that nobody else uses.
pub(crate) struct InSchema {
    schema: String,
    /// Taken only while it is reopened.
    store: Option<PostgresStore>,
}

/// A store in a schema that nobody has used.
pub(crate) fn fresh() -> InSchema {
    let schema = server().fresh_schema();
    let store = RUNTIME.block_on(PostgresStore::open(options(&schema))).unwrap();
    InSchema { schema, store: Some(store) }
}

#[async_trait]
impl StoreFixture for InSchema {
    fn store(&self) -> &dyn Store {
        self.store.as_ref().unwrap()
    }

    async fn reopen(&mut self) {
        drop(self.store.take());
        let options = options(&self.schema);
        let opened = RUNTIME.spawn(async move { PostgresStore::open(options).await });
        self.store = Some(opened.await.unwrap().unwrap());
    }
}

#[async_trait]
impl ClusterFixture for InSchema {
    async fn expire(&self, node: Fence) {
        self.store.as_ref().unwrap().assume_long_contact();
        let text = format!(
            "UPDATE {}.nodes SET expires_at = clock_timestamp() - interval '1 s' WHERE epoch = $1",
            self.schema
        );
        let epoch = i64::try_from(node.0).unwrap();
        let expired = RUNTIME.spawn(async move { client().await.execute(&text, &[&epoch]).await.unwrap() });
        assert_eq!(expired.await.unwrap(), 1);
    }
}
