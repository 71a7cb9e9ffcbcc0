//! Files and folders in memory, and on a real disk.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, ensure};

use super::history::ABOVE;

/// The bytes of a file. Behind them, up to the length, are zeros: fjall begins a journal with 64 MiB of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Content {
    bytes: Vec<u8>,
    pub(super) len: u64,
}

/// Something that a name can lead to.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Folder,
    File(Content),
}

/// Which node a name in a folder leads to.
pub(super) type Names = BTreeMap<(usize, String), usize>;

impl Content {
    pub(super) fn write(&mut self, at: u64, bytes: &[u8]) -> anyhow::Result<()> {
        let from = usize::try_from(at)?;
        let end = from + bytes.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[from..end].copy_from_slice(bytes);
        self.len = self.len.max(end as u64);
        Ok(())
    }

    pub(super) fn set_len(&mut self, len: u64) -> anyhow::Result<()> {
        self.bytes.truncate(usize::try_from(len)?);
        self.len = len;
        Ok(())
    }

    /// Longer, with zeros.
    pub(super) fn reach(&mut self, end: u64) {
        self.len = self.len.max(end);
    }

    fn read(path: &Path) -> std::io::Result<Self> {
        let mut bytes = fs::read(path)?;
        let len = bytes.len() as u64;
        bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1));
        Ok(Self { bytes, len })
    }

    fn put(&self, path: &Path) -> std::io::Result<()> {
        let file = File::create(path)?;
        file.write_all_at(&self.bytes, 0)?;
        if self.len > self.bytes.len() as u64 { file.set_len(self.len) } else { Ok(()) }
    }

    /// Without the zeros at the end, so that equal files are equal.
    fn trimmed(&self) -> (&[u8], u64) {
        let used = self.bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
        (&self.bytes[..used], self.len)
    }
}

/// A whole folder: its files and folders, each with the path below it. A folder comes before what is in it.
pub(super) type Tree = BTreeMap<String, Option<Content>>;

/// Puts a tree into a folder, which is there and empty.
pub(super) fn put(tree: &Tree, folder: &Path) -> anyhow::Result<()> {
    for (name, content) in tree {
        let path = folder.join(name);
        match content {
            None => fs::create_dir(&path),
            Some(content) => content.put(&path),
        }
        .with_context(|| format!("cannot make {}", path.display()))?;
    }
    Ok(())
}

/// The tree in a folder: of `store`, and nothing else that is beside it.
pub(super) fn read(folder: &Path, store: &Path) -> anyhow::Result<Tree> {
    let mut tree = Tree::new();
    if store.exists() {
        read_below(folder, store, &mut tree)?;
    }
    Ok(tree)
}

fn read_below(folder: &Path, path: &Path, tree: &mut Tree) -> anyhow::Result<()> {
    let name = path.strip_prefix(folder)?.to_string_lossy().into_owned();
    if !path.is_dir() {
        tree.insert(name, Some(Content::read(path)?));
        return Ok(());
    }
    tree.insert(name, None);
    for entry in fs::read_dir(path)? {
        read_below(folder, &entry?.path(), tree)?;
    }
    Ok(())
}

/// Numbers for the files and folders of a tree. The folder above the store is the first.
pub(super) fn number(tree: Tree) -> (Vec<Node>, Names) {
    let (mut nodes, mut names) = (vec![Node::Folder], Names::new());
    let mut folders = BTreeMap::from([(String::new(), ABOVE)]);
    for (path, content) in tree {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", &path));
        names.insert((folders[folder], name.to_owned()), nodes.len());
        if content.is_none() {
            folders.insert(path.clone(), nodes.len());
        }
        nodes.push(content.map_or(Node::Folder, Node::File));
    }
    (nodes, names)
}

/// An error that names the first difference.
pub(super) fn compare(expected: &Tree, found: &Tree) -> anyhow::Result<()> {
    for name in expected.keys().chain(found.keys()) {
        let same = match (expected.get(name), found.get(name)) {
            (Some(Some(one)), Some(Some(other))) => one.trimmed() == other.trimmed(),
            (Some(None), Some(None)) => true,
            _ => false,
        };
        ensure!(same, "{name} is not what the trace says");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_put_read_and_numbered() {
        let folder = tempfile::tempdir().unwrap();
        let mut content = Content::default();
        content.write(3, b"abc").unwrap();
        content.reach(100_000);
        let tree = Tree::from([
            ("kv".to_owned(), None),
            ("kv/sub".to_owned(), None),
            ("kv/sub/file".to_owned(), Some(content)),
        ]);
        put(&tree, folder.path()).unwrap();
        fs::write(folder.path().join("beside"), b"").unwrap();
        let mut found = read(folder.path(), &folder.path().join("kv")).unwrap();
        compare(&tree, &found).unwrap();
        let (nodes, names) = number(found.clone());
        assert_eq!(nodes.len(), 4);
        let kv = names[&(ABOVE, "kv".to_owned())];
        assert!(names.contains_key(&(names[&(kv, "sub".to_owned())], "file".to_owned())));
        found.insert("kv/other".to_owned(), None);
        assert!(compare(&tree, &found).is_err());
    }
}
