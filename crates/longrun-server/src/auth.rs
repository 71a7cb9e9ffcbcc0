//! Who calls, and what callers may do.
//!
//! [`Authenticator`] is the hook: by the headers of a call it tells the caller, who is put on record as `created_by`. There is
//! no server without one: a program that wants everybody to be let in says so, by [`Anonymous`].

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use async_trait::async_trait;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use longrun::{Caller, ResourceId};
use longrun_api::{ApiError, Reason};
use longrun_snapshot::service::{Access, Action};

/// Tells who calls.
#[async_trait]
pub trait Authenticator: Send + Sync + 'static {
    /// The caller, by the headers of the call (over gRPC: its metadata), or why it is not known: an error with
    /// [`Reason::Unauthenticated`].
    async fn authenticate(&self, headers: &HeaderMap) -> Result<Caller, ApiError>;
}

/// Lets everybody in, as one and the same caller. For a server that nobody else can reach.
#[derive(Clone, Debug)]
pub struct Anonymous(Caller);

impl Anonymous {
    /// All who call are this caller.
    pub const fn as_caller(caller: Caller) -> Self {
        Self(caller)
    }
}

#[async_trait]
impl Authenticator for Anonymous {
    async fn authenticate(&self, _: &HeaderMap) -> Result<Caller, ApiError> {
        Ok(self.0.clone())
    }
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
/// listed is denied.
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
#[derive(Clone, Debug, Default)]
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
        let grants = self.grants.entry(caller.clone()).or_default();
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
        match self.callers.insert(*blake3::hash(token.as_bytes()).as_bytes(), caller) {
            Some(_) => Err("has the token of a line before".to_owned()),
            None => Ok(()),
        }
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
        ] {
            let error = Tokens::parse(text).unwrap_err();
            assert!(matches!(error, TokenFileError::Line { line: found, .. } if found == line), "{error}");
            assert!(!error.to_string().contains("hush"));
        }
        assert!(matches!(Tokens::parse("\n# none\n"), Err(TokenFileError::Empty)));
    }
}
