//! Stores on the private server of the test program.

// Each test program uses some of it.
#![allow(dead_code, reason = "each test uses a part")]

use std::io::Write;
use std::sync::{LazyLock, Once};
use std::time::Duration;

use longrun_postgres::testing::PrivateServer;
use longrun_postgres::tokio_postgres::{self, Client, NoTls};
use longrun_postgres::{PostgresOptions, PostgresStore};
use longrun_store::Store;
use tokio::runtime::Runtime;

pub(crate) mod proxy;

/// What the stores of tests work in that have no runtime of their own.
pub(crate) static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

/// The server of this program. `None`, and loudly so, where there are no programs to make one: then nothing is tested.
pub(crate) fn server() -> Option<&'static PrivateServer> {
    PrivateServer::shared().map_err(|missing| skip(&missing)).ok()
}

/// One for a single test, which may break it.
pub(crate) fn own_server(settings: &[&str]) -> Option<PrivateServer> {
    PrivateServer::start_with(settings).map_err(|missing| skip(&missing)).ok()
}

/// Past what the test harness keeps to itself of tests that pass. Once for each program.
fn skip(missing: &str) {
    static TOLD: Once = Once::new();
    assert!(!missing.contains("initdb failed") && !missing.contains("does not answer"), "{missing}");
    TOLD.call_once(|| {
        let told = format!("\n*** NOTHING IS TESTED HERE, because there is no server: {missing}\n");
        _ = std::io::stderr().write_all(told.as_bytes());
    });
}

/// For a server that is not far away.
pub(crate) fn options(address: &str, schema: &str) -> PostgresOptions {
    PostgresOptions::new(address).schema(schema).connections_max(2).lease(Duration::from_secs(60))
}

/// A connection past every store.
pub(crate) async fn connect(address: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(address, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// A schema that only one test uses.
pub(crate) struct Place {
    pub(crate) address: String,
    pub(crate) schema: String,
}

/// A schema of the server of this program, that nobody has used.
pub(crate) fn place() -> Option<Place> {
    let server = server()?;
    Some(Place { address: server.address(), schema: server.fresh_schema() })
}

impl Place {
    pub(crate) fn options(&self) -> PostgresOptions {
        options(&self.address, &self.schema)
    }

    pub(crate) async fn open(&self) -> PostgresStore {
        PostgresStore::open(self.options()).await.unwrap()
    }

    pub(crate) async fn client(&self) -> Client {
        connect(&self.address).await
    }

    /// The text with the tables of this schema.
    pub(crate) fn sql(&self, text: &str) -> String {
        text.replace("longrun.", &format!("{}.", self.schema))
    }

    /// Does it past every store.
    pub(crate) async fn execute(&self, text: &str) {
        self.client().await.batch_execute(&self.sql(text)).await.unwrap();
    }

    /// One number.
    pub(crate) async fn count(&self, text: &str) -> i64 {
        self.client().await.query_one(&self.sql(text), &[]).await.unwrap().get(0)
    }

    /// Lets the lease of every node but one run out.
    pub(crate) async fn expire_others(&self, node: longrun_core::Fence) {
        let text =
            format!("UPDATE longrun.nodes SET expires_at = now() - interval '1 s' WHERE epoch <> {}", node.0);
        self.execute(&text).await;
    }

    /// Waits until so many backends wait for locks in this schema.
    pub(crate) async fn blocked(&self, backends: i64) {
        let client = self.client().await;
        let text = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE $1";
        let pattern = format!("%{}%", self.schema);
        until(async || client.query_one(text, &[&pattern]).await.unwrap().get::<_, i64>(0) >= backends).await;
    }
}

/// Waits for what must come before long.
pub(crate) async fn until(mut is_so: impl AsyncFnMut() -> bool) {
    let began = std::time::Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < Duration::from_secs(30), "it does not come");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The revision that an operation has, 0 when it is not there.
pub(crate) async fn revision(store: &PostgresStore, id: longrun_core::OperationId) -> u64 {
    store.load(id).await.unwrap().map_or(0, |execution| execution.revision().0)
}
