//! Who calls, and what callers may do.
//!
//! [`Authenticator`] is the hook: by the headers of a call it tells the caller, who is put on record as `created_by`. There is
//! no server without one: a program that wants everybody to be let in says so, by [`Anonymous`].

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use async_trait::async_trait;
use http::HeaderMap;
use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::uri::Authority;
use longrun::{Caller, ResourceId};
use longrun_api::{ApiError, Reason};
#[cfg(feature = "snapshot")]
use longrun_snapshot::service::{Access, Action};

/// Tells who calls.
#[async_trait]
pub trait Authenticator: Send + Sync + 'static {
    /// The caller, by the headers of the call (over gRPC: its metadata), or why it is not known: an error with
    /// [`Reason::Unauthenticated`].
    async fn authenticate(&self, headers: &HeaderMap) -> Result<Caller, ApiError>;
}

/// Lets everybody in, as one and the same caller. For a server that nobody else can reach.
///
/// Only web pages are kept out: a browser on the machine reaches the server too, and runs what strangers have written. A request
/// that says it comes from a page, and, [on loopback](Self::on_loopback), one for another name than the machine's own, is
/// refused.
#[derive(Clone, Debug)]
pub struct Anonymous {
    caller: Caller,
    on_loopback: bool,
}

impl Anonymous {
    /// All who call are this caller.
    pub const fn as_caller(caller: Caller) -> Self {
        Self { caller, on_loopback: false }
    }

    /// For a server that listens on loopback alone.
    #[must_use]
    pub fn on_loopback(self) -> Self {
        Self { on_loopback: true, ..self }
    }
}

#[async_trait]
impl Authenticator for Anonymous {
    async fn authenticate(&self, headers: &HeaderMap) -> Result<Caller, ApiError> {
        let asks_by_own_name = || match headers.get(HOST) {
            Some(host) => host.to_str().is_ok_and(is_loopback),
            // HTTP/2 says it elsewhere; browsers speak that over TLS only, where the name is that of the certificate.
            None => true,
        };
        if from_a_page(headers) || (self.on_loopback && !asks_by_own_name()) {
            let why = "a server without credentials is not for web pages";
            return Err(ApiError::new(Reason::PermissionDenied, why));
        }
        Ok(self.caller.clone())
    }
}

/// Whether a browser sends the request for a page, and not for the person before it.
fn from_a_page(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site");
    headers.contains_key(ORIGIN) || site.is_some_and(|site| site != "none")
}

/// Whether a `host` or `host:port` is a name of the machine for itself.
fn is_loopback(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Static tokens from a file, and the folders of those who have them.
///
/// A line for each token; empty lines and those that begin with `#` are passed over:
///
/// ```text
/// TOKEN CALLER FOLDERS
/// ```
///
/// FOLDERS are separated by commas; `*` is every folder; `=read` behind one allows to look only. What is not
/// listed is denied. A caller may have several tokens; its FOLDERS are then the same on each line.
///
/// ```
/// use longrun_server::auth::Tokens;
///
/// let tokens = Tokens::parse("s3cret-of-alice ajealice b1gfolder,b1gother=read\n# the robot\ns3cret-of-bot ajebot *\n")?;
/// assert_eq!(tokens.len(), 2);
/// # Ok::<(), longrun_server::auth::TokenFileError>(())
/// ```
#[derive(Clone, Default)]
pub struct Tokens {
    /// By digest: looking one up takes the same time whatever is right about a wrong one.
    callers: BTreeMap<[u8; 32], Caller>,
    grants: BTreeMap<Caller, Grants>,
}

/// What one caller may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Grants {
    everywhere: Option<Level>,
    folders: BTreeMap<ResourceId, Level>,
}

/// Writing includes reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Read,
    Write,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("grants", &self.grants).finish_non_exhaustive()
    }
}

/// Why a token file was refused. Never repeats a token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenFileError {
    /// It could not be read.
    #[error("the token file could not be read")]
    Read(#[from] std::io::Error),
    /// A line is not as it must be.
    #[error("line {line} of the token file: {rule}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// What it must be.
        rule: String,
    },
    /// Nobody could ever call.
    #[error("the token file has no token")]
    Empty,
}

impl Tokens {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, TokenFileError> {
        Self::parse(&std::fs::read_to_string(path)?)
    }

    /// Reads the text of a file.
    pub fn parse(text: &str) -> Result<Self, TokenFileError> {
        let mut tokens = Self::default();
        for (place, line) in text.lines().enumerate() {
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                tokens.add(line).map_err(|rule| TokenFileError::Line { line: place + 1, rule })?;
            }
        }
        if tokens.callers.is_empty() { Err(TokenFileError::Empty) } else { Ok(tokens) }
    }

    /// How many tokens there are.
    pub fn len(&self) -> usize {
        self.callers.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.callers.is_empty()
    }

    fn add(&mut self, line: &str) -> Result<(), String> {
        let parts: Vec<&str> = line.split_whitespace().collect();
        let [token, caller, folders] = parts.as_slice() else {
            return Err("must be TOKEN CALLER FOLDERS".to_owned());
        };
        let caller = Caller::new(caller).map_err(|invalid| invalid.to_string())?;
        let granted = Grants::parse(folders)?;
        if *self.grants.entry(caller.clone()).or_insert_with(|| granted.clone()) != granted {
            return Err("grants its caller other folders than a line before".to_owned());
        }
        match self.callers.insert(*blake3::hash(token.as_bytes()).as_bytes(), caller) {
            Some(_) => Err("has the token of a line before".to_owned()),
            None => Ok(()),
        }
    }
}

impl Grants {
    fn parse(folders: &str) -> Result<Self, String> {
        let mut grants = Self::default();
        for folder in folders.split(',') {
            let (folder, level) = match folder.strip_suffix("=read") {
                Some(folder) => (folder, Level::Read),
                None => (folder, Level::Write),
            };
            if folder == "*" {
                grants.everywhere = grants.everywhere.max(Some(level));
            } else {
                let folder = ResourceId::new(folder).map_err(|invalid| format!("folder {}", invalid.rule))?;
                grants.folders.insert(folder, level);
            }
        }
        Ok(grants)
    }
}

#[async_trait]
impl Authenticator for Tokens {
    async fn authenticate(&self, headers: &HeaderMap) -> Result<Caller, ApiError> {
        let unknown = |what: &str| ApiError::new(Reason::Unauthenticated, what);
        let header =
            headers.get(AUTHORIZATION).ok_or_else(|| unknown("authorization: a bearer token is needed"))?;
        let token = header.to_str().ok().and_then(|text| text.split_once(' '));
        let (_, token) = token
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .ok_or_else(|| unknown("authorization: must be Bearer and a token"))?;
        let digest = blake3::hash(token.trim().as_bytes());
        self.callers
            .get(digest.as_bytes())
            .cloned()
            .ok_or_else(|| unknown("authorization: the token is not known"))
    }
}

#[cfg(feature = "snapshot")]
impl Access for Tokens {
    fn may(&self, caller: &Caller, folder: &ResourceId, action: Action) -> bool {
        let needed = match action {
            Action::Read => Level::Read,
            Action::Write => Level::Write,
        };
        let granted = self.grants.get(caller).and_then(|grants| {
            // What is said of a folder by name counts, even if it is less.
            grants.folders.get(folder).copied().or(grants.everywhere)
        });
        granted.is_some_and(|granted| granted >= needed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(id: &str) -> ResourceId {
        ResourceId::new(id).unwrap()
    }

    #[tokio::test]
    async fn a_token_tells_its_caller_and_nothing_else_does() {
        let tokens = Tokens::parse("t0 alice a\nt1 bob b").unwrap();
        let with = |value: &str| HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())]);
        assert_eq!(tokens.authenticate(&with("Bearer t1")).await.unwrap().as_str(), "bob");
        assert_eq!(tokens.authenticate(&with("bearer t0")).await.unwrap().as_str(), "alice");
        for bad in ["t1", "Basic t1", "Bearer", "Bearer t2", "Bearer t1 t0", "Bearer "] {
            let error = tokens.authenticate(&with(bad)).await.unwrap_err();
            assert_eq!(error.reason(), Reason::Unauthenticated, "{bad}");
        }
        assert!(tokens.authenticate(&HeaderMap::new()).await.is_err());
    }

    #[tokio::test]
    async fn a_web_page_is_not_let_in_where_everybody_else_is() {
        let anonymous = Anonymous::as_caller(Caller::new("me").unwrap());
        let with = |name: &'static str, value: &str| {
            HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())])
        };
        for (name, value) in [
            ("origin", "http://evil.example"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-origin"),
        ] {
            let error = anonymous.authenticate(&with(name, value)).await.unwrap_err();
            assert_eq!(error.reason(), Reason::PermissionDenied, "{name}: {value}");
        }
        assert!(anonymous.authenticate(&HeaderMap::new()).await.is_ok());
        assert!(anonymous.authenticate(&with("sec-fetch-site", "none")).await.is_ok());
        assert!(anonymous.authenticate(&with("host", "my-server:8080")).await.is_ok());
        let on_loopback = anonymous.on_loopback();
        for own in ["localhost:8080", "LOCALHOST", "127.0.0.1:1", "127.9.9.9", "[::1]:8080"] {
            assert!(on_loopback.authenticate(&with("host", own)).await.is_ok(), "{own}");
        }
        for other in ["evil.example:8080", "localhost.evil.example", "10.0.0.1", "", "a b"] {
            assert!(on_loopback.authenticate(&with("host", other)).await.is_err(), "{other}");
        }
    }

    #[test]
    fn what_is_not_granted_is_denied() {
        let tokens =
            Tokens::parse("t0 alice a,b=read\nt1 root *\nt2 eyes *=read,c\nt3 shy *,c=read").unwrap();
        let may =
            |caller: &str, id: &str, action| tokens.may(&Caller::new(caller).unwrap(), &folder(id), action);
        assert!(may("alice", "a", Action::Write) && may("alice", "a", Action::Read));
        assert!(may("alice", "b", Action::Read) && !may("alice", "b", Action::Write));
        assert!(!may("alice", "c", Action::Read));
        assert!(may("root", "any", Action::Write));
        assert!(
            may("eyes", "a", Action::Read)
                && !may("eyes", "a", Action::Write)
                && may("eyes", "c", Action::Write)
        );
        assert!(may("shy", "a", Action::Write) && !may("shy", "c", Action::Write));
        assert!(!may("nobody", "a", Action::Read));
    }

    #[test]
    fn a_bad_line_is_named_and_its_token_is_not() {
        for (text, line) in [
            ("hush", 1),
            ("# a\nhush alice", 2),
            ("hush alice a b", 1),
            ("t alice a\nt bob b", 2),
            ("hush alice ../x", 1),
            ("hush alice a,,b", 1),
            ("t alice a\nhush alice b", 2),
            ("t alice a\nhush alice a=read", 2),
        ] {
            let error = Tokens::parse(text).unwrap_err();
            assert!(matches!(error, TokenFileError::Line { line: found, .. } if found == line), "{error}");
            assert!(!error.to_string().contains("hush"));
        }
        assert!(matches!(Tokens::parse("\n# none\n"), Err(TokenFileError::Empty)));
    }
}
