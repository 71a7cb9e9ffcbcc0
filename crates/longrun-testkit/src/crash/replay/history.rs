//! What a traced run did to the folder of its store, operation by operation, and from when each is durable.
//!
//! A file is known by its number, not by its name, as the kernel knows it. A call that concerns the store and is not
//! understood here is an error, and so is a mapping through which a file could be written without a call.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, bail, ensure};

use super::disk::{self, Content, Names, Node, Tree};
use crate::crash::ground::Ground;
use crate::crash::trace::{Call, HARMLESS};

/// Never.
pub(super) const NEVER: usize = usize::MAX;
/// The folder above that of the store: what is synced when the store makes its own name durable.
pub(super) const ABOVE: usize = 0;

/// A change.
#[derive(Clone, Debug)]
pub(super) enum What {
    Write {
        at: u64,
        bytes: Vec<u8>,
    },
    SetLen(u64),
    /// A new file or folder gets a name.
    Make {
        folder: usize,
        name: String,
    },
    Remove {
        folder: usize,
        name: String,
    },
    Rename {
        from: (usize, String),
        to: (usize, String),
    },
}

/// A change, and when it happened.
#[derive(Clone, Debug)]
pub(super) struct Op {
    /// The file that is written, or the file or folder that gets a name or loses it.
    pub(super) node: usize,
    pub(super) what: What,
    pub(super) begin: usize,
    pub(super) end: usize,
    /// From here on it survives.
    pub(super) durable: usize,
    /// What has to be synced for that, and when each was.
    needs: BTreeMap<usize, usize>,
}

impl Op {
    pub(super) const fn of_names(&self) -> bool {
        matches!(self.what, What::Make { .. } | What::Remove { .. } | What::Rename { .. })
    }

    /// The same as one that happened before all calls of a run, which found what there was at a moment.
    fn before(&self, moment: usize) -> Self {
        let mut op = self.clone();
        (op.begin, op.end) = (0, 0);
        op.needs.values_mut().for_each(|synced| *synced = if *synced > moment { NEVER } else { 0 });
        op.settle();
        op
    }

    fn settle(&mut self) {
        self.durable = self.needs.values().copied().max().unwrap_or(NEVER);
    }
}

/// What a run begins with.
#[derive(Debug, Default)]
pub(super) struct Start {
    pub(super) nodes: Vec<Node>,
    pub(super) names: Names,
    /// What was done to them before, by another process. Not all of it may be durable yet.
    pub(super) ops: Vec<Op>,
}

impl Start {
    /// On a disk that has all of a tree.
    pub(super) fn sound(tree: Tree) -> Self {
        let (nodes, names) = disk::number(tree);
        Self { nodes, names, ops: Vec::new() }
    }

    /// After a process that ended at a moment. The kernel has all that it did; the disk has what was synced.
    pub(super) fn after(history: &History, moment: usize) -> Self {
        let done = history.ops.iter().filter(|op| op.begin <= moment);
        Self {
            nodes: history.nodes.clone(),
            names: history.names.clone(),
            ops: done.map(|op| op.before(moment)).collect(),
        }
    }
}

/// A run.
#[derive(Debug)]
pub(super) struct History {
    /// All files and folders there ever were, as they were at the begin.
    pub(super) nodes: Vec<Node>,
    /// The names at the begin.
    pub(super) names: Names,
    /// By their begin.
    pub(super) ops: Vec<Op>,
    /// Lines of facts, and when they were told.
    pub(super) facts: Vec<(usize, String)>,
    /// Effects, when they were made (true) or taken back.
    pub(super) effects: Vec<(usize, String, bool)>,
    /// Times at which something changed, or was promised, or became durable.
    pub(super) moments: Vec<usize>,
    /// How often which call was understood.
    pub(super) calls: BTreeMap<String, u64>,
}

/// An open file.
#[derive(Clone, Debug)]
struct Opened {
    node: usize,
    /// Shared by all its descriptors; an index.
    place: usize,
    append: bool,
}

/// Follows the calls.
struct Reader<'a> {
    history: History,
    /// The names as the program sees them.
    live: Names,
    /// Lengths as the program sees them.
    lengths: HashMap<usize, u64>,
    open: HashMap<i64, Opened>,
    places: Vec<u64>,
    above: String,
    ground: &'a Ground,
}

impl History {
    /// Follows the calls of a run on a ground.
    pub(super) fn of(calls: &[Call], ground: &Ground, start: Start) -> anyhow::Result<Self> {
        let Start { nodes, names, ops } = start;
        let above = ground.dir.parent().context("the store is nowhere")?.to_string_lossy().into_owned();
        let lengths = nodes.iter().enumerate().filter_map(|(node, what)| match what {
            Node::File(content) => Some((node, content.len)),
            Node::Folder => None,
        });
        let mut reader = Reader {
            lengths: lengths.collect(),
            live: names.clone(),
            history: Self {
                nodes,
                names,
                ops,
                facts: Vec::new(),
                effects: Vec::new(),
                moments: Vec::new(),
                calls: BTreeMap::new(),
            },
            open: HashMap::new(),
            places: Vec::new(),
            above,
            ground,
        };
        reader.catch_up();
        let mut events: Vec<(usize, bool, &Call)> = Vec::with_capacity(2 * calls.len());
        for call in calls.iter().filter(|call| call.result >= 0) {
            events.extend([(call.begin, true, call), (call.end, false, call)]);
        }
        events.sort_by_key(|(at, begins, _)| (*at, !*begins));
        for (_, begins, call) in events {
            let step = if begins { reader.begins(call) } else { reader.ends(call) };
            step.with_context(|| format!("{} of line {}", call.name, call.begin + 1))?;
        }
        let mut history = reader.history;
        history.moments.sort_unstable();
        history.moments.dedup();
        Ok(history)
    }
}

impl Reader<'_> {
    /// Names and lengths, as those see them who come after what was done before.
    fn catch_up(&mut self) {
        for op in &self.history.ops {
            match &op.what {
                What::Write { at, bytes } => {
                    let len = self.lengths.entry(op.node).or_default();
                    *len = (*len).max(at + bytes.len() as u64);
                }
                What::SetLen(len) => _ = self.lengths.insert(op.node, *len),
                What::Make { folder, name } => _ = self.live.insert((*folder, name.clone()), op.node),
                What::Remove { folder, name } => _ = self.live.remove(&(*folder, name.clone())),
                What::Rename { from, to } => {
                    self.live.remove(from);
                    self.live.insert(to.clone(), op.node);
                }
            }
        }
    }

    fn in_store(&self, path: &str) -> bool {
        let dir = self.ground.dir.to_string_lossy();
        path == self.above
            || path.strip_prefix(&*dir).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The name of an effect.
    fn effect(&self, path: &str) -> Option<String> {
        let rest = path.strip_prefix(&*self.ground.effects.to_string_lossy())?;
        Some(rest.strip_prefix('/')?.to_owned())
    }

    /// Where a path of the store ends: in which folder, by which name.
    fn find(&self, path: &str) -> anyhow::Result<(usize, String)> {
        let below = path.strip_prefix(&self.above).and_then(|rest| rest.strip_prefix('/'));
        let mut names = below.context("not in the store")?.split('/').peekable();
        let mut folder = ABOVE;
        while let Some(name) = names.next() {
            if names.peek().is_none() {
                return Ok((folder, name.to_owned()));
            }
            let found = self.live.get(&(folder, name.to_owned()));
            folder = *found.with_context(|| format!("{name} of {path} was never made"))?;
        }
        bail!("no name")
    }

    /// The file or folder at a path.
    fn node(&self, path: &str) -> anyhow::Result<Option<usize>> {
        if path == self.above {
            return Ok(Some(ABOVE));
        }
        Ok(self.live.get(&self.find(path)?).copied())
    }

    fn op(&mut self, call: &Call, node: usize, what: What) {
        let needs = match &what {
            What::Write { .. } | What::SetLen(_) => BTreeMap::from([(node, NEVER)]),
            What::Make { folder, .. } | What::Remove { folder, .. } => BTreeMap::from([(*folder, NEVER)]),
            What::Rename { from, to } => BTreeMap::from([(from.0, NEVER), (to.0, NEVER)]),
        };
        let op = Op { node, what, begin: call.begin, end: call.end, durable: NEVER, needs };
        self.history.ops.push(op);
        self.history.moments.extend([call.begin, call.end]);
        *self.history.calls.entry(call.name.clone()).or_default() += 1;
    }

    fn make(&mut self, call: &Call, path: &str, what: Node) -> anyhow::Result<usize> {
        let (folder, name) = self.find(path)?;
        let node = self.history.nodes.len();
        self.history.nodes.push(what);
        self.lengths.insert(node, 0);
        ensure!(self.live.insert((folder, name.clone()), node).is_none(), "{path} was there");
        self.op(call, node, What::Make { folder, name });
        Ok(node)
    }

    fn remove(&mut self, call: &Call, path: &str) -> anyhow::Result<()> {
        if let Some(effect) = self.effect(path) {
            self.history.effects.push((call.begin, effect, false));
        } else if self.in_store(path) {
            let (folder, name) = self.find(path)?;
            let node = self.live.remove(&(folder, name.clone())).context("what is removed was not there")?;
            self.op(call, node, What::Remove { folder, name });
        }
        Ok(())
    }

    fn rename(&mut self, call: &Call, from: &str, to: &str) -> anyhow::Result<()> {
        if !self.in_store(from) && !self.in_store(to) {
            return Ok(());
        }
        let (from, to) = (self.find(from)?, self.find(to)?);
        let node = self.live.remove(&from).context("what is renamed was not there")?;
        self.live.insert(to.clone(), node);
        self.op(call, node, What::Rename { from, to });
        Ok(())
    }

    fn begins(&mut self, call: &Call) -> anyhow::Result<()> {
        match call.name.as_str() {
            "openat" => {
                let path = call.path(Some(0), 1)?;
                let flags = call.arg(2)?;
                if let Some(effect) = self.effect(&path) {
                    ensure!(!effect.starts_with("broken/"), "a step or an undo ran that must not: {effect}");
                    if flags.contains("O_CREAT") {
                        self.history.effects.push((call.begin, effect, true));
                    }
                } else if self.in_store(&path) {
                    ensure!(!flags.contains("O_TMPFILE"), "a file without a name");
                    match self.node(&path)? {
                        Some(node) if flags.contains("O_TRUNC") && self.lengths.get(&node) != Some(&0) => {
                            self.lengths.insert(node, 0);
                            self.op(call, node, What::SetLen(0));
                        }
                        None if flags.contains("O_CREAT") => {
                            self.make(call, &path, Node::File(Content::default()))?;
                        }
                        found => ensure!(found.is_some(), "{path} was never made"),
                    }
                }
            }
            "mkdir" => {
                let path = call.path(None, 0)?;
                if self.in_store(&path) {
                    self.make(call, &path, Node::Folder)?;
                }
            }
            "unlink" | "rmdir" => self.remove(call, &call.path(None, 0)?)?,
            "unlinkat" => self.remove(call, &call.path(Some(0), 1)?)?,
            "rename" => self.rename(call, &call.path(None, 0)?, &call.path(None, 1)?)?,
            "renameat" => self.rename(call, &call.path(Some(0), 1)?, &call.path(Some(2), 3)?)?,
            "close" => {
                let closed = call.descriptor(0).map(|(number, _)| number);
                self.open.remove(&closed.unwrap_or(-1));
            }
            "write" => self.write(call)?,
            "pwrite64" => {
                if let Some(opened) = self.opened(call, 0)? {
                    let (bytes, at) = (call.bytes(1)?, call.number(3)?);
                    self.put(call, opened.node, at, bytes)?;
                }
            }
            "ftruncate" => {
                if let Some(opened) = self.opened(call, 0)? {
                    let len = call.number(1)?;
                    self.lengths.insert(opened.node, len);
                    self.op(call, opened.node, What::SetLen(len));
                }
            }
            "mmap" => {
                let of_store = call.descriptor(4).is_some_and(|(_, path)| self.in_store(&path));
                ensure!(!of_store || !call.arg(3)?.contains("MAP_SHARED"), "a file of the store is mapped");
            }
            "io_uring_setup" => bail!("calls that are not traced"),
            "read" | "lseek" | "fsync" | "fdatasync" | "fcntl" | "dup" => {
                self.opened(call, 0)?;
            }
            // It promises nothing: neither the length nor the cache of the disk.
            "sync_file_range" => {}
            name if HARMLESS.contains(&name) => {}
            _ => {
                let of_store = call.paths().find(|path| path != &self.above && self.in_store(path));
                ensure!(of_store.is_none(), "it concerns {of_store:?} and is not understood");
            }
        }
        Ok(())
    }

    fn ends(&mut self, call: &Call) -> anyhow::Result<()> {
        match call.name.as_str() {
            "openat" => {
                let path = call.path(Some(0), 1)?;
                if self.in_store(&path) {
                    let node = self.node(&path)?.context("it is gone as it was opened")?;
                    let append = call.arg(2)?.contains("O_APPEND");
                    self.places.push(0);
                    let opened = Opened { node, place: self.places.len() - 1, append };
                    self.open.insert(call.result, opened);
                }
            }
            "dup" => self.again(call)?,
            "fcntl" if call.arg(1)?.starts_with("F_DUPFD") => self.again(call)?,
            "read" => {
                if let Some(opened) = self.opened(call, 0)? {
                    self.places[opened.place] += u64::try_from(call.result)?;
                }
            }
            "lseek" => {
                if let Some(opened) = self.opened(call, 0)? {
                    self.places[opened.place] = u64::try_from(call.result)?;
                }
            }
            "fsync" | "fdatasync" => self.synced(call)?,
            "sync_file_range" => {
                // It promises nothing: neither the length nor the cache of the disk.
                *self.history.calls.entry(call.name.clone()).or_default() += 1;
            }
            _ => {}
        }
        Ok(())
    }

    /// Another descriptor of the same open file.
    fn again(&mut self, call: &Call) -> anyhow::Result<()> {
        if let Some(opened) = self.opened(call, 0)? {
            self.open.insert(call.result, opened);
        }
        Ok(())
    }

    /// The open file of a descriptor, if it belongs to the store.
    fn opened(&self, call: &Call, at: usize) -> anyhow::Result<Option<Opened>> {
        let Some((number, path)) = call.descriptor(at) else { return Ok(None) };
        let opened = self.open.get(&number);
        ensure!(opened.is_some() || !self.in_store(&path), "{path} was opened by nobody");
        ensure!(opened.is_none() || self.in_store(&path), "the descriptor of {path} was never closed");
        Ok(opened.cloned())
    }

    fn write(&mut self, call: &Call) -> anyhow::Result<()> {
        if call.descriptor(0).is_some_and(|(_, path)| path == self.ground.facts.to_string_lossy()) {
            let text = String::from_utf8(call.bytes(1)?)?;
            let line = text.strip_suffix('\n').context("half a fact")?;
            self.history.facts.push((call.begin, line.to_owned()));
            self.history.moments.push(call.begin);
            return Ok(());
        }
        if let Some(opened) = self.opened(call, 0)? {
            let len = self.lengths.get(&opened.node).copied().unwrap_or_default();
            let at = if opened.append { len } else { self.places[opened.place] };
            self.places[opened.place] = at + u64::try_from(call.result)?;
            self.put(call, opened.node, at, call.bytes(1)?)?;
        }
        Ok(())
    }

    /// As much of the bytes as the call has taken.
    fn put(&mut self, call: &Call, node: usize, at: u64, mut bytes: Vec<u8>) -> anyhow::Result<()> {
        bytes.truncate(usize::try_from(call.result)?);
        let len = self.lengths.entry(node).or_default();
        *len = (*len).max(at + bytes.len() as u64);
        self.op(call, node, What::Write { at, bytes });
        Ok(())
    }

    /// A sync makes durable what had returned before it began. Of a folder that is its names, of a file its bytes.
    fn synced(&mut self, call: &Call) -> anyhow::Result<()> {
        let Some(opened) = self.opened(call, 0)? else { return Ok(()) };
        for op in self.history.ops.iter_mut().filter(|op| op.end < call.begin && op.durable == NEVER) {
            if let Some(synced) = op.needs.get_mut(&opened.node).filter(|synced| **synced == NEVER) {
                *synced = call.end;
                op.settle();
            }
        }
        self.history.moments.push(call.end);
        *self.history.calls.entry(call.name.clone()).or_default() += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::super::state::{Builder, Kind, State};
    use super::*;
    use crate::crash::cli::{DurabilityChoice, StoreChoice};
    use crate::crash::trace;

    /// The history of a trace in which `<a>` are paths and `'a'` texts, in letters.
    fn history(trace: &str) -> anyhow::Result<History> {
        history_after(Start::sound(Tree::new()), trace)
    }

    fn history_after(start: Start, trace: &str) -> anyhow::Result<History> {
        let own = [("<unfinished ...>", "\u{1}"), ("<... ", "\u{2}"), ("resumed>", "\u{3}")];
        let marked = own.iter().fold(trace.to_owned(), |text, (word, mark)| text.replace(word, mark));
        let (mut text, mut quoted) = (String::new(), false);
        for char in marked.chars() {
            match char {
                '\'' => text.push('"'),
                '<' | '>' => text.push(char),
                other if quoted => text.push_str(&format!("\\x{:02x}", u32::from(other))),
                other => text.push(other),
            }
            quoted ^= matches!(char, '\'' | '<' | '>');
        }
        let text = own.iter().fold(text, |text, (word, mark)| text.replace(mark, word));
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), text)?;
        let dir = PathBuf::from("/r/disk/kv");
        let ground = Ground::under(Path::new("/r"), dir, StoreChoice::Sled, DurabilityChoice::Power);
        History::of(&trace::read(file.path())?, &ground, start)
    }

    const MADE: &str = "7 mkdir('/r/disk/kv', 0700) = 0\n\
        7 openat(AT_FDCWD</>, '/r/disk/kv/a', O_RDWR|O_CREAT, 0600) = 5</r/disk/kv/a>\n";

    fn after(trace: &str, kind: Kind) -> Tree {
        let history = history(&format!("{MADE}{trace}")).unwrap();
        Builder::new(&history).build(&State { moment: NEVER - 1, kind, seed: 1 }).unwrap()
    }

    #[test]
    fn a_file_is_safe_when_its_bytes_and_all_its_names_are_synced() {
        let bytes = "7 write(5</r/disk/kv/a>, 'abc', 3) = 3\n7 fdatasync(5</r/disk/kv/a>) = 0\n";
        let folder = |path: &str| {
            format!(
                "7 openat(AT_FDCWD</>, '{path}', O_RDONLY) = 6<{path}>\n7 fsync(6<{path}>) = 0\n7 close(6<{path}>) = 0\n"
            )
        };
        assert_eq!(after(bytes, Kind::Dropped), Tree::new(), "no name");
        let half = format!("{bytes}{}", folder("/r/disk"));
        assert_eq!(after(&half, Kind::Dropped).len(), 1, "the folder alone");
        let whole = format!("{half}{}", folder("/r/disk/kv"));
        let tree = after(&whole, Kind::Dropped);
        assert_eq!(tree["kv/a"].as_ref().unwrap().len, 3);
        assert_eq!(tree, after(&whole, Kind::Kept));
    }

    #[test]
    fn a_sync_takes_in_only_what_had_returned_when_it_began() {
        let trace = "7 write(5</r/disk/kv/a>, 'abc', 3) = 3\n\
            7 pwrite64(5</r/disk/kv/a>, 'd', 1, 9 <unfinished ...>\n\
            8 fsync(5</r/disk/kv/a> <unfinished ...>\n\
            7 <... pwrite64 resumed>) = 1\n\
            8 <... fsync resumed>) = 0\n\
            7 sync_file_range(5</r/disk/kv/a>, 0, 0, 7) = 0\n";
        let history = history(&format!("{MADE}{trace}")).unwrap();
        let durable = |at| history.ops.iter().find(|op| op.begin == at).unwrap().durable;
        assert_eq!((durable(2), durable(3)), (6, NEVER));
    }

    #[test]
    fn what_a_killed_process_wrote_is_durable_when_the_next_one_has_synced_it() {
        let folder = |path: &str| {
            format!(
                "7 openat(AT_FDCWD</>, '{path}', O_RDONLY) = 6<{path}>\n7 fsync(6<{path}>) = 0\n7 close(6<{path}>) = 0\n"
            )
        };
        let (above, kv) = (folder("/r/disk"), folder("/r/disk/kv"));
        let killed = format!(
            "{MADE}{above}{kv}7 write(5</r/disk/kv/a>, 'abc', 3) = 3\n7 fdatasync(5</r/disk/kv/a>) = 0\n\
             7 write(5</r/disk/kv/a>, 'def', 3) = 3\n7 fdatasync(5</r/disk/kv/a>) = 0\n"
        );
        let killed = history(&killed).unwrap();
        let moment = killed.ops.last().unwrap().end;
        let start = || Start::after(&killed, moment);
        let opened = "8 openat(AT_FDCWD</>, '/r/disk/kv/a', O_RDWR) = 4</r/disk/kv/a>\n";
        let length = |trace: &str, kind| {
            let history = history_after(start(), trace).unwrap();
            let tree = Builder::new(&history).build(&State { moment: NEVER - 1, kind, seed: 1 }).unwrap();
            tree["kv/a"].as_ref().unwrap().len
        };
        assert_eq!(length(opened, Kind::Kept), 6);
        assert_eq!(length(opened, Kind::Dropped), 3, "the sync came after the kill");
        let synced = format!("8 getpid() = 8\n{opened}8 fdatasync(4</r/disk/kv/a>) = 0\n");
        assert_eq!(length(&synced, Kind::Dropped), 6);
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        for line in [
            "7 mmap(NULL, 4096, PROT_READ|PROT_WRITE, MAP_SHARED, 5</r/disk/kv/a>, 0) = 0x7f00",
            "7 fallocate(5</r/disk/kv/a>, 0, 0, 4096) = 0",
            "7 pwritev(5</r/disk/kv/a>, [], 0, 0) = 0",
            "7 link('/r/disk/kv/a', '/r/disk/kv/b') = 0",
            "7 write(9</r/disk/kv/b>, 'x', 1) = 1",
            "7 openat(AT_FDCWD</>, '/r/disk/kv/b', O_RDWR) = 6</r/disk/kv/b>",
            "7 io_uring_setup(8, 0x7f00) = 6",
        ] {
            let error = history(&format!("{MADE}{line}\n")).err();
            assert!(error.is_some(), "{line}");
        }
        history(&format!("{MADE}7 mmap(NULL, 9, PROT_READ, MAP_PRIVATE, 3</lib>, 0) = 0x7f00\n")).unwrap();
    }
}
