//! [`PostgresOptions`]: which database, and within which limits.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{AsyncMessage, Client, Config, Connection, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::{Fault, OpenError, in_time};
use crate::schema;
use crate::wire::Wire;

/// The longest that a session waits for what others are at, if it does not pass over it.
const LOCK_WAIT: Duration = Duration::from_millis(500);

type Dialled = (Client, Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>);

/// Which database, and within which limits.
#[derive(Clone)]
#[must_use]
pub struct PostgresOptions {
    pub(crate) url: String,
    pub(crate) schema: String,
    pub(crate) connections_max: usize,
    pub(crate) statement_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) lease: Duration,
    pub(crate) hints: bool,
    pub(crate) skip_locked: bool,
    /// Of the tables, that this program knows.
    pub(crate) version: usize,
    pub(crate) roots: Option<Vec<u8>>,
}

impl fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The address may hold a password.
        f.debug_struct("PostgresOptions")
            .field("schema", &self.schema)
            .field("connections_max", &self.connections_max)
            .field("statement_timeout", &self.statement_timeout)
            .field("connect_timeout", &self.connect_timeout)
            .field("lease", &self.lease)
            .field("hints", &self.hints)
            .field("skip_locked", &self.skip_locked)
            .finish_non_exhaustive()
    }
}

impl PostgresOptions {
    /// A database by its address: `postgres://user:password@host:5432/database?sslmode=require`, or in the form
    /// `host=/run/postgresql user=longrun`. Several hosts may be named; the one that takes writes is used.
    pub fn new(address: impl Into<String>) -> Self {
        Self {
            url: address.into(),
            schema: "longrun".to_owned(),
            connections_max: 8,
            statement_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            lease: Duration::from_secs(15),
            hints: true,
            skip_locked: true,
            version: schema::NEWEST,
            roots: None,
        }
    }

    /// The schema that holds the tables; `longrun` unless said. Stores in different schemas know nothing of each other.
    pub fn schema(mut self, schema: impl Into<String>) -> Self {
        self.schema = schema.into();
        self
    }

    /// Connections for readings, 8 unless said, at least 2; beside them there is one for commits and one for hints.
    pub const fn connections_max(mut self, connections: usize) -> Self {
        self.connections_max = connections;
        self
    }

    /// The longest that the server may work on one statement, 10 seconds unless said.
    pub const fn statement_timeout(mut self, timeout: Duration) -> Self {
        self.statement_timeout = timeout;
        self
    }

    /// The longest that a connection may take to be made, 5 seconds unless said.
    pub const fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long a node keeps its operations without a sign of life, 15 seconds unless said. What a dead node held is taken
    /// up by another within twice this time. It has to be the same for all nodes of a database.
    pub const fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Whether nodes tell each other by NOTIFY that something has changed; yes unless said. Without it, as with servers and poolers
    /// that do not have it, they find out by asking, a little later.
    pub const fn hints(mut self, hints: bool) -> Self {
        self.hints = hints;
        self
    }

    /// Whether a node passes over what another is at, by SKIP LOCKED; yes unless said. Without it, as with servers that do not have
    /// it, a node that looks for work waits for a tenth of a lease, half a second at most, and then tries again: somebody who holds a row
    /// of these tables for long keeps others from taking up what is due.
    pub const fn skip_locked(mut self, skip_locked: bool) -> Self {
        self.skip_locked = skip_locked;
        self
    }

    /// As a program that knows the tables up to this version alone.
    #[cfg(feature = "testing")]
    pub const fn knows_tables_until(mut self, version: usize) -> Self {
        self.version = version;
        self
    }

    /// Certificates to know the server by, as PEM, instead of those of the operating system.
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.roots = Some(pem.into());
        self
    }

    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let letter = |c: char| c.is_ascii_lowercase() || c == '_';
        let is_name = (1..=48).contains(&self.schema.len())
            && self.schema.starts_with(letter)
            && self.schema.chars().all(|c| letter(c) || c.is_ascii_digit())
            && !self.schema.starts_with("pg_");
        if !is_name {
            return Err(OpenError::Schema(self.schema.chars().take(64).collect()));
        }
        let limit = |field, fits, rule| if fits { Ok(()) } else { Err(OpenError::Limit { field, rule }) };
        limit("connections_max", (2..=1000).contains(&self.connections_max), "must be 2 to 1000")?;
        let (least, most) = (Duration::from_millis(100), Duration::from_secs(3600));
        let times = [
            ("statement_timeout", self.statement_timeout),
            ("connect_timeout", self.connect_timeout),
            ("lease", self.lease),
        ];
        let in_range = |time: Duration| time >= least && time <= most;
        times.into_iter().try_for_each(|(field, time)| {
            limit(field, in_range(time), "must be from 100 milliseconds to an hour")
        })
    }
}

/// Makes connections.
#[derive(Clone)]
pub(crate) struct Connector {
    config: Config,
    tls: MakeRustlsConnect,
    session: String,
    wait: Duration,
}

impl Connector {
    pub(crate) fn new(options: &PostgresOptions) -> Result<Self, OpenError> {
        let mut config: Config = options
            .url
            .parse()
            .map_err(|error: tokio_postgres::Error| OpenError::Address(error.to_string()))?;
        config.connect_timeout(options.connect_timeout);
        config.target_session_attrs(tokio_postgres::config::TargetSessionAttrs::ReadWrite);
        // A connection whose other end has gone without a word is found out in the time of a few statements.
        config.tcp_user_timeout(options.statement_timeout * 2);
        // Networks count it in whole seconds.
        config.keepalives_idle(options.statement_timeout.max(Duration::from_secs(1)));
        if config.get_application_name().is_none() {
            config.application_name("longrun");
        }
        let timeout = options.statement_timeout.as_millis();
        // Every statement has an index. A plan that was made while a table was small may be used when it no longer is; and to compile
        // one takes longer than to do it.
        let session = format!(
            "SET statement_timeout = {timeout}; SET idle_in_transaction_session_timeout = {idle}; \
             SET timezone = 'UTC'; SET jit = off; SET enable_seqscan = off",
            idle = timeout * 2
        );
        // What waits for others instead of passing them over must not wait for so long that it costs a node its lease.
        let wait = (options.lease / 10).min(LOCK_WAIT).as_millis();
        let session =
            if options.skip_locked { session } else { format!("{session}; SET lock_timeout = {wait}") };
        let tls = MakeRustlsConnect::new(tls(options.roots.as_deref())?);
        Ok(Self { config, tls, session, wait: options.connect_timeout })
    }

    /// A connection of its own, with what the session is to be like beside what all are, and what the server says unasked.
    pub(crate) async fn connect(
        &self,
        session: &str,
        mut heard: impl FnMut(AsyncMessage) + Send + 'static,
    ) -> Result<Client, Fault> {
        let (client, mut connection) = self.dial().await?;
        tokio::spawn(async move {
            // Ends with the client, or with the connection: the next statement says why.
            while let Some(Ok(message)) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
                heard(message);
            }
        });
        self.greet(&client, session).await?;
        Ok(client)
    }

    /// The same, with the connection on a wire instead of in a task of its own.
    pub(crate) async fn connect_by(&self, wire: &Wire, session: &str) -> Result<Client, Fault> {
        let (client, connection) = self.dial().await?;
        wire.lay(async move { _ = connection.await });
        self.greet(&client, session).await?;
        Ok(client)
    }

    async fn dial(&self) -> Result<Dialled, Fault> {
        // The driver's own limit is that of the network alone, for each of the hosts: a server may accept and say nothing.
        let hosts = self.config.get_hosts().len().max(self.config.get_hostaddrs().len()).max(1);
        let wait = self.wait.saturating_mul(u32::try_from(hosts).unwrap_or(u32::MAX));
        in_time(wait, self.config.connect(self.tls.clone())).await
    }

    /// Says what the session is to be like.
    async fn greet(&self, client: &Client, session: &str) -> Result<(), Fault> {
        in_time(self.wait, client.batch_execute(&format!("{}; {session}", self.session))).await
    }

    /// The connections for readings, and for transactions of more than one statement.
    pub(crate) fn pool(&self, connections: usize) -> Result<Pool, OpenError> {
        let recycling_method = RecyclingMethod::Fast;
        let manager =
            Manager::from_config(self.config.clone(), self.tls.clone(), ManagerConfig { recycling_method });
        let session = self.session.clone();
        let prepare = Hook::async_fn(move |client: &mut deadpool_postgres::ClientWrapper, _| {
            let session = session.clone();
            Box::pin(async move { client.batch_execute(&session).await.map_err(HookError::Backend) })
        });
        let pool = Pool::builder(manager)
            .max_size(connections)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(self.wait * 2))
            .create_timeout(Some(self.wait))
            .recycle_timeout(Some(self.wait))
            .post_create(prepare)
            .build();
        pool.map_err(|error| OpenError::System(error.to_string()))
    }
}

fn tls(roots: Option<&[u8]>) -> Result<ClientConfig, OpenError> {
    let mut known = RootCertStore::empty();
    match roots {
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|error| OpenError::Certificates(error.to_string()))?;
                known.add(certificate).map_err(|error| OpenError::Certificates(error.to_string()))?;
            }
            if known.is_empty() {
                return Err(OpenError::Certificates("there are none in what was given".to_owned()));
            }
        }
        // A system without any can still reach a server that does not ask for TLS.
        None => _ = known.add_parsable_certificates(rustls_native_certs::load_native_certs().certs),
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| OpenError::Certificates(error.to_string()))?;
    Ok(config.with_root_certificates(known).with_no_client_auth())
}
