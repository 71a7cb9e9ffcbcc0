//! The committer: gathers the commits of this process, writes them together, answers each by itself.
//!
//! While one batch is under way the next one gathers; nothing waits on a timer. What speaks against one commit never costs its
//! neighbours more than another try.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use longrun_core::{OperationId, ResourceKey};
use longrun_store::records::Records;
use longrun_store::{Author, CommitError, SharedCause};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_postgres::{Client, Statement};

use crate::batch::{self, Batch, Parts, Place};
use crate::conflicts;
use crate::error::{Failed, Fault, OpenError, in_time, with_full};
use crate::schema;
use crate::store::Shared;
use crate::values::Uuid;
use crate::wire::Wire;

/// Commits of one batch, at most.
const GROUP_COMMITS_MAX: usize = 1024;
/// Bytes of the records of one batch, nearly; one commit may be larger.
const GROUP_BYTES_MAX: usize = 8 << 20;
/// Times that a group is tried in which others are always before us, before its commits are tried one by one, and then refused.
const TRIES_MAX: u32 = 8;
/// Statements that a session keeps ready. A service needs some ten.
const STATEMENTS_MAX: usize = 64;
/// How long callers wait for the database to say what became of their commits, before they are told that it is unknown.
const SETTLE_WAIT: Duration = Duration::from_secs(3);
/// Wait between two attempts to reach it.
const RECONNECT_WAIT: Duration = Duration::from_millis(100);
/// Parts of a group in which one is blocked.
const PARTS: usize = 8;
/// How long a part of a group waits for what somebody holds; the whole of it has waited longer before.
const HASTY: &str = "SET lock_timeout = 100";
const PATIENT: &str = "SET lock_timeout = 1000";

/// What the committer is asked.
pub(crate) enum Message {
    Commit(Job),
    /// Find out what became of the last batch. True when that is known.
    Settle(oneshot::Sender<bool>),
}

/// A commit, and whom to tell.
pub(crate) struct Job {
    pub(crate) records: Box<Records>,
    pub(crate) reply: oneshot::Sender<Result<(), CommitError>>,
}

impl Job {
    fn tell(self, answer: Result<(), CommitError>) {
        // A caller that has gone away does not need the answer.
        _ = self.reply.send(answer);
    }
}

pub(crate) struct Committer {
    shared: Arc<Shared>,
    wire: Arc<Wire>,
    session: Option<Session>,
    id: Uuid,
    /// The last batch that is known to be stored.
    last: i64,
    /// A batch of which that is not known.
    in_doubt: Option<i64>,
    /// Parts of a group are under way of which one is blocked.
    hasty: bool,
}

struct Session {
    client: Client,
    /// Those that were needed so far.
    statements: HashMap<Parts, Statement>,
}

impl Session {
    async fn statement(&mut self, shared: &Shared, parts: Parts) -> Result<Statement, tokio_postgres::Error> {
        if let Some(known) = self.statements.get(&parts) {
            return Ok(known.clone());
        }
        let statement = self.client.prepare(&shared.sql(&batch::statement(parts))).await?;
        if self.statements.len() >= STATEMENTS_MAX {
            // Each takes memory of the server's.
            self.statements.clear();
        }
        self.statements.insert(parts, statement.clone());
        Ok(statement)
    }
}

/// How a group ended, if it did not go through.
enum Ended {
    /// Nothing of it is stored, for this reason.
    Refused(Fault),
    /// Nobody knows.
    Unknown(Fault),
}

/// The statement finds rows by their keys, and there are never many beside those that it asks for: whatever the planner believes
/// of tables that were empty a moment ago. A row that somebody holds for long is given up, for the others of the batch. A process
/// that stops between two statements keeps nobody waiting for long.
const SESSION: &str =
    "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; SET jit = off;
    SET plan_cache_mode = force_generic_plan; SET lock_timeout = 1000;
    SET idle_in_transaction_session_timeout = 2000";

/// The name of a committer, that no other has.
fn new_id() -> Result<Uuid, OpenError> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| OpenError::System(error.to_string()))?;
    Ok(Uuid(u128::from_be_bytes(random)))
}

impl Committer {
    pub(crate) async fn open(shared: Arc<Shared>) -> Result<Self, OpenError> {
        let wire = Arc::new(Wire::default());
        let mut committer = Self {
            shared,
            wire: Arc::clone(&wire),
            session: None,
            id: new_id()?,
            last: 0,
            in_doubt: None,
            hasty: false,
        };
        wire.carry(committer.session()).await.map_err(schema::unreachable)?;
        Ok(committer)
    }

    /// Works until every sender is gone.
    pub(crate) async fn run(self, messages: mpsc::Receiver<Message>) {
        let wire = Arc::clone(&self.wire);
        let patience = self.shared.patience();
        wire.carry(self.work(messages)).await;
        // The server sees a client that goes, not one that was lost.
        _ = tokio::time::timeout(patience, wire.end()).await;
    }

    async fn work(mut self, mut messages: mpsc::Receiver<Message>) {
        let mut waiting = Vec::new();
        let mut received = Vec::new();
        let mut asking = Vec::new();
        while messages.recv_many(&mut received, GROUP_COMMITS_MAX).await > 0 {
            loop {
                for message in received.drain(..) {
                    match message {
                        Message::Commit(job) => waiting.push(job),
                        Message::Settle(reply) => asking.push(reply),
                    }
                }
                if !asking.is_empty() {
                    // Once for all who ask: a database that is away lets each wait.
                    let settled = self.settle().await;
                    asking.drain(..).for_each(|reply: oneshot::Sender<_>| _ = reply.send(settled));
                }
                if waiting.is_empty() {
                    break;
                }
                let group = take_group(&mut waiting);
                self.commit(group).await;
                while let Ok(message) = messages.try_recv() {
                    received.push(message);
                    if received.len() >= GROUP_COMMITS_MAX {
                        break;
                    }
                }
            }
        }
    }

    async fn connect(&self) -> Result<Session, Fault> {
        let client = self.shared.connector.connect_by(&self.wire, SESSION).await?;
        // Whatever the server's own default is: what is acknowledged is on its disk.
        let durable = "SELECT set_config('synchronous_commit', 'on', false)
            WHERE current_setting('synchronous_commit') = 'off'";
        let register = self.shared.sql(
            "INSERT INTO longrun.committers (id, batch) VALUES ($1, $2)
            ON CONFLICT (id) DO UPDATE SET used_at = clock_timestamp()",
        );
        in_time(self.shared.patience(), async {
            client.query(durable, &[]).await?;
            client.execute(&register, &[&self.id, &self.last]).await
        })
        .await?;
        Ok(Session { client, statements: HashMap::new() })
    }

    /// A session that works, as far as is known.
    async fn session(&mut self) -> Result<&mut Session, Fault> {
        let session = match self.session.take() {
            Some(session) if !session.client.is_closed() => session,
            _ => self.connect().await?,
        };
        Ok(self.session.insert(session))
    }

    /// Whether it is known what became of every batch so far.
    async fn settle(&mut self) -> bool {
        let Some(batch) = self.in_doubt else { return true };
        match self.ask_what_became_of(batch).await {
            Ok(_) => true,
            Err(error) => {
                tracing::warn!(%error, "what became of a batch of commits is not known yet");
                false
            }
        }
    }

    /// Asks whether a batch was stored, and makes sure that it never will be if it was not: its row is moved on, so its
    /// statement, if it is still under way somewhere, does not find it where it expects it.
    ///
    /// The answer to this may be lost too, and the question come late: so the row is moved only from where the batch expects it, and
    /// once moved it gives the same answer again.
    async fn ask_what_became_of(&mut self, batch: i64) -> Result<bool, Fault> {
        let (id, last, beyond) = (self.id, self.last, batch + 1);
        let text = self.shared.sql(
            "UPDATE longrun.committers SET batch = CASE batch WHEN $2 THEN $3 ELSE batch END, used_at = clock_timestamp()
             WHERE id = $1 RETURNING batch",
        );
        let patience = self.shared.patience();
        let session = self.session().await?;
        let asked = in_time(patience, session.client.query_one(&text, &[&id, &last, &beyond])).await;
        let row = asked.inspect_err(|_| self.session = None)?;
        self.last = row.get(0);
        self.in_doubt = None;
        self.shared.unsettled.store(false, Ordering::SeqCst);
        Ok(self.last == batch)
    }

    /// Commits a group in which no two touch the same thing, and answers all of it.
    async fn commit(&mut self, mut group: Vec<Job>) {
        let mut tries = 0;
        while !group.is_empty() {
            tries += 1;
            let Err(ended) = self.try_to_commit(&group).await else {
                self.note_news(&group);
                return group.into_iter().for_each(|job| job.tell(Ok(())));
            };
            match ended {
                Ended::Unknown(error) => match self.settled_in_time().await {
                    Some(true) => {
                        self.note_news(&group);
                        return group.into_iter().for_each(|job| job.tell(Ok(())));
                    }
                    Some(false) if tries < TRIES_MAX => {}
                    Some(false) => return refuse(group, error),
                    None => {
                        let error = SharedCause::new(with_full(error));
                        return group
                            .into_iter()
                            .for_each(|job| job.tell(Err(CommitError::Unknown(error.boxed()))));
                    }
                },
                Ended::Refused(error) => match Failed::of(&error) {
                    Failed::Collided if tries < TRIES_MAX => {}
                    failed @ (Failed::Unexpected | Failed::Collided | Failed::Blocked) => {
                        match self.sort_out(group).await {
                            Ok(rest) => group = rest,
                            Err(rest) => return refuse(rest, error),
                        }
                        if failed == Failed::Blocked || tries >= TRIES_MAX {
                            return self.in_parts(group, error).await;
                        }
                    }
                    // Something of one of them may be what the server does not take.
                    _ if group.len() > 1 && self.session.as_ref().is_some_and(|s| !s.client.is_closed()) => {
                        return self.in_parts(group, error).await;
                    }
                    _ => return refuse(group, error),
                },
            }
        }
    }

    /// Smaller and smaller groups, so that what ails one of them is its own.
    async fn in_parts(&mut self, mut group: Vec<Job>, error: Fault) {
        if group.len() <= 1 {
            return refuse(group, error);
        }
        let is_first = !std::mem::replace(&mut self.hasty, true);
        if is_first {
            self.say(HASTY).await;
        }
        let size = group.len().div_ceil(PARTS);
        while !group.is_empty() {
            let rest = group.split_off(size.min(group.len()));
            Box::pin(self.commit(group)).await;
            group = rest;
        }
        if is_first {
            self.hasty = false;
            self.say(PATIENT).await;
        }
    }

    /// A setting of the session. A new one has those that it begins with.
    async fn say(&mut self, setting: &str) {
        let patience = self.shared.patience();
        let Some(session) = &self.session else { return };
        if in_time(patience, session.client.batch_execute(setting)).await.is_err() {
            self.session = None;
        }
    }

    async fn try_to_commit(&mut self, group: &[Job]) -> Result<(), Ended> {
        if let Some(batch) = self.in_doubt {
            self.ask_what_became_of(batch).await.map_err(Ended::Refused)?;
        }
        let shared = Arc::clone(&self.shared);
        let place = Place { committer: self.id, previous: self.last, next: self.last + 1 };
        // Before anything is sent, so that it is a refusal.
        let session = self.session().await.map_err(Ended::Refused)?;
        let records: Vec<_> = group.iter().map(|job| &*job.records).collect();
        let written = in_time(shared.patience(), write(&shared, session, &records, place)).await;
        match written {
            Ok(()) => {
                self.last = place.next;
                Ok(())
            }
            Err(error) if Failed::of(&error) == Failed::Unknown => {
                self.session = None;
                self.in_doubt = Some(place.next);
                self.shared.unsettled.store(true, Ordering::SeqCst);
                Err(Ended::Unknown(error))
            }
            Err(error) => {
                if error.is_of_a_standby() {
                    // What was the primary is none any more; another connection finds the new one.
                    self.session = None;
                }
                Err(Ended::Refused(error))
            }
        }
    }

    /// What became of the batch in doubt, if that can be found out while callers wait.
    async fn settled_in_time(&mut self) -> Option<bool> {
        let batch = self.in_doubt?;
        let until = Instant::now() + SETTLE_WAIT;
        loop {
            match tokio::time::timeout_at(until, self.ask_what_became_of(batch)).await {
                Ok(Ok(stored)) => return Some(stored),
                Ok(Err(error)) if Instant::now() < until => {
                    tracing::warn!(%error, "the answer to a batch of commits was lost, and it cannot be asked for yet");
                }
                _ => {
                    self.session = None;
                    return None;
                }
            }
            tokio::time::sleep(RECONNECT_WAIT).await;
        }
    }

    /// Refuses those of a group against which something speaks, and gives the others. All of them, as an error, when that
    /// cannot be found out.
    async fn sort_out(&mut self, group: Vec<Job>) -> Result<Vec<Job>, Vec<Job>> {
        let shared = Arc::clone(&self.shared);
        let records: Vec<_> = group.iter().map(|job| &*job.records).collect();
        let refused = match self.session().await {
            Ok(session) => in_time(shared.patience(), look(session, &shared, &records)).await,
            Err(error) => Err(error),
        };
        drop(records);
        let Ok(refused) = refused.inspect_err(|_| self.session = None) else { return Err(group) };
        let mut rest = Vec::new();
        for (job, refused) in group.into_iter().zip(refused) {
            match refused {
                Some(error) => job.tell(Err(error)),
                None => rest.push(job),
            }
        }
        if !rest.is_empty()
            && let Err(error) = self.find_place().await
        {
            tracing::warn!(%error, "the committer does not find its row");
        }
        Ok(rest)
    }

    /// It may have been away for so long that its row was cleared away, and a database that was set back, or whose place a replica
    /// took that had not all of it, has another. Then it begins anew, under another name. Nothing is in doubt.
    async fn find_place(&mut self) -> Result<(), Fault> {
        let (id, last, patience) = (self.id, self.last, self.shared.patience());
        let text = self.shared.sql("SELECT batch FROM longrun.committers WHERE id = $1");
        let session = self.session().await?;
        let found = in_time(patience, session.client.query_opt(&text, &[&id])).await?;
        let Ok(new) = new_id() else { return Ok(()) };
        if found.is_some_and(|row| row.get::<_, i64>(0) == last) {
            return Ok(());
        }
        let text = self.shared.sql(
            "WITH gone AS (DELETE FROM longrun.committers WHERE id = $1)
            INSERT INTO longrun.committers (id, batch) VALUES ($2, 0)",
        );
        let session = self.session().await?;
        in_time(patience, session.client.execute(&text, &[&id, &new])).await?;
        (self.id, self.last) = (new, 0);
        Ok(())
    }

    /// Others may wait for what was written.
    fn note_news(&self, group: &[Job]) {
        // Whoever waits for an end at another node asks often enough; a hint for each would have all nodes at it all the time.
        let is_news = |job: &Job| job.records.author == Author::Visitor;
        if group.iter().any(is_news) {
            self.shared.news.notify_one();
        }
    }
}

async fn write(
    shared: &Shared,
    session: &mut Session,
    records: &[&Records],
    place: Place,
) -> Result<(), tokio_postgres::Error> {
    let batch = Batch::of(records, Some(place));
    let statement = session.statement(shared, batch.parts()).await?;
    if !records.iter().any(|records| conflicts::need_to_be_alone(records)) {
        return session.client.query(&statement, &batch.params()).await.map(drop);
    }
    let transaction = session.client.transaction().await?;
    transaction.batch_execute(&shared.sql(conflicts::KEEP_ROWS)).await?;
    transaction.query(&statement, &batch.params()).await?;
    transaction.commit().await
}

/// As many from the front as may be in one batch; the others stay, in their order.
fn take_group(waiting: &mut Vec<Job>) -> Vec<Job> {
    let (mut group, mut rest) = (Vec::new(), Vec::new());
    let (mut touched, mut bytes) = (Touched::default(), 0);
    for job in waiting.drain(..) {
        let fits = group.len() < GROUP_COMMITS_MAX
            && (group.is_empty() || bytes + job.records.byte_len() <= GROUP_BYTES_MAX)
            && rest.is_empty()
            && touched.add(&job.records);
        if fits {
            bytes += job.records.byte_len();
            group.push(job);
        } else {
            rest.push(job);
        }
    }
    *waiting = rest;
    group
}

/// What the commits of a group touch. Of two that touch the same thing the later one must find what the earlier one leaves, and
/// a statement does not see what it writes itself.
#[derive(Default)]
struct Touched {
    operations: HashSet<OperationId>,
    keys: HashSet<[u8; 32]>,
    written: HashSet<ResourceKey>,
    asked: HashSet<ResourceKey>,
    alone: bool,
}

impl Touched {
    /// False when it has to wait for the next group.
    fn add(&mut self, records: &Records) -> bool {
        let alone = conflicts::need_to_be_alone(records);
        let written = || records.rows.iter().map(|row| &row.write.key);
        let asked = || conflicts::must_be_ready(records);
        let collides = self.alone
            || alone && !self.operations.is_empty()
            || self.operations.contains(&records.header.id)
            || records.ledger.as_ref().is_some_and(|claim| self.keys.contains(&claim.digest))
            || written().any(|key| self.written.contains(key) || self.asked.contains(key))
            || asked().any(|key| self.written.contains(key));
        if collides {
            return false;
        }
        self.alone = alone;
        self.operations.insert(records.header.id);
        self.keys.extend(records.ledger.as_ref().map(|claim| claim.digest));
        self.written.extend(written().cloned());
        self.asked.extend(asked().cloned());
        true
    }
}

/// Tells all of a group that nothing was written.
fn refuse(group: Vec<Job>, error: Fault) {
    let error = SharedCause::new(with_full(error));
    group.into_iter().for_each(|job| job.tell(Err(CommitError::Unavailable(error.boxed()))));
}

/// As one instant shows it.
async fn look(
    session: &mut Session,
    shared: &Shared,
    records: &[&Records],
) -> Result<Vec<Option<CommitError>>, tokio_postgres::Error> {
    let transaction = session
        .client
        .build_transaction()
        .isolation_level(tokio_postgres::IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await?;
    let refused = conflicts::find(&transaction, shared, records).await?;
    transaction.rollback().await?;
    Ok(refused)
}
