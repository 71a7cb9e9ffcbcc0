//! [`PostgresStore`]: a [`Store`] on tables.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use deadpool_postgres::{Object, Pool};
use longrun_core::{
    Execution, Fence, Incarnation, ItemKey, Operation, OperationId, Orphan, ResourceKey, Row, Timestamp,
};
use longrun_store::records::Records;
use longrun_store::{
    Capabilities, Cluster, Commit, CommitError, Dropped, Due, Durability, Holder, LedgerEntry,
    OperationQuery, Position, Purge, Purged, ResourceQuery, Slice, Store, StoreError, Taken,
};
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_postgres::{AsyncMessage, Statement, Transaction};

use crate::batch;
use crate::cluster::Contact;
use crate::committer::{Committer, Job, Message};
use crate::conflicts;
use crate::error::{Failed, Fault, OpenError, in_time, unavailable, with_full};
use crate::items::{self, DropWhat};
use crate::options::{Connector, PostgresOptions};
use crate::schema::{self, in_schema};
use crate::{purge, read};

/// Commits that may wait for the committer. Beyond it, callers wait.
const QUEUE: usize = 4096;
/// Connections for leases and claims: a renewal does not wait for a claim.
const NODE_CONNECTIONS: usize = 2;
/// The least time between two hints to other nodes.
const HINT_EVERY: Duration = Duration::from_millis(20);
/// Passes over rows that somebody is at; without it one waits for him.
const SKIP_LOCKED: &str = " SKIP LOCKED";
/// Wait before the connection for hints is made anew.
const LISTEN_WAIT: Duration = Duration::from_secs(1);

/// A store on PostgreSQL, which any number of engines can share: see the [crate](crate).
///
/// All its work is done in the tokio runtime in which it was opened, whoever asks.
pub struct PostgresStore {
    pub(crate) shared: Arc<Shared>,
    jobs: mpsc::Sender<Message>,
    tasks: Vec<JoinHandle<()>>,
}

/// What all parts of a store have in common.
pub(crate) struct Shared {
    pub(crate) options: PostgresOptions,
    pub(crate) connector: Connector,
    pool: Pool,
    /// For leases and claims alone: nobody's long list may cost a node its lease.
    node_pool: Pool,
    runtime: Handle,
    secret: [u8; 32],
    /// A batch has an unknown outcome: nobody is to see the one before it is known that it is not the other.
    pub(crate) unsettled: AtomicBool,
    pub(crate) contact: Contact,
    /// Something that other nodes may wait for has been written.
    pub(crate) news: Notify,
    /// Another node has said that it wrote something.
    pub(crate) changed: Notify,
    /// There are other nodes.
    pub(crate) in_company: AtomicBool,
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The address may hold a password.
        f.debug_struct("PostgresStore").field("schema", &self.shared.options.schema).finish_non_exhaustive()
    }
}

impl PostgresStore {
    /// Connects, and makes the tables or brings them to the version of this program. Any number of nodes may do so at once.
    ///
    /// To be called in a tokio runtime with timers and network, which has to last as long as the store.
    pub async fn open(options: PostgresOptions) -> Result<Self, OpenError> {
        options.check()?;
        let runtime = Handle::try_current().map_err(|_| OpenError::NoRuntime)?;
        let connector = Connector::new(&options)?;
        let mut client = connector.connect("", |_| {}).await.map_err(schema::unreachable)?;
        let secret = schema::prepare(&mut client, &options.schema, options.version).await?;
        let pool = connector.pool(options.connections_max)?;
        let node_pool = connector.pool(NODE_CONNECTIONS)?;
        let shared = Arc::new(Shared {
            options,
            connector,
            pool,
            node_pool,
            runtime: runtime.clone(),
            secret,
            unsettled: AtomicBool::new(false),
            contact: Contact::default(),
            news: Notify::new(),
            changed: Notify::new(),
            in_company: AtomicBool::new(true),
        });
        let committer = Committer::open(Arc::clone(&shared)).await?;
        let (jobs, messages) = mpsc::channel(QUEUE);
        // Ends when the store is dropped and what was queued is done.
        runtime.spawn(committer.run(messages));
        let mut tasks = Vec::new();
        if shared.options.hints {
            tasks.push(runtime.spawn(tell(Arc::clone(&shared))));
            tasks.push(runtime.spawn(listen(Arc::clone(&shared))));
        }
        Ok(Self { shared, jobs, tasks })
    }

    /// Accepts an operation in a transaction of the caller's own: it is there, with its rows and its idempotency key, if that
    /// transaction commits, and starts then on some node; if it does not, there never was one.
    ///
    /// `commit` is what the engine has planned: the first commit of an operation, made
    /// [by a visitor](Commit::by_visitor). A refusal leaves the transaction as it was, fit to go on. A node that is asked
    /// the same with the same key meanwhile waits for the end of the transaction, and is told after some time that it cannot. A plan
    /// with conditions on the children of a parent needs READ COMMITTED, and keeps all nodes from making, changing and removing
    /// resources until the transaction ends: end it soon.
    pub async fn submit_in(
        &self,
        transaction: &mut Transaction<'_>,
        commit: Commit,
    ) -> Result<(), CommitError> {
        let first = &Records::of(commit.by_visitor())?;
        let records = [first];
        if first.expect.is_some() {
            return Err(CommitError::Unavailable("only the first commit of an operation goes here".into()));
        }
        let failed = |error: tokio_postgres::Error| CommitError::Unavailable(with_full(error));
        let alone = conflicts::need_to_be_alone(first);
        let savepoint = transaction.savepoint("longrun").await.map_err(failed)?;
        if alone {
            // An older snapshot does not show what others have committed, and would be taken for all that there is.
            let level =
                "SELECT current_setting('transaction_isolation') IN ('read committed', 'read uncommitted')";
            if !savepoint.query_one(level, &[]).await.map_err(failed)?.get::<_, bool>(0) {
                savepoint.rollback().await.map_err(failed)?;
                let rule = "conditions on children need a transaction in READ COMMITTED";
                return Err(CommitError::Unavailable(rule.into()));
            }
        }
        let refused = if alone {
            savepoint.batch_execute(&self.shared.sql(conflicts::KEEP_ROWS)).await.map_err(failed)?;
            conflicts::find(&savepoint, &self.shared, &records).await.map_err(failed)?.pop().flatten()
        } else {
            None
        };
        if let Some(refused) = refused {
            savepoint.rollback().await.map_err(failed)?;
            return Err(refused);
        }
        let batch = batch::Batch::of(&records, None);
        let text = self.shared.sql(&batch::statement(batch.parts()));
        match savepoint.query(&text, &batch.params()).await {
            Ok(_) => {
                savepoint.commit().await.map_err(failed)?;
                if self.shared.options.hints {
                    let hint = self.shared.hint();
                    transaction.execute("SELECT pg_notify($1, '')", &[&hint]).await.map_err(failed)?;
                }
                Ok(())
            }
            Err(error) if matches!(Failed::told(&error), Failed::Unexpected | Failed::Blocked) => {
                savepoint.rollback().await.map_err(failed)?;
                let found = conflicts::find(&*transaction, &self.shared, &records).await.map_err(failed)?;
                Err(found.into_iter().flatten().next().unwrap_or_else(|| failed(error)))
            }
            Err(error) => {
                savepoint.rollback().await.map_err(failed)?;
                Err(failed(error))
            }
        }
    }

    /// Takes the database for one that was there all the time, so that leases that have run out count at once.
    #[cfg(feature = "testing")]
    pub fn assume_long_contact(&self) {
        self.shared.contact.has_lasted(self.shared.options.lease * 2);
    }

    /// Does it in the runtime of the store. A caller that goes away leaves it happen.
    async fn on<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let ended = self.shared.runtime.spawn(work).await;
        ended.unwrap_or_else(|error| Err(unavailable(error)))
    }

    /// The same for what changes something.
    async fn change<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, CommitError>> + Send + 'static,
    ) -> Result<T, CommitError> {
        let ended = self.shared.runtime.spawn(work).await;
        ended.unwrap_or_else(|error| Err(CommitError::Unknown(error.into())))
    }

    /// A reading that sees all that was acknowledged, and nothing that is not yet certain.
    async fn read<T, F>(&self, read: impl FnOnce(Arc<Shared>) -> F + Send + 'static) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        self.settle().await?;
        let shared = Arc::clone(&self.shared);
        self.on(async move { read(shared).await }).await
    }

    /// Has it found out what became of a commit of unknown outcome, if there is one.
    pub(crate) async fn settle(&self) -> Result<(), StoreError> {
        if !self.shared.unsettled.load(Ordering::SeqCst) {
            return Ok(());
        }
        let (reply, answer) = oneshot::channel();
        self.jobs.send(Message::Settle(reply)).await.map_err(unavailable)?;
        match answer.await {
            Ok(true) => Ok(()),
            _ => Err(unavailable("what became of a commit is not known yet")),
        }
    }
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Shared {
    /// A statement as this database understands it.
    pub(crate) fn sql(&self, text: &str) -> String {
        let text = in_schema(text, &self.options.schema);
        if self.options.skip_locked { text } else { text.replace(SKIP_LOCKED, "") }
    }

    /// The channel on which nodes tell each other.
    pub(crate) fn hint(&self) -> String {
        format!("{}_changed", self.options.schema)
    }

    pub(crate) async fn client(&self) -> Result<Object, StoreError> {
        self.from(&self.pool).await
    }

    /// A connection for what keeps this node alive.
    pub(crate) async fn node_client(&self) -> Result<Object, StoreError> {
        self.from(&self.node_pool).await
    }

    async fn from(&self, pool: &Pool) -> Result<Object, StoreError> {
        // Each of the pool's waits has a limit, but that of the first words to a new connection.
        let got = tokio::time::timeout(self.options.connect_timeout * 4, pool.get()).await;
        got.map_err(unavailable)?.map_err(unavailable)
    }

    /// How long an answer may take that the server is to give within the time of a statement.
    pub(crate) fn patience(&self) -> Duration {
        self.options.statement_timeout * 2
    }

    pub(crate) async fn prepared(
        &self,
        client: &Object,
        text: &str,
    ) -> Result<Statement, tokio_postgres::Error> {
        client.prepare_cached(&self.sql(text)).await
    }

    /// Rows of one statement.
    pub(crate) async fn query(
        &self,
        text: &str,
        params: &[batch::Param<'_>],
    ) -> Result<Vec<tokio_postgres::Row>, StoreError> {
        self.query_on(self.client().await?, text, params).await
    }

    /// The same on one connection.
    pub(crate) async fn query_on(
        &self,
        client: Object,
        text: &str,
        params: &[batch::Param<'_>],
    ) -> Result<Vec<tokio_postgres::Row>, StoreError> {
        let work = async {
            let statement = self.prepared(&client, text).await?;
            client.query(&statement, params).await
        };
        let found = in_time(self.patience(), work).await;
        if found.as_ref().is_err_and(Fault::spoils) {
            // Nobody else is to wait for it, or be refused by it.
            drop(Object::take(client));
        }
        found.map_err(|fault| StoreError::Unavailable(with_full(fault)))
    }
}

/// Tells other nodes that there is something new: once for all that was written meanwhile, and outside of the commits, which
/// a NOTIFY among them would put in a row.
async fn tell(shared: Arc<Shared>) {
    let mut speaker = None;
    loop {
        shared.news.notified().await;
        if shared.in_company.load(Ordering::Relaxed) {
            if speaker.is_none() {
                speaker = shared.connector.connect("SET synchronous_commit = off", |_| {}).await.ok();
            }
            if let Some(client) = &speaker {
                let (text, hint) = ("SELECT pg_notify($1, '')", shared.hint());
                let told = in_time(shared.patience(), client.execute(text, &[&hint])).await;
                // It was a hint. Others look for themselves before long.
                speaker = speaker.filter(|_| told.is_ok());
            }
        }
        tokio::time::sleep(HINT_EVERY).await;
    }
}

/// Listens to what other nodes tell.
async fn listen(shared: Arc<Shared>) {
    let session = format!("LISTEN {}", shared.hint());
    loop {
        let (gone, mut went) = mpsc::channel::<()>(1);
        let heard = Arc::clone(&shared);
        let hear = move |message| {
            _ = &gone;
            if let AsyncMessage::Notification(_) = message {
                heard.changed.notify_waiters();
            }
        };
        if let Ok(client) = shared.connector.connect(&session, hear).await {
            // Over when the connection is, and with it its ear.
            went.recv().await;
            drop(client);
        }
        tokio::time::sleep(LISTEN_WAIT).await;
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn take_over(&self) -> Result<Fence, StoreError> {
        let shared = Arc::clone(&self.shared);
        self.on(async move { shared.join().await }).await
    }

    async fn commit(&self, commit: Commit) -> Result<(), CommitError> {
        let records = Box::new(Records::of(commit)?);
        let (reply, answer) = oneshot::channel();
        let ended = |_| CommitError::Unavailable("the committer of the store has ended".into());
        self.jobs.send(Message::Commit(Job { records, reply })).await.map_err(ended)?;
        let silent = |_| CommitError::Unknown("the committer of the store has ended".into());
        answer.await.map_err(silent)?
    }

    async fn check_owner(&self, id: OperationId, fence: Fence) -> Result<(), CommitError> {
        let (current, is_owned) =
            self.read(move |shared| async move { read::fence(&shared, id).await }).await?;
        if is_owned && current == fence { Ok(()) } else { Err(CommitError::Fenced { held: fence, current }) }
    }

    async fn load(&self, id: OperationId) -> Result<Option<Execution>, StoreError> {
        self.read(move |shared| async move { read::operation(&shared, id).await }).await
    }

    async fn due(&self, until: Timestamp, after: Option<Due>, limit: usize) -> Result<Vec<Due>, StoreError> {
        self.read(move |shared| async move { read::due(&shared, until, after, limit).await }).await
    }

    async fn resource(&self, key: &ResourceKey) -> Result<Option<Row>, StoreError> {
        let key = key.clone();
        self.read(move |shared| async move { read::resource(&shared, &key).await }).await
    }

    async fn list_resources(
        &self,
        query: &ResourceQuery,
        after: Option<&Position>,
        limit: usize,
    ) -> Result<Slice<Row>, StoreError> {
        let (query, after) = (query.clone(), after.cloned());
        self.read(move |shared| async move { read::resources(&shared, &query, after, limit).await }).await
    }

    async fn list_operations(
        &self,
        query: &OperationQuery,
        after: Option<&Position>,
        limit: usize,
    ) -> Result<Slice<Operation>, StoreError> {
        let (query, after) = (query.clone(), after.cloned());
        self.read(move |shared| async move { read::operations(&shared, &query, after, limit).await }).await
    }

    async fn ledger(&self, digest: &[u8; 32]) -> Result<Option<LedgerEntry>, StoreError> {
        let digest = *digest;
        self.read(move |shared| async move { read::ledger(&shared, &digest).await }).await
    }

    async fn purge(&self, fence: Fence, purge: Purge) -> Result<Purged, CommitError> {
        let shared = Arc::clone(&self.shared);
        self.change(async move { purge::purge(&shared, fence, &purge).await }).await
    }

    async fn take_references(
        &self,
        holder: Holder,
        items: Vec<ItemKey>,
        fresh: Incarnation,
    ) -> Result<Vec<Taken>, CommitError> {
        let shared = Arc::clone(&self.shared);
        self.change(async move { items::take(&shared, &holder, &items, fresh).await }).await
    }

    async fn confirm_items(
        &self,
        holder: Holder,
        items: Vec<(ItemKey, Incarnation)>,
    ) -> Result<(), CommitError> {
        let shared = Arc::clone(&self.shared);
        self.change(async move { items::confirm(&shared, &holder, &items).await }).await
    }

    async fn unconfirm_items(
        &self,
        fence: Fence,
        items: Vec<(ItemKey, Incarnation)>,
    ) -> Result<(), CommitError> {
        let shared = Arc::clone(&self.shared);
        self.change(async move { items::unconfirm(&shared, fence, &items).await }).await
    }

    async fn drop_references(&self, holder: Holder, limit: usize) -> Result<Dropped, CommitError> {
        let shared = Arc::clone(&self.shared);
        self.change(async move { items::drop_some(&shared, &holder, &DropWhat::First(limit)).await }).await
    }

    async fn drop_references_to(&self, holder: Holder, items: Vec<ItemKey>) -> Result<usize, CommitError> {
        let shared = Arc::clone(&self.shared);
        let dropped = async move { items::drop_some(&shared, &holder, &DropWhat::Items(items)).await };
        Ok(self.change(dropped).await?.references)
    }

    async fn drop_references_of_gone(&self, holder: Holder, limit: usize) -> Result<Dropped, CommitError> {
        let shared = Arc::clone(&self.shared);
        self.change(async move { items::drop_some(&shared, &holder, &DropWhat::OfGone(limit)).await }).await
    }

    async fn references(
        &self,
        of: &ResourceKey,
        after: Option<&ItemKey>,
        limit: usize,
    ) -> Result<Vec<ItemKey>, StoreError> {
        let (of, after) = (of.clone(), after.cloned());
        self.read(move |shared| async move { items::references(&shared, &of, after.as_ref(), limit).await })
            .await
    }

    async fn reference_holders(
        &self,
        after: Option<&ResourceKey>,
        limit: usize,
    ) -> Result<Vec<ResourceKey>, StoreError> {
        let after = after.cloned();
        self.read(move |shared| async move { items::holders(&shared, after.as_ref(), limit).await }).await
    }

    async fn orphans(
        &self,
        of: Option<OperationId>,
        after: Option<&Orphan>,
        limit: usize,
    ) -> Result<Vec<Orphan>, StoreError> {
        let after = after.cloned();
        self.read(move |shared| async move { items::orphans(&shared, of, after.as_ref(), limit).await }).await
    }

    async fn forget_orphans(&self, fence: Fence, orphans: Vec<Orphan>) -> Result<(), CommitError> {
        let shared = Arc::clone(&self.shared);
        self.change(async move { items::forget(&shared, fence, &orphans).await }).await
    }

    async fn incarnations(&self, items: &[ItemKey]) -> Result<Vec<Option<Incarnation>>, StoreError> {
        let items = items.to_vec();
        self.read(move |shared| async move { items::incarnations(&shared, &items).await }).await
    }

    fn page_secret(&self) -> [u8; 32] {
        self.shared.secret
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new("postgres", Durability::PowerLoss, true)
    }

    fn cluster(&self) -> Option<&dyn Cluster> {
        Some(self)
    }
}

impl PostgresStore {
    /// For [`Cluster`], in the runtime of the store.
    pub(crate) async fn ask<T, F>(
        &self,
        ask: impl FnOnce(Arc<Shared>) -> F + Send + 'static,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        self.on(async move { ask(shared).await }).await
    }
}
