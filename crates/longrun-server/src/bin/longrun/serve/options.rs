//! What `longrun serve` can be told.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;

use crate::stores::{Sharing, StorePlace};

/// Serves snapshots of disks over gRPC and REST.
///
/// Disks are raw images DISK_ID.raw in a folder, each with an optional DISK_ID.json beside it: its folder and product ids.
/// Everything else (the store, the chunks of snapshots) is kept under the data folder.
///
/// When it is ready it prints one line, `ready grpc=HOST:PORT http=HOST:PORT`; its log goes to standard error, as
/// much of it as RUST_LOG says. On SIGTERM it takes no more, lets what runs come to an end, and leaves the rest to the next
/// start; a second one ends it at once, which loses nothing either.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// Folder of the store and of the chunks; made if it is not there
    #[arg(long, env = "LONGRUN_DATA", value_name = "DIR")]
    pub(super) data: PathBuf,
    /// Folder of the disks
    #[arg(long, env = "LONGRUN_DISKS", value_name = "DIR")]
    pub(super) disks: PathBuf,
    /// Where operations and snapshots are recorded: sled, fjall or redb, under the data folder; memory; or
    /// postgres://USER:PASSWORD@HOST/DATABASE, which any number of services can share, with one data folder and one folder of
    /// disks for all of them
    #[arg(long, env = "LONGRUN_STORE", hide_env_values = true, value_name = "STORE", default_value = "sled")]
    pub(super) store: StorePlace,
    /// Schema of the tables in PostgreSQL
    #[arg(long, env = "LONGRUN_SCHEMA", value_name = "NAME", default_value = "longrun")]
    pub(super) schema: String,
    /// Seconds after which what a service that shares a PostgreSQL worked on is taken up by another, unless it is heard
    /// of; the same for all of them
    #[arg(long, env = "LONGRUN_LEASE", value_name = "SECONDS", default_value = "15")]
    pub(super) lease: NonZeroU32,
    /// Certificates to know PostgreSQL by, as PEM, instead of those of the system
    #[arg(long, env = "LONGRUN_STORE_CA", value_name = "FILE")]
    pub(super) store_ca: Option<PathBuf>,
    /// Use neither NOTIFY nor SKIP LOCKED, for what speaks the protocol of PostgreSQL and does not have them
    #[arg(long, env = "LONGRUN_STORE_PLAIN")]
    pub(super) store_plain: bool,
    /// Address for gRPC; port 0 picks a free one
    #[arg(long, env = "LONGRUN_GRPC", value_name = "ADDR", default_value = "127.0.0.1:50051")]
    pub(super) grpc: SocketAddr,
    /// Address for REST; port 0 picks a free one
    #[arg(long, env = "LONGRUN_HTTP", value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub(super) http: SocketAddr,
    /// Certificate chain, as PEM; both faces then speak TLS alone
    #[arg(long, env = "LONGRUN_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub(super) tls_cert: Option<PathBuf>,
    /// Key of the certificate, as PEM
    #[arg(long, env = "LONGRUN_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub(super) tls_key: Option<PathBuf>,
    /// Address at which clients that look for services find them; unless given, that at which
    /// they have reached gRPC
    #[arg(long, env = "LONGRUN_ADVERTISE", value_name = "HOST:PORT")]
    pub(super) advertise: Option<String>,
    /// Tokens, one a line: TOKEN CALLER FOLDERS. FOLDERS are separated by commas, `*` is every one, `=read` behind one allows
    /// to look only. Without it everybody is let in, as `anonymous`
    #[arg(long, env = "LONGRUN_AUTH_TOKEN_FILE", value_name = "FILE")]
    pub(super) auth_token_file: Option<PathBuf>,
    /// Bytes a second that each copy of a disk reads at most
    #[arg(long, env = "LONGRUN_COPY_RATE", value_name = "BYTES")]
    pub(super) copy_rate: Option<NonZeroU64>,
    /// Operations that run at the same time; others wait on disk
    #[arg(long, env = "LONGRUN_MAX_RUNNING", value_name = "N")]
    pub(super) max_running: Option<NonZeroUsize>,
    /// Changes a second that each folder may have accepted, in bursts of ten seconds' worth
    #[arg(long, env = "LONGRUN_FOLDER_RATE", value_name = "N", default_value = "1000")]
    pub(super) folder_rate: NonZeroU32,
    /// Seconds for which a delete can still be cancelled
    #[arg(long, env = "LONGRUN_DELETE_GRACE", value_name = "SECONDS", default_value_t = 0)]
    pub(super) delete_grace: u32,
    /// Seconds between two readings of everything that is stored. Damage that is found shows as status ERROR, with its place in
    /// the description of the operation that put it on record. 0 for never
    #[arg(long, env = "LONGRUN_SCRUB_EVERY", value_name = "SECONDS", default_value_t = 7 * 24 * 60 * 60)]
    pub(super) scrub_every: u32,
    /// Seconds that what runs has to come to an end when the program is told to stop
    #[arg(long, env = "LONGRUN_GRACE", value_name = "SECONDS", default_value_t = 30)]
    pub(super) grace: u32,
    /// Address for metrics in the format of Prometheus, under /metrics, in clear and for everybody; none unless given
    #[arg(long, env = "LONGRUN_METRICS", value_name = "ADDR")]
    pub(super) metrics: Option<SocketAddr>,
    /// Speak in clear, or let everybody in, also on addresses that can be reached from outside
    #[arg(long, env = "LONGRUN_INSECURE")]
    pub(super) insecure: bool,
}

const EXAMPLES: &str = "\
Examples:
  longrun serve --data /var/lib/longrun --disks /srv/disks
  longrun serve --data /shared/data --disks /shared/disks --store postgres://longrun@db.example.org/longrun
  longrun serve --data data --disks disks --grpc 0.0.0.0:443 --http 0.0.0.0:8443 \\
      --tls-cert chain.pem --tls-key key.pem --auth-token-file tokens --advertise api.example.org:443";

impl Options {
    /// Whether nobody but this machine can reach the faces.
    pub(super) fn on_loopback(&self) -> bool {
        [self.grpc, self.http].iter().all(|address| address.ip().is_loopback())
    }

    /// What clap cannot see by itself.
    pub(super) fn check(&self) -> Result<()> {
        let off_loopback = [self.grpc, self.http].into_iter().find(|address| !address.ip().is_loopback());
        if let Some(address) = off_loopback
            && !self.insecure
        {
            ensure!(
                self.tls_cert.is_some(),
                "{address} can be reached from outside: give --tls-cert and --tls-key, or --insecure"
            );
            ensure!(
                self.auth_token_file.is_some(),
                "{address} can be reached from outside: give --auth-token-file, or --insecure"
            );
        }
        ensure!(self.disks.is_dir(), "there is no folder {}", self.disks.display());
        Ok(())
    }

    pub(super) fn sharing(&self) -> Sharing<'_> {
        let lease = Duration::from_secs(self.lease.get().into());
        Sharing { schema: &self.schema, lease, roots: self.store_ca.as_deref(), plain: self.store_plain }
    }

    pub(super) fn grace(&self) -> Duration {
        Duration::from_secs(self.grace.into())
    }

    pub(super) fn scrub_every(&self) -> Option<Duration> {
        (self.scrub_every > 0).then(|| Duration::from_secs(self.scrub_every.into()))
    }

    pub(super) fn delete_grace(&self) -> Duration {
        Duration::from_secs(self.delete_grace.into())
    }
}
