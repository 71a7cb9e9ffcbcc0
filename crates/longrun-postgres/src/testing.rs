//! A private PostgreSQL server in a temporary folder, for tests: nothing of it is left when the process has ended.

// This is a test program that happens to be a library.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Where Debian puts the binaries of each version.
const DEBIAN: &str = "/usr/lib/postgresql";
/// How long a server may take to start.
const START_MAX: Duration = Duration::from_secs(60);

/// A server of one's own, reached by a socket in its folder, without a password.
#[derive(Debug)]
pub struct PrivateServer {
    binaries: PathBuf,
    folder: TempDir,
    /// A shell that stops the server when its input ends, which it does with this process, however that ends.
    keeper: Option<Child>,
    schemas: AtomicU32,
    settings: Vec<String>,
}

/// Whom the server runs as, when this process is root: it refuses to be.
#[derive(Clone, Copy, Debug)]
struct User {
    id: u32,
    group: u32,
}

impl PrivateServer {
    /// Starts one, or says what is missing. It does not sync, so it is fast and forgets what a power cut takes.
    pub fn start() -> Result<Self, String> {
        Self::start_with(&["fsync=off", "full_page_writes=off"])
    }

    /// Starts one with settings of its own, as in `fsync=on`.
    pub fn start_with(settings: &[&str]) -> Result<Self, String> {
        let binaries = binaries().ok_or_else(|| {
            "PostgreSQL's programs are not here: install them (Debian: apt-get install postgresql), \
             or say where they are in LONGRUN_POSTGRES_BIN"
                .to_owned()
        })?;
        // A socket's path must be short.
        let folder = tempfile::Builder::new().prefix("lr-pg").tempdir_in("/tmp").map_err(said)?;
        let settings = settings.iter().map(|&setting| setting.to_owned()).collect();
        let mut server = Self { binaries, folder, keeper: None, schemas: AtomicU32::new(0), settings };
        if let Some(user) = other_user() {
            chown(server.folder.path(), Some(user.id), Some(user.group)).map_err(said)?;
        }
        fs::set_permissions(server.folder.path(), fs::Permissions::from_mode(0o755)).map_err(said)?;
        let mut initdb = server.program("initdb");
        initdb.args(["--no-sync", "-A", "trust", "-U", "longrun", "-E", "UTF8", "--locale=C", "-D"]);
        let made = initdb.arg(server.data()).output().map_err(said)?;
        if !made.status.success() {
            return Err(format!("initdb failed: {}", String::from_utf8_lossy(&made.stderr)));
        }
        server.begin()?;
        Ok(server)
    }

    /// One for all tests of a program, or the reason why there is none.
    pub fn shared() -> Result<&'static Self, String> {
        static SERVER: std::sync::OnceLock<Result<PrivateServer, String>> = std::sync::OnceLock::new();
        SERVER.get_or_init(Self::start).as_ref().map_err(Clone::clone)
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.binaries.join(name));
        command.current_dir("/");
        if let Some(user) = other_user() {
            command.uid(user.id).gid(user.group);
        }
        command
    }

    /// Starts the server on its folder, and waits until it answers.
    pub fn begin(&mut self) -> Result<(), String> {
        let mut keeper = Command::new("/bin/sh");
        if let Some(user) = other_user() {
            keeper.uid(user.id).gid(user.group);
        }
        // The server is told to stop at once when nobody holds the other end of this shell's input any more, and its folder goes
        // unless somebody has said that it stays.
        let script = r#"folder=$1; shift; "$@" >>"$folder/log" 2>&1 & server=$!; read -r word; kill -QUIT $server 2>/dev/null
            wait $server; [ "$word" = stay ] || rm -rf "$folder""#;
        keeper.args(["-c", script, "keeper"]).arg(self.folder.path());
        keeper.arg(self.binaries.join("postgres")).arg("-D").arg(self.data());
        keeper.arg("-k").arg(self.folder.path());
        for setting in ["listen_addresses=", "max_connections=300", "shared_buffers=128MB"] {
            keeper.args(["-c", setting]);
        }
        for setting in &self.settings {
            keeper.args(["-c", setting]);
        }
        keeper.current_dir("/").stdin(Stdio::piped()).process_group(0);
        self.keeper = Some(keeper.spawn().map_err(said)?);
        let began = Instant::now();
        while !self.answers() {
            if began.elapsed() > START_MAX {
                let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                return Err(format!("the server does not answer: {log}"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Its port, which is part of the name of its socket.
    fn port(&self) -> &str {
        let named = self.settings.iter().find_map(|setting| setting.strip_prefix("port="));
        named.unwrap_or("5432")
    }

    fn answers(&self) -> bool {
        let mut ask = self.program("pg_isready");
        ask.args(["-q", "-U", "longrun", "-p", self.port(), "-h"]).arg(self.folder.path());
        ask.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    }

    /// Stops it as a crash does: nothing is written any more, and nobody is told.
    pub fn crash(&mut self) {
        let mut stop = self.program("pg_ctl");
        stop.args(["stop", "-m", "immediate", "-D"]).arg(self.data());
        _ = stop.stdout(Stdio::null()).stderr(Stdio::null()).status();
        if let Some(mut keeper) = self.keeper.take() {
            _ = keeper.stdin.take().map(|mut input| input.write_all(b"stay\n"));
            _ = keeper.wait();
        }
    }

    /// Its folder, which holds its socket.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its address.
    pub fn address(&self) -> String {
        let (folder, port) = (self.folder.path().display(), self.port());
        format!("host={folder} port={port} user=longrun dbname=postgres")
    }

    /// The name of a schema that nobody has used.
    pub fn fresh_schema(&self) -> String {
        format!("test_{}", self.schemas.fetch_add(1, Ordering::Relaxed))
    }
}

impl Drop for PrivateServer {
    fn drop(&mut self) {
        if self.keeper.is_some() {
            self.crash();
        }
    }
}

fn said(error: io::Error) -> String {
    error.to_string()
}

/// The programs of the newest version that is here.
fn binaries() -> Option<PathBuf> {
    let has = |folder: &PathBuf| folder.join("postgres").exists() && folder.join("initdb").exists();
    if let Some(named) = std::env::var_os("LONGRUN_POSTGRES_BIN").map(PathBuf::from) {
        return Some(named).filter(has);
    }
    let versions = fs::read_dir(DEBIAN).into_iter().flatten().flatten();
    let mut found: Vec<_> = versions.map(|version| version.path().join("bin")).filter(has).collect();
    found.sort_by_key(|folder| {
        let version = folder.parent().and_then(Path::file_name).and_then(|name| name.to_str());
        version.and_then(|version| version.parse::<u32>().ok())
    });
    let on_path = || {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).find(has)
    };
    found.pop().or_else(on_path)
}

/// Somebody who is not root, when this process is.
fn other_user() -> Option<User> {
    let own = fs::metadata("/proc/self").ok()?;
    if std::os::unix::fs::MetadataExt::uid(&own) != 0 {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let find = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some(User { id: fields.next()?.parse().ok()?, group: fields.next()?.parse().ok()? })
    };
    find("postgres").or_else(|| find("nobody"))
}
