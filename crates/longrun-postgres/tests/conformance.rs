//! The store keeps every rule of the contract, and those of stores that engines share.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use async_trait::async_trait;
use common::{Place, RUNTIME, place};
use longrun_core::Fence;
use longrun_postgres::{PostgresOptions, PostgresStore};
use longrun_store::Store;
use longrun_store::conformance::StoreFixture;
use longrun_store::conformance::cluster::ClusterFixture;

mod common;

/// A store in a schema that nobody else uses.
struct InSchema {
    place: Place,
    options: PostgresOptions,
    /// Taken only while it is reopened.
    store: Option<PostgresStore>,
}

/// A store in a schema that nobody has used. `None` where there is no server: then the rule is not tested.
fn fresh() -> Option<InSchema> {
    opened(|options| options)
}

/// The same on a server of which only what is in every SQL is used.
fn plain() -> Option<InSchema> {
    opened(|options| options.hints(false).skip_locked(false))
}

fn opened(with: impl FnOnce(PostgresOptions) -> PostgresOptions) -> Option<InSchema> {
    let place = place()?;
    let options = with(place.options());
    let store = RUNTIME.block_on(PostgresStore::open(options.clone())).unwrap();
    Some(InSchema { place, options, store: Some(store) })
}

#[async_trait]
impl StoreFixture for InSchema {
    fn store(&self) -> &dyn Store {
        self.store.as_ref().unwrap()
    }

    async fn reopen(&mut self) {
        drop(self.store.take());
        let options = self.options.clone();
        let opened = RUNTIME.spawn(async move { PostgresStore::open(options).await });
        self.store = Some(opened.await.unwrap().unwrap());
    }
}

#[async_trait]
impl ClusterFixture for InSchema {
    async fn expire(&self, node: Fence) {
        self.store.as_ref().unwrap().assume_long_contact();
        let text = self.place.sql(&format!(
            "UPDATE longrun.nodes SET expires_at = clock_timestamp() - interval '1 s' WHERE epoch = {}",
            node.0
        ));
        let address = self.place.address.clone();
        let expired =
            RUNTIME.spawn(async move { common::connect(&address).await.execute(&text, &[]).await.unwrap() });
        assert_eq!(expired.await.unwrap(), 1);
    }
}

/// With one owner at a time.
mod store {
    longrun_store::store_conformance!(match super::fresh() {
        Some(fixture) => move || fixture,
        None => return,
    });
}

/// With several.
mod cluster {
    longrun_store::cluster_conformance!(match super::fresh() {
        Some(fixture) => move || fixture,
        None => return,
    });
}

/// With several, none of which passes over what another is at, or tells another what he did.
mod plain_cluster {
    longrun_store::cluster_conformance!(match super::plain() {
        Some(fixture) => move || fixture,
        None => return,
    });
}
