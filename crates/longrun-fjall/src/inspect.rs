//! What fjall does not look at when it opens a database.
//!
//! It cuts a journal at the first entry that it cannot read, goes on with the next journal, and says nothing; it deletes
//! a table whose `current` file is gone, and every table if that of its own table of tables is; it trusts the list of a
//! table's files without looking at its checksum, and deletes files that are not in it. So:
//!
//! - every table must have its `current`, and the list that it names must have the checksum that it tells;
//! - the numbers of the journals must have no gap;
//! - a journal that is not the newest must not get shorter than the bytes that were written to it.
//!
//! If the newest journal gets shorter, that may be what a crash left of the batch that was being written. Then the number
//! of batches decides, see [`longrun_folder`].

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use longrun_folder::OpenError;
use xxhash_rust::xxh3::xxh3_128;

/// Tells later opens that a journal was cut, since nothing else would.
const CUT: &str = "longrun.cut";
/// How much is read at once.
const CHUNK: u64 = 64 << 10;

/// The journals as they were before fjall had its hands on them.
pub(crate) struct Journals {
    sealed: Vec<Sealed>,
}

/// A journal that is complete. Kept open: fjall removes it when all that it holds is in tables.
struct Sealed {
    path: PathBuf,
    file: File,
    written: u64,
}

impl Journals {
    pub(crate) fn before_open(place: &Path) -> Result<Self, OpenError> {
        let cut = place.join(CUT);
        if let Ok(what) = fs::read_to_string(&cut) {
            return Err(OpenError::corrupt(place, what));
        }
        // Without it fjall would make a new database around what is there.
        read(&place.join("version"))?;
        check_tables(place)?;
        let mut journals = journals(place)?;
        // The newest is the one that is written to.
        journals.pop();
        let sealed = journals.into_iter().map(|path| {
            let file = File::open(&path).map_err(OpenError::io("open", &path))?;
            let written = written(&file).map_err(OpenError::io("read", &path))?;
            Ok(Sealed { path, file, written })
        });
        Ok(Self { sealed: sealed.collect::<Result<_, OpenError>>()? })
    }

    pub(crate) fn after_open(self, place: &Path) -> Result<(), OpenError> {
        for Sealed { path, file, written } in self.sealed {
            let left = file.metadata().map_err(OpenError::io("look at", &path))?.len();
            if left < written {
                let what = format!(
                    "the journal {} has an entry that cannot be read: of its {written} bytes {left} are left",
                    path.display()
                );
                let cut = place.join(CUT);
                fs::write(&cut, &what)
                    .and_then(|()| File::open(&cut)?.sync_all())
                    .and_then(|()| File::open(place)?.sync_all())
                    .map_err(OpenError::io("write", &cut))?;
                return Err(OpenError::corrupt(place, what));
            }
        }
        Ok(())
    }
}

/// What was cut is taken for lost.
pub(crate) fn forget_cut(place: &Path) -> Result<(), OpenError> {
    let cut = place.join(CUT);
    match fs::remove_file(&cut) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(OpenError::io("remove", &cut)(error)),
        _ => Ok(()),
    }
}

/// The journals, oldest first.
fn journals(place: &Path) -> Result<Vec<PathBuf>, OpenError> {
    let entries = fs::read_dir(place).map_err(OpenError::io("list", place))?;
    let mut numbers = Vec::new();
    for entry in entries {
        let name = entry.map_err(OpenError::io("list", place))?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".jnl"));
        numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    if numbers.is_empty() {
        return Err(OpenError::corrupt(place, "it has no journal"));
    }
    let mut neighbours = numbers.iter().zip(numbers.iter().skip(1));
    if let Some((before, after)) = neighbours.find(|(before, after)| *after - *before != 1) {
        let what = format!("there is no journal between {before}.jnl and {after}.jnl");
        return Err(OpenError::corrupt(place, what));
    }
    Ok(numbers.into_iter().map(|number| place.join(format!("{number}.jnl"))).collect())
}

/// The length of a journal without the zeros at its end, which are space that was set aside.
fn written(file: &File) -> io::Result<u64> {
    let mut end = file.metadata()?.len();
    while end > 0 {
        let begin = end.saturating_sub(CHUNK);
        let mut bytes = vec![0; usize::try_from(end - begin).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, begin)?;
        if let Some(at) = bytes.iter().rposition(|byte| *byte != 0) {
            return Ok(begin + at as u64 + 1);
        }
        end = begin;
    }
    Ok(0)
}

fn check_tables(place: &Path) -> Result<(), OpenError> {
    let folder = place.join("keyspaces");
    // fjall's own table of tables.
    check_table(&folder.join("0"))?;
    for entry in fs::read_dir(&folder).map_err(OpenError::io("list", &folder))? {
        let path = entry.map_err(OpenError::io("list", &folder))?.path();
        if path.is_dir() {
            check_table(&path)?;
        }
    }
    Ok(())
}

/// `current` is the number of the list that counts, its checksum, and the kind of the checksum.
fn check_table(table: &Path) -> Result<(), OpenError> {
    let current = table.join("current");
    let bytes = read(&current)?;
    let parts = bytes.split_first_chunk().and_then(|(number, rest)| {
        let (checksum, kind) = rest.split_first_chunk()?;
        (kind == [0]).then_some((u64::from_le_bytes(*number), u128::from_le_bytes(*checksum)))
    });
    let Some((number, checksum)) = parts else {
        return Err(OpenError::corrupt(&current, "it is not what fjall writes"));
    };
    let list = table.join(format!("v{number}"));
    if xxh3_128(&read(&list)?) != checksum {
        return Err(OpenError::corrupt(&list, "its checksum is wrong"));
    }
    Ok(())
}

/// Reads a file that has to be there.
fn read(path: &Path) -> Result<Vec<u8>, OpenError> {
    fs::read(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => OpenError::damaged(path, "it is missing", error),
        _ => OpenError::io("read", path)(error),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tempfile::tempdir;

    use super::*;

    fn assert_damage(found: Result<(), OpenError>, what: &str) {
        let error = found.unwrap_err();
        assert!(matches!(error, OpenError::Corrupt { .. }) && error.to_string().contains(what), "{error}");
    }

    #[test]
    fn s15_journals_have_an_order_and_no_gap() {
        let folder = tempdir().unwrap();
        let place = folder.path();
        let found = || journals(place).map(|_| ());
        assert_damage(found(), "no journal");
        for name in ["10.jnl", "9.jnl", "8.jnl", "other.jnl", "7", "lock"] {
            fs::write(place.join(name), "").unwrap();
        }
        assert_eq!(journals(place).unwrap(), ["8.jnl", "9.jnl", "10.jnl"].map(|name| place.join(name)));
        fs::write(place.join("12.jnl"), "").unwrap();
        assert_damage(found(), "no journal between 10.jnl and 12.jnl");
    }

    #[test]
    fn a_journal_is_written_up_to_its_last_byte_that_is_not_zero() {
        let folder = tempdir().unwrap();
        let path = folder.path().join("0.jnl");
        let chunk = usize::try_from(CHUNK).unwrap();
        for (bytes, zeros) in
            [(0, 0), (0, 3 * chunk), (5, 0), (5, 7), (chunk, chunk), (chunk + 1, 2 * chunk - 1)]
        {
            fs::write(&path, [vec![1; bytes], vec![0; zeros]].concat()).unwrap();
            assert_eq!(written(&File::open(&path).unwrap()).unwrap(), bytes as u64, "{bytes}, {zeros}");
        }
    }

    /// Any but the newest is sealed, which is still written to.
    #[test]
    fn s15_a_sealed_journal_that_gets_shorter_is_damage_from_then_on() {
        let folder = tempdir().unwrap();
        let place = folder.path();
        fs::write(place.join("version"), "").unwrap();
        table(&place.join("keyspaces/0"));
        for name in ["0.jnl", "1.jnl"] {
            fs::write(place.join(name), [1, 2, 3, 0, 0]).unwrap();
        }
        let open = |cut: &str, to: u64| {
            let before = Journals::before_open(place)?;
            File::options().write(true).open(place.join(cut)).unwrap().set_len(to).unwrap();
            before.after_open(place)
        };
        open("1.jnl", 0).unwrap();
        open("0.jnl", 3).unwrap();
        assert_damage(open("0.jnl", 2), "of its 3 bytes 2 are left");
        // It is told again, though nothing gets shorter any more.
        assert_damage(open("0.jnl", 2), "of its 3 bytes 2 are left");
        forget_cut(place).unwrap();
        // Nothing to forget is no error.
        forget_cut(place).unwrap();
        open("0.jnl", 2).unwrap();
        // What cannot be forgotten would be told again.
        fs::create_dir(place.join(CUT)).unwrap();
        assert!(matches!(forget_cut(place), Err(OpenError::Io { .. })));
    }

    /// A table as fjall leaves it: a list with its number and its checksum.
    fn table(path: &Path) {
        fs::create_dir_all(path).unwrap();
        fs::write(path.join("v7"), "the list").unwrap();
        let checksum = xxh3_128(b"the list").to_le_bytes();
        fs::write(path.join("current"), [&7_u64.to_le_bytes()[..], &checksum, &[0]].concat()).unwrap();
    }

    #[test]
    fn s15_a_table_without_its_list_or_with_another_is_damage() {
        let folder = tempdir().unwrap();
        let tables = folder.path().join("keyspaces");
        let (own, other) = (tables.join("0"), tables.join("1"));
        let anew = || {
            _ = fs::remove_dir_all(&tables);
            table(&own);
            table(&other);
        };
        anew();
        check_tables(folder.path()).unwrap();
        for table in [&own, &other] {
            let (current, list) = (table.join("current"), table.join("v7"));
            fs::write(&list, "the List").unwrap();
            assert_damage(check_tables(folder.path()), "its checksum is wrong");
            fs::remove_file(&list).unwrap();
            assert_damage(check_tables(folder.path()), "it is missing");
            anew();
            let sound = fs::read(&current).unwrap();
            for bytes in [&sound[..24], &[&sound[..24], &[1]].concat(), &[&sound[..], &[0]].concat(), &[]] {
                fs::write(&current, bytes).unwrap();
                assert_damage(check_tables(folder.path()), "not what fjall writes");
            }
            fs::remove_file(&current).unwrap();
            assert_damage(check_tables(folder.path()), "it is missing");
            anew();
        }
        // Its own table of tables must be there whatever else is.
        fs::remove_dir_all(&own).unwrap();
        assert_damage(check_tables(folder.path()), "it is missing");
    }
}
