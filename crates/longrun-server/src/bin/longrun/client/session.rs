//! [`Session`]: calls to one server, with their deadline, their headers, and a second try where it can help.

use std::error::Error as _;
use std::time::Duration;

use longrun::core::with_causes;
use longrun_api::dialect::google::id_of_name;
use longrun_api::google::longrunning::operations_client::OperationsClient;
use longrun_api::google::longrunning::{
    self, GetOperationRequest, ListOperationsRequest, WaitOperationRequest,
};
use longrun_api::well_known::duration;
use longrun_api::yandex::cloud::compute::v1::snapshot_service_client::SnapshotServiceClient;
use longrun_api::yandex::cloud::compute::v1::{
    CreateSnapshotRequest, DeleteSnapshotRequest, GetSnapshotRequest, ListSnapshotOperationsRequest,
    ListSnapshotsRequest, Snapshot, UpdateSnapshotRequest,
};
use longrun_api::yandex::cloud::operation::operation_service_client::OperationServiceClient;
use longrun_api::yandex::cloud::operation::{CancelOperationRequest, Operation};
use tokio::time::Instant;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::connection::Connection;
use super::failure::{Exit, Failure};
use super::progress::Screen;
use super::text::{escape, span};
use super::view::View;

/// No call takes longer, unless it waits for an operation.
const CALL: Duration = Duration::from_secs(30);
/// An answer may take so much longer than the server was told to wait.
const SLACK: Duration = Duration::from_secs(10);
/// A page of the largest resources fits.
const ANSWER_BYTES: usize = 64 << 20;
/// Items on a page. The server's maximum of 1000 could give answers that are too large.
const PAGE: usize = 200;

/// How a call is made.
#[derive(Clone, Debug)]
struct Manner {
    /// Time for one try.
    limit: Duration,
    /// An answer that comes so long after the command's time is over is still taken.
    grace: Duration,
    /// For so long after a first failure that may pass, the call is repeated.
    patience: Duration,
    /// For changes.
    key: Option<MetadataValue<Ascii>>,
}

impl Manner {
    const ASK: Self =
        Self { limit: CALL, grace: Duration::ZERO, patience: Duration::from_secs(5), key: None };

    /// A change is repeated with the same key, so that it is made once.
    fn change(key: &Key) -> Self {
        Self { key: Some(key.0.clone()), ..Self::ASK }
    }

    /// A server that is started again in the middle of a wait is waited for.
    /// One that was told to wait until the command's time is over answers a little later.
    fn wait(time: Duration) -> Self {
        let (limit, grace) = (time + SLACK, Duration::from_secs(1));
        Self { limit, grace, patience: Duration::from_secs(60), key: None }
    }
}

/// An idempotency key.
#[derive(Clone, Debug)]
pub(super) struct Key(MetadataValue<Ascii>);

impl Key {
    /// The key that was given, or a fresh one.
    pub(super) fn new(given: Option<&str>) -> Result<Self, Failure> {
        let key = match given {
            Some(key) => key.to_owned(),
            None => uuid()?,
        };
        let key = key.parse().map_err(|_| {
            Failure::Usage("--idempotency-key: must be of ASCII characters that can be seen".to_owned())
        })?;
        Ok(Self(key))
    }
}

/// A random UUID, version 4.
fn uuid() -> Result<String, Failure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::Usage(format!("the system gives no random bytes: {error}")))?;
    let number = u128::from_be_bytes(bytes);
    // Four bits for the version, two for the variant.
    let number = number & !(0xf << 76) & !(0b11 << 62) | (4 << 76) | (0b10 << 62);
    let hex = format!("{number:032x}");
    let (a, rest) = hex.split_at(8);
    let (b, rest) = rest.split_at(4);
    let (c, rest) = rest.split_at(4);
    let (d, e) = rest.split_at(4);
    Ok(format!("{a}-{b}-{c}-{d}-{e}"))
}

/// Delays between tries: twice as long each time, up to a bound.
#[derive(Debug)]
struct Backoff(Duration);

impl Backoff {
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(3);

    /// The next delay. What the server asks for is heeded up to the bound.
    fn next(&mut self, asked: Option<Duration>) -> Duration {
        let delay = asked.unwrap_or(self.0).clamp(self.0, Self::LONGEST);
        self.0 = (self.0 * 2).min(Self::LONGEST);
        delay
    }
}

/// A connection to a server, for one command.
pub(super) struct Session {
    channel: Channel,
    server: String,
    authorization: Option<MetadataValue<Ascii>>,
    /// The time that the whole command has, and when it is over.
    deadline: Option<(Duration, Instant)>,
    pub(super) screen: Screen,
}

/// A call by a client made for it.
macro_rules! send {
    ($client:expr, $method:ident) => {
        async |request| {
            let mut client = $client.max_decoding_message_size(ANSWER_BYTES);
            client.$method(request).await
        }
    };
}

impl Session {
    /// Connects.
    pub(super) async fn open(connection: &Connection) -> Result<Self, Failure> {
        let deadline = connection.timeout.map(|timeout| (timeout, Instant::now() + timeout));
        let authorization = connection.authorization()?;
        let endpoint = connection.endpoint()?;
        let server = connection.server().to_string();
        // A first connection that fails is told at once: the address is more likely wrong than the server away.
        let channel = endpoint.connect().await.map_err(|error| unreachable(&server, &error))?;
        Ok(Self { channel, server, authorization, deadline, screen: Screen::new(connection.json) })
    }

    /// What is left of the command's time; nothing if it has no end.
    pub(super) fn remaining(&self) -> Option<Duration> {
        self.deadline.map(|(_, end)| end.saturating_duration_since(Instant::now()))
    }

    /// The failure when the command's time is over.
    pub(super) fn time_over(&self, what: &str) -> Failure {
        let time = self.deadline.map(|(timeout, _)| format!(" after {}", span(timeout))).unwrap_or_default();
        Failure::TimeOver(format!("{what}{time}"))
    }

    /// Makes a call, again if it fails in a way that may pass.
    async fn call<Q: Clone, A>(
        &self,
        manner: Manner,
        request: Q,
        send: impl AsyncFn(Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<A, Failure> {
        let mut backoff = Backoff(Backoff::FIRST);
        let mut give_up = None;
        loop {
            let failure = match self.attempt(&manner, request.clone(), &send).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let delay = backoff.next(failure.retry_delay());
            let first = give_up.is_none();
            let give_up = *give_up.get_or_insert_with(|| Instant::now() + manner.patience);
            let again = Instant::now() + delay;
            let end = self.deadline.map_or(give_up, |(_, end)| give_up.min(end));
            if !failure.may_pass() || again >= end {
                return Err(failure);
            }
            if first {
                let why = failure.to_string();
                self.screen.note(&format!("longrun: {}; trying again", escape(&why)));
            }
            tokio::time::sleep(delay).await;
        }
    }

    async fn attempt<Q, A>(
        &self,
        manner: &Manner,
        message: Q,
        send: impl AsyncFn(Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<A, Failure> {
        let limit = self.remaining().map_or(manner.limit, |left| manner.limit.min(left + manner.grace));
        let mut request = Request::new(message);
        // The server is to give up no sooner than we do, or its answer would hide ours.
        request.set_timeout(limit + Duration::from_secs(1));
        let headers = request.metadata_mut();
        if let Some(value) = &self.authorization {
            headers.insert("authorization", value.clone());
        }
        if let Some(key) = &manner.key {
            headers.insert("idempotency-key", key.clone());
        }
        match tokio::time::timeout(limit, send(request)).await {
            Ok(answer) => Ok(answer?.into_inner()),
            Err(_) => {
                Err(Failure::TimeOver(format!("no answer from {} within {}", self.server, span(limit))))
            }
        }
    }

    fn operations(&self) -> OperationsClient<Channel> {
        OperationsClient::new(self.channel.clone())
    }

    fn snapshots(&self) -> SnapshotServiceClient<Channel> {
        SnapshotServiceClient::new(self.channel.clone())
    }

    /// An operation as it is now.
    pub(super) async fn operation(&self, id: &str) -> Result<View, Failure> {
        let request = GetOperationRequest { name: name(id) };
        let found = self.call(Manner::ASK, request, send!(self.operations(), get_operation)).await;
        found.map(View::from)
    }

    /// An operation when it is done, or after a time.
    pub(super) async fn wait(&self, id: &str, time: Duration) -> Result<View, Failure> {
        let request = WaitOperationRequest { name: name(id), timeout: Some(duration(time)) };
        self.call(Manner::wait(time), request, send!(self.operations(), wait_operation)).await.map(View::from)
    }

    /// Operations, newest first.
    pub(super) async fn list_operations(&self, filter: &str, limit: usize) -> Result<Listed<View>, Failure> {
        pages(limit, async |size, page_token| {
            let page_size = i32::try_from(size).unwrap_or(i32::MAX);
            let request = ListOperationsRequest {
                name: String::new(),
                filter: filter.to_owned(),
                page_size,
                page_token,
            };
            let page: longrunning::ListOperationsResponse =
                self.call(Manner::ASK, request, send!(self.operations(), list_operations)).await?;
            Ok((page.operations.into_iter().map(View::from).collect(), page.next_page_token))
        })
        .await
    }

    /// Asks for an operation to be undone.
    pub(super) async fn cancel(&self, id: &str) -> Result<Operation, Failure> {
        let client = || OperationServiceClient::new(self.channel.clone());
        let request = CancelOperationRequest { operation_id: id_of_name(id).to_owned() };
        self.call(Manner::ASK, request, send!(client(), cancel)).await
    }

    /// Asks for a snapshot.
    pub(super) async fn create(
        &self,
        key: &Key,
        request: CreateSnapshotRequest,
    ) -> Result<Operation, Failure> {
        let answer = self.call(Manner::change(key), request, send!(self.snapshots(), create)).await;
        self.keep(key, answer)
    }

    /// Changes a snapshot.
    pub(super) async fn update(
        &self,
        key: &Key,
        request: UpdateSnapshotRequest,
    ) -> Result<Operation, Failure> {
        let answer = self.call(Manner::change(key), request, send!(self.snapshots(), update)).await;
        self.keep(key, answer)
    }

    /// Deletes a snapshot.
    pub(super) async fn delete(
        &self,
        key: &Key,
        request: DeleteSnapshotRequest,
    ) -> Result<Operation, Failure> {
        let answer = self.call(Manner::change(key), request, send!(self.snapshots(), delete)).await;
        self.keep(key, answer)
    }

    /// Tells the key of a change of which nobody knows whether it was accepted.
    fn keep<A>(&self, key: &Key, answer: Result<A, Failure>) -> Result<A, Failure> {
        answer.inspect_err(|failure| {
            if let (Exit::Unreachable, Ok(key)) = (failure.exit(), key.0.to_str()) {
                let text = "longrun: it may have been accepted; to repeat it safely, add --idempotency-key";
                self.screen.note(&format!("{text} {key}"));
            }
        })
    }

    /// A snapshot.
    pub(super) async fn snapshot(&self, id: &str) -> Result<Snapshot, Failure> {
        let request = GetSnapshotRequest { snapshot_id: id.to_owned() };
        self.call(Manner::ASK, request, send!(self.snapshots(), get)).await
    }

    /// Snapshots that a request asks for, whatever it says of pages.
    pub(super) async fn list_snapshots(
        &self,
        request: &ListSnapshotsRequest,
        limit: usize,
    ) -> Result<Listed<Snapshot>, Failure> {
        pages(limit, async |size, page_token| {
            let page_size = i64::try_from(size).unwrap_or(i64::MAX);
            let request = ListSnapshotsRequest { page_size, page_token, ..request.clone() };
            let page = self.call(Manner::ASK, request, send!(self.snapshots(), list)).await?;
            Ok((page.snapshots, page.next_page_token))
        })
        .await
    }

    /// The operations of a snapshot, newest first.
    pub(super) async fn snapshot_operations(&self, id: &str, limit: usize) -> Result<Listed<View>, Failure> {
        pages(limit, async |size, page_token| {
            let page_size = i64::try_from(size).unwrap_or(i64::MAX);
            let request = ListSnapshotOperationsRequest { snapshot_id: id.to_owned(), page_size, page_token };
            let page = self.call(Manner::ASK, request, send!(self.snapshots(), list_operations)).await?;
            Ok((page.operations.into_iter().map(View::from).collect(), page.next_page_token))
        })
        .await
    }
}

fn unreachable(server: &str, error: &tonic::transport::Error) -> Failure {
    // The outermost error says no more than that it is one of the transport.
    let why = error.source().map_or_else(|| error.to_string(), with_causes);
    Failure::Unreachable(format!("cannot reach {server}: {why}"))
}

/// Items of a list, and whether there are more.
#[derive(Debug)]
pub(super) struct Listed<T> {
    pub(super) items: Vec<T>,
    pub(super) more: bool,
}

/// Follows the pages of a list up to a number of items. `page` gets the size and the token of a page, and gives its items and
/// the next token.
async fn pages<T>(
    limit: usize,
    page: impl AsyncFn(usize, String) -> Result<(Vec<T>, String), Failure>,
) -> Result<Listed<T>, Failure> {
    let mut items = Vec::new();
    let mut token = String::new();
    loop {
        let size = PAGE.min(limit - items.len());
        let (found, next) = page(size, token.clone()).await?;
        items.extend(found);
        let more = items.len() > limit || !next.is_empty();
        if items.len() >= limit || !more {
            items.truncate(limit);
            return Ok(Listed { items, more });
        }
        if next == token {
            return Err(Failure::BadAnswer("a page names itself as the next one".to_owned()));
        }
        token = next;
    }
}

/// `operations/{id}`, whichever of the two was given. A name of another shape stays as it is.
fn name(id: &str) -> String {
    if id.contains('/') { id.to_owned() } else { format!("operations/{id}") }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn a_fresh_key_is_a_uuid_of_version_4() {
        let (one, other) = (uuid().unwrap(), uuid().unwrap());
        assert_ne!(one, other);
        for uuid in [one, other] {
            let lengths: Vec<usize> = uuid.split('-').map(str::len).collect();
            assert_eq!(lengths, [8, 4, 4, 4, 12], "{uuid}");
            assert!(uuid.chars().all(|c| c == '-' || c.is_ascii_hexdigit()), "{uuid}");
            assert_eq!(&uuid[14..15], "4", "{uuid}");
            assert!("89ab".contains(&uuid[19..20]), "{uuid}");
        }
        assert_eq!(Key::new(Some("mine")).unwrap().0, "mine");
        assert!(Key::new(Some("a\nb")).is_err());
    }

    #[test]
    fn delays_grow_to_a_bound_and_heed_the_server() {
        let mut backoff = Backoff(Backoff::FIRST);
        let delays: Vec<u128> = (0..7).map(|_| backoff.next(None).as_millis()).collect();
        assert_eq!(delays, [100, 200, 400, 800, 1600, 3000, 3000]);
        let mut backoff = Backoff(Backoff::FIRST);
        assert_eq!(backoff.next(Some(Duration::from_secs(1))).as_millis(), 1000);
        assert_eq!(backoff.next(Some(Duration::from_secs(1000))), Backoff::LONGEST);
        assert_eq!(backoff.next(Some(Duration::ZERO)).as_millis(), 400);
    }

    /// Lists numbers below `total`, on pages of at most `most`.
    async fn numbers(total: usize, most: usize, limit: usize) -> (Listed<usize>, Vec<usize>) {
        let sizes = RefCell::new(Vec::new());
        let listed = pages(limit, async |size, token| {
            sizes.borrow_mut().push(size);
            let from: usize = token.parse().unwrap_or(0);
            let to = (from + size.min(most)).min(total);
            Ok(((from..to).collect(), if to < total { to.to_string() } else { String::new() }))
        });
        (listed.await.unwrap(), sizes.into_inner())
    }

    #[tokio::test]
    async fn pages_are_followed_up_to_the_limit() {
        for (total, limit, expected, more) in [
            (0, 10, 0, false),
            (5, 10, 5, false),
            (10, 10, 10, false),
            (11, 10, 10, true),
            (450, 449, 449, true),
        ] {
            let (listed, _) = numbers(total, 1000, limit).await;
            assert_eq!((listed.items.len(), listed.more), (expected, more), "{total} up to {limit}");
            assert!(listed.items.iter().copied().eq(0..expected));
        }
        assert_eq!(numbers(500, 1000, 450).await.1, [200, 200, 50]);
        assert_eq!(numbers(7, 3, 6).await.1, [6, 3]);
    }

    #[tokio::test]
    async fn a_server_that_leads_in_circles_is_left() {
        let listed = pages(10, async |_, _| Ok((Vec::<u8>::new(), "same".to_owned()))).await;
        assert!(matches!(listed, Err(Failure::BadAnswer(_))));
        let too_many = pages(2, async |_, _| Ok((vec![1, 2, 3], String::new()))).await.unwrap();
        assert_eq!((too_many.items, too_many.more), (vec![1, 2], true));
    }
}
