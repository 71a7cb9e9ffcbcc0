//! A network between a store and its server that does what networks do.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use longrun_postgres::testing::PrivateServer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};

use super::until;

/// In the text of a batch of commits.
pub(crate) const BATCH: &str = "1 / (CASE WHEN";
/// In the text of the question what became of one.
pub(crate) const QUESTION: &str = "CASE batch WHEN";
/// In the text of a hint to the other nodes.
pub(crate) const HINT: &str = "pg_notify";

/// What happens to a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Both sides are cut, and the server never sees it.
    Lost,
    /// The server has answered, and both sides are cut before the answer comes back.
    AnswerLost,
    /// The side of the store is cut, and the server sees it when the test says so.
    Late,
    /// The side of the store is cut when the server has it.
    CutWhileUnderWay,
    /// Nothing is cut and nothing comes back.
    Swallowed,
}

/// A statement on its way.
struct Held {
    server: UnixStream,
    request: Vec<u8>,
}

#[derive(Default)]
struct State {
    /// What happens to the next statements that contain a text, in this order.
    fates: Mutex<VecDeque<(&'static str, Fate)>>,
    held: Mutex<Vec<Held>>,
    down: AtomicBool,
}

pub(crate) struct Proxy {
    port: u16,
    state: Arc<State>,
}

impl Proxy {
    pub(crate) async fn start(server: &PrivateServer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State::default());
        let (socket, shared) = (server.folder().join(".s.PGSQL.5432"), Arc::clone(&state));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if !shared.down.load(Ordering::SeqCst) {
                    tokio::spawn(pass(client, socket.clone(), Arc::clone(&shared)));
                }
            }
        });
        Self { port, state }
    }

    pub(crate) fn address(&self) -> String {
        format!("host=127.0.0.1 port={} user=longrun dbname=postgres sslmode=disable", self.port)
    }

    /// The next statements that contain these texts have these fates.
    pub(crate) fn doom(&self, fates: impl IntoIterator<Item = (&'static str, Fate)>) {
        self.state.fates.lock().unwrap().extend(fates);
    }

    /// Waits until all fates have come.
    pub(crate) async fn fulfilled(&self) {
        self.fulfilled_but(0).await;
    }

    /// Waits until no more than so many fates are still to come.
    pub(crate) async fn fulfilled_but(&self, fates: usize) {
        until(async || self.state.fates.lock().unwrap().len() <= fates).await;
    }

    pub(crate) fn is_fulfilled(&self) -> bool {
        self.state.fates.lock().unwrap().is_empty()
    }

    /// Whether new connections are refused.
    pub(crate) fn down(&self, down: bool) {
        self.state.down.store(down, Ordering::SeqCst);
    }

    /// Gives the server what was late. What it answers to each, as bytes.
    pub(crate) async fn deliver(&self) -> Vec<Vec<u8>> {
        let held = std::mem::take(&mut *self.state.held.lock().unwrap());
        let mut answers = Vec::new();
        for Held { mut server, request } in held {
            server.write_all(&request).await.unwrap();
            answers.push(answer(&mut server).await);
        }
        answers
    }
}

/// Whether the server took it.
pub(crate) fn is_error(answer: &[u8]) -> bool {
    messages(answer).0.iter().any(|message| message[0] == b'E')
}

/// All that the server says until it is ready again.
async fn answer(server: &mut UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        if messages(&bytes).0.iter().any(|message| message[0] == b'Z') {
            return bytes;
        }
        if server.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return bytes;
        }
    }
}

/// Whole messages, and how many bytes they take.
fn messages(bytes: &[u8]) -> (Vec<&[u8]>, usize) {
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(length) = bytes.get(at + 1..at + 5) {
        let end = at + 1 + u32::from_be_bytes(length.try_into().unwrap()) as usize;
        let Some(message) = bytes.get(at..end) else { break };
        found.push(message);
        at = end;
    }
    (found, at)
}

fn text_at(message: &[u8], at: usize) -> (&str, usize) {
    let len = message[at..].iter().position(|byte| *byte == 0).unwrap();
    (std::str::from_utf8(&message[at..at + len]).unwrap(), at + len + 1)
}

/// One connection.
async fn pass(mut client: TcpStream, socket: PathBuf, state: Arc<State>) {
    let Ok(mut server) = UnixStream::connect(socket).await else { return };
    let (mut asked, mut told) = (Vec::new(), Vec::new());
    let mut statements: HashMap<String, String> = HashMap::new();
    let mut has_begun = false;
    loop {
        told.clear();
        tokio::select! {
            read = client.read_buf(&mut asked) => if read.unwrap_or(0) == 0 { return },
            read = server.read_buf(&mut told) => {
                if read.unwrap_or(0) == 0 || client.write_all(&told).await.is_err() {
                    return;
                }
                continue;
            }
        }
        if !has_begun {
            // The first message has no type.
            let Some(length) = asked.get(..4) else { continue };
            let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
            if asked.len() < length || server.write_all(&asked[..length]).await.is_err() {
                continue;
            }
            asked.drain(..length);
            has_begun = true;
        }
        // A request ends where an answer is asked for.
        let (found, _) = messages(&asked);
        let ends = |message: &[u8]| matches!(message[0], b'S' | b'Q' | b'X' | b'p');
        let Some(last) = found.iter().rposition(|message| ends(message)) else { continue };
        let found = &found[..=last];
        let mut texts = Vec::new();
        for message in found {
            match message[0] {
                b'P' => {
                    let (name, at) = text_at(message, 5);
                    statements.insert(name.to_owned(), text_at(message, at).0.to_owned());
                }
                b'B' => {
                    let (_, at) = text_at(message, 5);
                    texts.extend(statements.get(text_at(message, at).0).cloned());
                }
                b'Q' => texts.push(text_at(message, 5).0.to_owned()),
                _ => {}
            }
        }
        let fate = {
            let mut fates = state.fates.lock().unwrap();
            let is_meant = |&(text, _): &(&str, Fate)| texts.iter().any(|found| found.contains(text));
            if fates.front().is_some_and(is_meant) { fates.pop_front() } else { None }
        };
        let len = found.iter().map(|message| message.len()).sum::<usize>();
        let request: Vec<u8> = asked.drain(..len).collect();
        match fate.map(|(_, fate)| fate) {
            None if server.write_all(&request).await.is_ok() => {}
            None | Some(Fate::Lost) => return,
            Some(Fate::AnswerLost) => {
                server.write_all(&request).await.unwrap();
                answer(&mut server).await;
                return;
            }
            Some(Fate::Late) => return state.held.lock().unwrap().push(Held { server, request }),
            Some(Fate::CutWhileUnderWay) => {
                server.write_all(&request).await.unwrap();
                drop(client);
                answer(&mut server).await;
                return;
            }
            Some(Fate::Swallowed) => {
                // Until the store gives up.
                while client.read_buf(&mut asked).await.unwrap_or(0) > 0 {}
                return;
            }
        }
    }
}
