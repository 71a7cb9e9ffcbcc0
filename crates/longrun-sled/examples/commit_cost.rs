//! Prints what a commit costs: bare sled with a sync, and `SledKv` with its proof of completeness.
//!
//! `cargo run --release -p longrun-sled --example commit_cost`
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::time::Instant;

use longrun_sled::{FolderOptions, SledKv, SledOptions, Verify};
use longrun_store::{Batch, Durability, Kv, Table};
use sled::Transactional;
use sled::transaction::ConflictableTransactionError;

const TABLES: [Table; 4] = [Table::Operations, Table::Due, Table::ByResource, Table::Idempotency];

fn main() {
    free_space();
    long_values();
    for (size, batches) in [(1, 6000), (16, 600), (256, 60)] {
        for _round in 0..3 {
            for segment in [512 << 10, 8 << 20] {
                let bare = Bare::open(segment);
                let name = format!("bare sled + fdatasync, segments of {} KiB", segment >> 10);
                report(&name, size, batches, |batch| bare.commit(batch));
            }
            for durability in [Durability::PowerLoss, Durability::ProcessCrash] {
                let folder = tempfile::tempdir_in(".").unwrap();
                let kv = SledKv::open(
                    folder.path(),
                    SledOptions::default().folder(FolderOptions::default().durability(durability)),
                )
                .unwrap();
                report(&format!("SledKv {durability:?}"), size, batches, |batch| kv.commit(batch).unwrap());
            }
        }
    }
    reopen_times();
}

fn report(name: &str, size: u64, batches: u64, commit: impl Fn(&Batch)) {
    let (begin, cpu) = (Instant::now(), cpu_ticks());
    for n in 0..batches {
        commit(&operations(n * size..(n + 1) * size));
    }
    let rate = batches as f64 / begin.elapsed().as_secs_f64();
    let cpu = (cpu_ticks() - cpu) as f64 * 10_000.0 / batches as f64;
    println!(
        "{size:4} per batch {rate:7.0} commits/s {:7.0} operations/s {cpu:7.0} us CPU a commit  {name}",
        rate * size as f64
    );
}

/// User and system time of this process, in hundredths of a second.
fn cpu_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    stat.split_whitespace().skip(13).take(2).map(|field| field.parse::<u64>().unwrap()).sum()
}

/// A record of 500 bytes and three index entries for each operation.
fn operations(range: std::ops::Range<u64>) -> Batch {
    let mut batch = Batch::default();
    for n in range {
        let n = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        for table in TABLES {
            let value = if table == Table::Operations { vec![n as u8; 500] } else { Vec::new() };
            batch.put(table, format!("{n:040x}").into_bytes(), value);
        }
    }
    batch
}

fn reopen_times() {
    let folder = tempfile::tempdir_in(".").unwrap();
    let kv = SledKv::open(folder.path(), SledOptions::default()).unwrap();
    for n in 0..400 {
        kv.commit(&operations(n * 250..(n + 1) * 250)).unwrap();
    }
    println!("100 000 operations: {:?}", kv.stats());
    drop(kv);
    let folder_names = || std::fs::read_dir(folder.path()).unwrap().map(Result::unwrap);
    for verify in [Verify::Count, Verify::Full] {
        let begin = Instant::now();
        let kv = SledKv::open(folder.path(), SledOptions::default().verify(verify)).unwrap();
        println!("reopen with {verify:?}: {:?}", begin.elapsed());
        drop(kv);
    }
    for file in folder_names().filter(|file| file.file_name().to_string_lossy().starts_with("snap.")) {
        println!("snapshot: {} bytes", file.metadata().unwrap().len());
    }
}

/// Long values, overwritten at random, and what each commit adds to the file in use.
fn long_values() {
    let folder = tempfile::tempdir_in(".").unwrap();
    let kv = SledKv::open(folder.path(), SledOptions::default()).unwrap();
    for (kib, puts) in [(40, 1), (250, 1), (40, 20), (250, 4)] {
        let (mut most, mut bytes, mut seed, begin) = (0, 0, 1_u64, Instant::now());
        let blocks = || std::fs::metadata(folder.path().join("db")).unwrap().blocks() * 512;
        for n in 0..200_u64 {
            let mut batch = Batch::default();
            for _ in 0..puts {
                seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let key = (seed >> 33) % 200;
                batch.put(Table::Operations, key.to_be_bytes().to_vec(), vec![n as u8; kib << 10]);
            }
            bytes += batch.byte_len();
            let before = blocks();
            kv.commit(&batch).unwrap();
            most = most.max(blocks().saturating_sub(before));
        }
        let seconds = begin.elapsed().as_secs_f64();
        println!(
            "{puts:2} values of {kib} KiB per batch: {:5.0} commits/s, {:4.0} MB/s, file grew by at most {most} bytes in one",
            200.0 / seconds,
            bytes as f64 / seconds / 1e6
        );
    }
}

fn free_space() {
    let folder = tempfile::tempdir_in(".").unwrap();
    let begin = Instant::now();
    for _ in 0..100_000 {
        assert!(rustix::fs::statvfs(folder.path()).unwrap().f_blocks > 0);
    }
    println!("statvfs: {:?}", begin.elapsed() / 100_000);
}

/// sled as it comes, but for the sync.
struct Bare {
    db: sled::Db,
    trees: Vec<sled::Tree>,
    file: File,
    _folder: tempfile::TempDir,
}

impl Bare {
    fn open(segment: usize) -> Self {
        let folder = tempfile::tempdir_in(".").unwrap();
        let config = sled::Config::new().path(folder.path()).segment_size(segment).flush_every_ms(None);
        let db = config.cache_capacity(256 << 20).open().unwrap();
        let trees = TABLES.iter().map(|table| db.open_tree(table.name()).unwrap()).collect();
        let file = File::open(folder.path().join("db")).unwrap();
        Self { db, trees, file, _folder: folder }
    }

    fn commit(&self, batch: &Batch) {
        let write = |views: &Vec<sled::transaction::TransactionalTree>| {
            for write in &batch.writes {
                let place = TABLES.iter().position(|table| *table == write.table).unwrap();
                views[place].insert(write.key.as_slice(), write.value.as_deref().unwrap())?;
            }
            Ok::<_, ConflictableTransactionError<()>>(())
        };
        self.trees[..].transaction(write).unwrap();
        self.db.flush().unwrap();
        self.file.sync_data().unwrap();
    }
}
