//! The rules that every engine in a folder has to keep, beyond the contract of [`Kv`]: run by
//! [`folder_rules!`](crate::folder_rules).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use longrun_store::{Batch, Direction, Durability, KeyRange, Kv, KvError, Table};
use tempfile::{TempDir, tempdir, tempdir_in};

use crate::engine::Engine;
use crate::error::{BatchTooLarge, OpenError};
use crate::files::LOCK;
use crate::kv::FolderKv;
use crate::limits::{BATCH_BYTES_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::options::FolderOptions;
use crate::record::{FORMAT, TAIL};

mod syncs;

pub use syncs::{
    a_commit_syncs_exactly_if_it_is_to_survive_a_loss_of_power, commit_and_mark, strace_is_missing,
};

/// Makes the options of an engine of those of its folder. Small memory, so that little data is enough to write all kinds
/// of files.
pub type MakeOptions<E> = fn(FolderOptions) -> <E as Engine>::Options;

const BATCHES: u64 = 400;
/// Places in each file that are flipped or cut.
const PLACES: u64 = 10;
/// Files that are flipped or cut; of more, every so many-th is.
const FILES: usize = 20;
/// Tells another process its folder. The program `longrun` has a `LONGRUN_FOLDER` of its own.
const CHILD: &str = "LONGRUN_RULES_FOLDER";

fn open<E: Engine>(path: &Path, options: MakeOptions<E>) -> Result<FolderKv<E>, OpenError> {
    FolderKv::open(path, options(FolderOptions::default()))
}

fn accepting<E: Engine>(path: &Path, options: MakeOptions<E>) -> FolderKv<E> {
    FolderKv::open(path, options(FolderOptions::default().accept_loss(true))).unwrap()
}

/// In memory where there is such a file system: what is looked at here does not depend on a disk, and each open syncs.
fn new_folder() -> TempDir {
    tempdir_in("/dev/shm").or_else(|_| tempdir()).unwrap()
}

/// Batch number `n` of a writer: one entry of its own and one that each batch overwrites, in two tables.
fn batch(n: u64) -> Batch {
    let mut batch = Batch::default();
    batch.put(Table::Operations, n.to_be_bytes().to_vec(), value(n));
    batch.put(Table::Due, b"last".to_vec(), n.to_be_bytes().to_vec());
    batch
}

/// Some kilobytes that do not compress to nothing.
fn value(n: u64) -> Vec<u8> {
    let mut state = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..700).flat_map(|_| next()).collect()
}

fn write<E: Engine>(kv: &FolderKv<E>, numbers: std::ops::Range<u64>) {
    numbers.for_each(|n| kv.commit(&batch(n)).unwrap());
}

/// True when exactly the batches `0..count` are there; false on an error of a reading.
fn holds<E: Engine>(kv: &FolderKv<E>, count: u64) -> bool {
    let Ok(found) = kv.scan(Table::Operations, &KeyRange::prefix(b""), Direction::Forward, usize::MAX) else {
        return false;
    };
    let expected = (0..count).map(|n| (n.to_be_bytes().to_vec(), value(n)));
    assert!(found.into_iter().eq(expected), "a smaller or changed set was shown");
    let Ok(last) = kv.get(Table::Due, b"last") else { return false };
    assert_eq!(
        last,
        count.checked_sub(1).map(|n| n.to_be_bytes().to_vec()),
        "the last batch is not the last"
    );
    true
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Closing, reopening and dying keep everything.
pub fn close_reopen_and_kill_keep_everything<E: Engine>(options: MakeOptions<E>, module: &str) {
    let folder = new_folder();
    let kv = open::<E>(folder.path(), options).unwrap();
    write(&kv, 0..100);
    kv.reopen().unwrap();
    assert!(holds(&kv, 100));
    write(&kv, 100..101);
    drop(kv);
    let kv = open::<E>(folder.path(), options).unwrap();
    assert!(holds(&kv, 101));
    write(&kv, 101..102);
    let stats = kv.stats();
    assert_eq!(stats.batches, 1);
    assert!(stats.bytes > 5000 && stats.disk_bytes > 0);

    let killed = written::<E>(options, Ending::Killed, module);
    assert!(holds(&open::<E>(killed.path(), options).unwrap(), BATCHES));
}

/// The weaker durability is told, and keeps everything when the process ends.
pub fn process_crash_durability_keeps_everything<E: Engine>(options: MakeOptions<E>, _: &str) {
    let folder = new_folder();
    let weaker = || options(FolderOptions::default().durability(Durability::Volatile));
    let kv = FolderKv::<E>::open(folder.path(), weaker()).unwrap();
    assert_eq!(kv.capabilities().durability, Durability::ProcessCrash);
    write(&kv, 0..50);
    kv.reopen().unwrap();
    assert!(holds(&kv, 50));
    drop(kv);
    assert!(holds(&open::<E>(folder.path(), options).unwrap(), 50));
}

/// A second handle is refused, in this process and in another; when the first is gone it is given.
pub fn a_second_handle_is_refused<E: Engine>(options: MakeOptions<E>, module: &str) {
    let folder = new_folder();
    let kv = open::<E>(folder.path(), options).unwrap();
    let error = open::<E>(folder.path(), options).err().unwrap();
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    assert!(error.to_string().contains(folder.path().to_str().unwrap()));
    kv.reopen().unwrap();

    let output = another_process(module, "open_in_another_process", folder.path());
    assert!(String::from_utf8_lossy(&output.stdout).contains("LOCKED"), "{output:?}");
    drop(kv);
    let output = another_process(module, "open_in_another_process", folder.path());
    assert!(String::from_utf8_lossy(&output.stdout).contains("OPENED"), "{output:?}");
}

/// What a test of a module is called on the command line: without the name of the crate.
fn test_name(module: &str, name: &str) -> String {
    let module = module.split_once("::").map_or(String::new(), |(_, module)| format!("{module}::"));
    format!("{module}{name}")
}

fn another_process(module: &str, name: &str, folder: &Path) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &test_name(module, name), "--ignored", "--nocapture"]);
    command.env(CHILD, folder).stdin(Stdio::null()).output().unwrap()
}

/// The other process.
pub fn open_in_another_process<E: Engine>(options: MakeOptions<E>) {
    let folder = PathBuf::from(std::env::var_os(CHILD).expect("run by another test"));
    match open::<E>(&folder, options) {
        Ok(_) => println!("OPENED"),
        Err(OpenError::Locked { .. }) => println!("LOCKED"),
        Err(other) => panic!("{other}"),
    }
}

/// The other process, which writes and dies.
pub fn write_and_die<E: Engine>(options: MakeOptions<E>) {
    let folder = PathBuf::from(std::env::var_os(CHILD).expect("run by another test"));
    let kv = open::<E>(&folder, options).unwrap();
    write(&kv, 0..BATCHES);
    std::process::abort();
}

/// What a kill in the midst of the first open left is no hindrance.
pub fn an_unfinished_creation_is_begun_anew<E: Engine>(options: MakeOptions<E>, _: &str) {
    let folder = new_folder();
    let kv = open::<E>(folder.path(), options).unwrap();
    drop(kv);
    let [place, new] =
        [E::PLACE.to_owned(), format!("{}.new", E::PLACE)].map(|name| folder.path().join(name));
    fs::rename(&place, &new).unwrap();
    for file in files(&new) {
        fs::write(file, b"partial").unwrap();
    }
    let kv = open::<E>(folder.path(), options).unwrap();
    write(&kv, 0..3);
    assert!(holds(&kv, 3));
    assert!(!new.exists());
}

/// Only this user can look into the folder, and the folders above are made.
pub fn the_folder_is_private<E: Engine>(options: MakeOptions<E>, _: &str) {
    let parent = new_folder();
    let folder = parent.path().join("a/b");
    let _kv = open::<E>(&folder, options).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    assert_eq!(mode(&folder.join(TAIL)), 0o600);
    assert_eq!(mode(&folder.join(LOCK)), 0o600);
}

/// What is too large is refused as not applied, and the engine goes on.
pub fn too_large_is_not_applied<E: Engine>(options: MakeOptions<E>, _: &str) {
    let folder = new_folder();
    let kv = open::<E>(folder.path(), options).unwrap();
    let refused = |key: usize, value: usize, times: u8| {
        let mut batch = Batch::default();
        (0..times).for_each(|n| batch.put(Table::Operations, vec![n; key], vec![0; value]));
        match kv.commit(&batch) {
            Err(KvError::NotApplied(cause)) => *cause.downcast::<BatchTooLarge>().unwrap(),
            other => panic!("{other:?}"),
        }
    };
    assert!(matches!(refused(KEY_BYTES_MAX + 1, 0, 1), BatchTooLarge::Key { .. }));
    assert!(matches!(refused(1, VALUE_BYTES_MAX + 1, 1), BatchTooLarge::Value { .. }));
    assert!(matches!(refused(1, VALUE_BYTES_MAX, 4), BatchTooLarge::Batch { .. }));
    write(&kv, 0..1);
    assert!(holds(&kv, 1));
}

/// The largest keys, values and batches are kept, and take each other's place.
pub fn the_largest_batches_are_kept<E: Engine>(options: MakeOptions<E>, _: &str) {
    let folder = new_folder();
    let kv = open::<E>(folder.path(), options).unwrap();
    let key = |n: u8| vec![n; KEY_BYTES_MAX];
    let rest = BATCH_BYTES_MAX - 4 * KEY_BYTES_MAX - 3 * VALUE_BYTES_MAX;
    for round in 0..8u8 {
        let mut batch = Batch::default();
        (0..3).for_each(|n| batch.put(Table::Journal, key(n), vec![round; VALUE_BYTES_MAX]));
        batch.put(Table::Resources, key(9), vec![round; rest]);
        assert_eq!(batch.byte_len(), BATCH_BYTES_MAX);
        kv.commit(&batch).unwrap();
        if round % 3 == 2 {
            kv.reopen().unwrap();
        }
    }
    let kept = |kv: &FolderKv<E>| {
        (0..3).for_each(|n| {
            assert!(kv.get(Table::Journal, &key(n)).unwrap().unwrap() == vec![7; VALUE_BYTES_MAX]);
        });
        assert!(kv.get(Table::Resources, &key(9)).unwrap().unwrap() == vec![7; rest]);
    };
    kept(&kv);
    drop(kv);
    kept(&open::<E>(folder.path(), options).unwrap());
}

/// While the disk is as good as full, commits are refused as not applied, with the cause, and readings go on.
pub fn a_full_disk_is_not_applied_and_readings_go_on<E: Engine>(options: MakeOptions<E>, _: &str) {
    let folder = new_folder();
    let kv = open::<E>(folder.path(), options).unwrap();
    write(&kv, 0..10);
    drop(kv);
    let greedy = options(FolderOptions::default().reserve_bytes(1 << 60));
    let kv = FolderKv::<E>::open(folder.path(), greedy).unwrap();
    let Err(KvError::NotApplied(cause)) = kv.commit(&batch(10)) else { panic!("it was taken") };
    assert_eq!(cause.downcast_ref::<io::Error>().unwrap().kind(), io::ErrorKind::StorageFull);
    assert!(holds(&kv, 10));
}

/// A database that is gone is not taken for one that never was.
pub fn a_missing_database_is_refused<E: Engine>(options: MakeOptions<E>, module: &str) {
    let folder = written::<E>(options, Ending::Closed, module);
    crate::files::remove(&folder.path().join(E::PLACE)).unwrap();
    match open::<E>(folder.path(), options).err() {
        Some(OpenError::Truncated { expected: BATCHES, found: 0, .. }) => {}
        other => panic!("{other:?}"),
    }
    assert!(holds(&accepting::<E>(folder.path(), options), 0));
    assert!(holds(&open::<E>(folder.path(), options).unwrap(), 0));
}

/// A database that was replaced by an older copy is refused, unless the loss is accepted.
pub fn an_older_database_is_refused<E: Engine>(options: MakeOptions<E>, _: &str) {
    let (folder, older) = (new_folder(), new_folder());
    let kv = open::<E>(folder.path(), options).unwrap();
    write(&kv, 0..20);
    drop(kv);
    copy(folder.path(), older.path());
    let kv = open::<E>(folder.path(), options).unwrap();
    write(&kv, 20..21);
    drop(kv);
    let place = folder.path().join(E::PLACE);
    crate::files::remove(&place).unwrap();
    fs::rename(older.path().join(E::PLACE), place).unwrap();
    for _ in 0..2 {
        match open::<E>(folder.path(), options).err() {
            Some(OpenError::Truncated { expected: 21, found: 20, .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(holds(&accepting::<E>(folder.path(), options), 20));
    assert!(holds(&open::<E>(folder.path(), options).unwrap(), 20));
}

/// The tail is a hint: without it, or with one that is damaged, the database opens. One of a later format does not.
pub fn the_tail_is_a_hint<E: Engine>(options: MakeOptions<E>, _: &str) {
    let folder = new_folder();
    let kv = open::<E>(folder.path(), options).unwrap();
    write(&kv, 0..5);
    drop(kv);
    let tail = folder.path().join(TAIL);
    fs::write(&tail, b"damaged").unwrap();
    assert!(holds(&open::<E>(folder.path(), options).unwrap(), 5));
    fs::remove_file(&tail).unwrap();
    assert!(holds(&open::<E>(folder.path(), options).unwrap(), 5));
    let mut later = b"longrun\n".to_vec();
    later.extend_from_slice(&(FORMAT + 1).to_le_bytes());
    later.extend_from_slice(&crc32c::crc32c(&later).to_le_bytes());
    fs::write(&tail, &later).unwrap();
    let error = open::<E>(folder.path(), options).err().unwrap();
    assert!(matches!(error, OpenError::FutureFormat { found, .. } if found == FORMAT + 1), "{error}");
    assert_eq!(fs::read(&tail).unwrap(), later, "it was changed");
}

/// How the writer of a damaged folder ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Killed,
    /// Closed, and opened and closed once more.
    Closed,
}

fn written<E: Engine>(options: MakeOptions<E>, ending: Ending, module: &str) -> TempDir {
    let folder = new_folder();
    match ending {
        Ending::Killed => {
            let output = another_process(module, "write_and_die", folder.path());
            assert!(!output.status.success() && folder.path().join(TAIL).exists(), "{output:?}");
        }
        Ending::Closed => {
            let kv = open::<E>(folder.path(), options).unwrap();
            write(&kv, 0..BATCHES);
            drop(kv);
            drop(open::<E>(folder.path(), options).unwrap());
        }
    }
    folder
}

fn files(place: &Path) -> Vec<PathBuf> {
    if place.is_file() {
        return vec![place.to_path_buf()];
    }
    let mut found: Vec<PathBuf> =
        fs::read_dir(place).unwrap().flat_map(|entry| files(&entry.unwrap().path())).collect();
    found.sort();
    found
}

/// How often what was found.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    refused: u64,
    unreadable: u64,
    whole: u64,
}

/// Damages a copy of `original` and looks at it twice, as the first look may have repaired what it should not.
fn look<E: Engine>(options: MakeOptions<E>, original: &Path, seen: &mut Seen, damage: impl FnOnce(&Path)) {
    let folder = new_folder();
    copy(original, folder.path());
    damage(folder.path());
    for _ in 0..2 {
        match open::<E>(folder.path(), options) {
            Err(OpenError::Truncated { .. } | OpenError::Corrupt { .. }) => seen.refused += 1,
            Err(other) => panic!("{other:?}"),
            Ok(kv) if holds(&kv, BATCHES) => seen.whole += 1,
            Ok(_) => seen.unreadable += 1,
        }
    }
}

/// The places of a file: spread over what was written to it, and at its end.
fn places(path: &Path) -> Vec<u64> {
    let bytes = fs::read(path).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at as u64 + 1);
    let mut places: Vec<u64> = (0..PLACES).map(|part| used * part / PLACES).collect();
    places.extend([1, 20, 300, 3000].into_iter().filter_map(|back| used.checked_sub(back)));
    places.retain(|at| *at < used);
    places.sort_unstable();
    places.dedup();
    places
}

/// A bit that is flipped in any file is an error at open or at a reading, or changes nothing that is shown.
pub fn a_flipped_bit_never_shows_less<E: Engine>(options: MakeOptions<E>, module: &str) {
    for ending in [Ending::Killed, Ending::Closed] {
        damage_each_file::<E>(options, ending, module, "flipped", |path, at| {
            let file = File::options().read(true).write(true).open(path).unwrap();
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
        });
    }
}

/// The same for any file that is cut.
pub fn a_file_that_is_cut_never_shows_less<E: Engine>(options: MakeOptions<E>, module: &str) {
    for ending in [Ending::Killed, Ending::Closed] {
        damage_each_file::<E>(options, ending, module, "cut", |path, at| {
            File::options().write(true).open(path).unwrap().set_len(at).unwrap();
        });
    }
}

fn damage_each_file<E: Engine>(
    options: MakeOptions<E>,
    ending: Ending,
    module: &str,
    how: &str,
    damage: fn(&Path, u64),
) {
    let original = written::<E>(options, ending, module);
    let mut all = Seen::default();
    let files = files(&original.path().join(E::PLACE));
    for path in files.iter().step_by(files.len().div_ceil(FILES)) {
        let name = path.strip_prefix(original.path()).unwrap().to_path_buf();
        let mut seen = Seen::default();
        for at in places(path) {
            println!("{ending:?}: {} {how} at {at}", name.display());
            look::<E>(options, original.path(), &mut seen, |folder| damage(&folder.join(&name), at));
        }
        println!("{ending:?}: {} {how}: {seen:?}", name.display());
        all.refused += seen.refused;
    }
    assert!(all.refused > 0, "nothing was noticed");
}

/// The same for any file that is gone.
pub fn a_missing_file_never_shows_less<E: Engine>(options: MakeOptions<E>, module: &str) {
    for ending in [Ending::Killed, Ending::Closed] {
        let original = written::<E>(options, ending, module);
        let mut refused = 0;
        for path in files(original.path()) {
            let name = path.strip_prefix(original.path()).unwrap().to_path_buf();
            let mut seen = Seen::default();
            look::<E>(options, original.path(), &mut seen, |folder| {
                fs::remove_file(folder.join(&name)).unwrap();
            });
            println!("{ending:?}: {} missing: {seen:?}", name.display());
            refused += seen.refused;
        }
        assert!(refused > 0, "nothing was noticed");
    }
}

/// Makes a `#[test]` of each rule for an engine: `folder_rules!(Engine, options)`, where `options` makes the engine's
/// options of [`FolderOptions`]. One of them needs `strace`: an engine commits on the thread that it is called on.
#[macro_export]
macro_rules! folder_rules {
    ($engine:ty, $options:expr) => {
        $crate::folder_rules! { $engine, $options;
            close_reopen_and_kill_keep_everything,
            process_crash_durability_keeps_everything,
            a_commit_syncs_exactly_if_it_is_to_survive_a_loss_of_power,
            a_second_handle_is_refused,
            an_unfinished_creation_is_begun_anew,
            the_folder_is_private,
            too_large_is_not_applied,
            the_largest_batches_are_kept,
            a_full_disk_is_not_applied_and_readings_go_on,
            a_missing_database_is_refused,
            an_older_database_is_refused,
            the_tail_is_a_hint,
            a_flipped_bit_never_shows_less,
            a_file_that_is_cut_never_shows_less,
            a_missing_file_never_shows_less,
        }

        #[test]
        #[ignore = "run by a_second_handle_is_refused"]
        fn open_in_another_process() {
            $crate::rules::open_in_another_process::<$engine>($options);
        }

        #[test]
        #[ignore = "run by a_commit_syncs_exactly_if_it_is_to_survive_a_loss_of_power"]
        fn commit_and_mark() {
            $crate::rules::commit_and_mark::<$engine>($options);
        }

        #[test]
        #[ignore = "run by others"]
        fn write_and_die() {
            $crate::rules::write_and_die::<$engine>($options);
        }
    };
    ($engine:ty, $options:expr; $($rule:ident,)*) => {
        $(
            #[test]
            fn $rule() {
                $crate::rules::$rule::<$engine>($options, module_path!());
            }
        )*
    };
}
