//! The counters of engine and faces, for Prometheus.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::routing::get;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

/// How often the recorder tidies up what it has gathered.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Counts from now on.
pub(super) struct Metrics {
    address: SocketAddr,
    recorder: PrometheusHandle,
}

impl Metrics {
    pub(super) fn install(address: SocketAddr) -> Result<Self> {
        let recorder = PrometheusBuilder::new().install_recorder().context("cannot count")?;
        Ok(Self { address, recorder })
    }

    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// `/metrics`. And tidies up, as long as the runtime is there.
    pub(super) fn router(self) -> Router {
        let recorder = self.recorder.clone();
        tokio::spawn(async move {
            let mut every = tokio::time::interval(UPKEEP_EVERY);
            loop {
                every.tick().await;
                recorder.run_upkeep();
            }
        });
        Router::new().route("/metrics", get(async move || self.recorder.render()))
    }
}
