//! How long a snapshot takes, beside what a person would use instead.
//!
//! ```sh
//! cargo run --release -p longrun-snapshot --example measure -- [--gib 4] [--rounds 3] [--dir DIR]
//! ```
//!
//! The disk is a sparse raw image: half of it holes; of the data a third noise, a third text, a third repetition. Each tool runs
//! in a process of its own, one after the other, in each round anew; the table has the median of the rounds. Ours is durable
//! (every chunk and every commit synced) and read back; `qemu-img` and `cp` are given the time without any sync. Where the
//! machine allows it (root), the system's cache is emptied before each run, so that each reads the disk from its medium.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use longrun::sled::{SledKv, SledOptions};
use longrun::{Call, Caller, Engine, KvStore};
use longrun_snapshot::data::{ChunkFolder, DiskFolder};
use longrun_snapshot::service::{CreateSnapshotRequest, Limits};
use longrun_snapshot::{DataPlane, Snapshot, SnapshotService};
use serde::{Deserialize, Serialize};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const MIB: u64 = 1 << 20;
const BLOCK: usize = 64 * 1024;
/// The disk alternates between so much data and so much hole.
const STRIPE: u64 = 16 * MIB;

/// What one run took.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Taken {
    seconds: f64,
    /// Bytes stored, of this run alone.
    stored: u64,
    /// The most memory that the process had.
    peak_bytes: u64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [copy, dir] = arguments.as_slice()
        && copy == "copy"
    {
        println!("{}", serde_json::to_string(&copy_once(Path::new(dir)).await?)?);
        return Ok(());
    }
    let option = |name: &str| {
        let place = arguments.iter().position(|argument| argument == name);
        place.and_then(|place| arguments.get(place + 1)).cloned()
    };
    let gib: u64 = option("--gib").map_or(Ok(4), |text| text.parse())?;
    let rounds: usize = option("--rounds").map_or(Ok(3), |text| text.parse())?;
    let temporary = tempfile::tempdir()?;
    let dir = option("--dir").map_or_else(|| temporary.path().to_owned(), PathBuf::from);
    compare(&dir, gib << 30, rounds.max(1))
}

/// Makes one snapshot of `disk` under a folder. The store and the chunks of earlier ones are used.
async fn copy_once(dir: &Path) -> Result<Taken> {
    let before = bytes_under(&dir.join("chunks"))?;
    let kv = SledKv::open(dir.join("store"), SledOptions::default())?;
    let plane = DataPlane::new(DiskFolder::new(dir.join("disks")), ChunkFolder::open(dir.join("chunks"))?);
    let limits = Limits::default();
    let builder = SnapshotService::register(Engine::builder(KvStore::open(kv)?), &plane, limits);
    let service = SnapshotService::new(builder.start().await?, plane, limits);
    let request = CreateSnapshotRequest {
        folder_id: "folder".to_owned(),
        disk_id: "disk".to_owned(),
        ..CreateSnapshotRequest::default()
    };
    let began = Instant::now();
    let accepted = service.create(Call::by(Caller::new("measure")?), &request).await?;
    let done = service.engine().wait_done(accepted.id()).await?;
    let seconds = began.elapsed().as_secs_f64();
    let response = done.response().ok_or_else(|| format!("it failed: {:?}", done.error()))?;
    let snapshot: Snapshot = response.decode()?;
    assert!(snapshot.storage_size > 0);
    let stored = bytes_under(&dir.join("chunks"))? - before;
    Ok(Taken { seconds, stored, peak_bytes: peak_memory()? })
}

fn compare(dir: &Path, size: u64, rounds: usize) -> Result<()> {
    fs::create_dir_all(dir.join("disks"))?;
    let disk = dir.join("disks/disk.raw");
    eprintln!("making a disk of {} MiB", size / MIB);
    let cold = forget();
    let data = make(&disk, size)?;
    let mut table: Vec<(&str, Vec<Taken>)> = Vec::new();
    let mut note = |name: &'static str, taken: Taken| {
        eprintln!("  {name}: {:.2} s, {} MiB stored", taken.seconds, taken.stored / MIB);
        match table.iter_mut().find(|(known, _)| *known == name) {
            Some((_, all)) => all.push(taken),
            None => table.push((name, vec![taken])),
        }
    };
    for round in 0..rounds {
        eprintln!("round {}", round + 1);
        forget();
        note("reading the disk", read(&disk)?);
        _ = fs::remove_dir_all(dir.join("store"));
        _ = fs::remove_dir_all(dir.join("chunks"));
        fs::create_dir_all(dir.join("chunks"))?;
        note("longrun, the first snapshot", ours(dir)?);
        change(&disk, size, u64::try_from(round)?)?;
        note("longrun, a second one, 1 % changed", ours(dir)?);
        for (name, options) in [
            ("qemu-img, qcow2 with zstd", &["-c", "-o", "compression_type=zstd"][..]),
            ("qemu-img, qcow2 with zlib", &["-c"][..]),
        ] {
            let target = dir.join("disk.qcow2");
            let mut command = Command::new("qemu-img");
            command.args(["convert", "-f", "raw", "-O", "qcow2"]).args(options).arg(&disk).arg(&target);
            match theirs(&mut command, &target) {
                Ok(taken) => note(name, taken),
                Err(error) => eprintln!("  {name}: not measured: {error}"),
            }
        }
        let target = dir.join("copy.raw");
        let mut command = Command::new("cp");
        command.arg("--sparse=always").arg(&disk).arg(&target);
        note("cp --sparse=always", theirs(&mut command, &target)?);
    }
    let cache = if cold { "nothing in the cache" } else { "all of it in the cache" };
    println!(
        "a disk of {} MiB, {} MiB of it data, {cache}; the median of {rounds} rounds\n",
        size / MIB,
        data / MIB
    );
    println!("| | seconds | stored, MiB | peak memory, MiB |\n|---|---|---|---|");
    for (name, all) in &table {
        let Taken { seconds, stored, peak_bytes } = median(all);
        let peak = if peak_bytes == 0 { "–".to_owned() } else { (peak_bytes / MIB).to_string() };
        println!("| {name} | {seconds:.2} | {} | {peak} |", stored / MIB);
    }
    let of = |name: &str| table.iter().find(|(known, _)| *known == name).map(|(_, all)| median(all).seconds);
    let ratio = |a: &str, b: &str| Some(of(a)? / of(b)?);
    for (what, ratio) in [
        ("qemu-img with zstd takes", ratio("qemu-img, qcow2 with zstd", "longrun, the first snapshot")),
        ("the second snapshot takes", ratio("longrun, a second one, 1 % changed", "reading the disk")),
    ] {
        if let Some(ratio) = ratio {
            println!(
                "\n{what} {ratio:.2} times as long as {}",
                if what.starts_with("qemu") { "the first snapshot" } else { "reading the disk" }
            );
        }
    }
    Ok(())
}

/// Empties the system's cache. False where that is not allowed.
fn forget() -> bool {
    rustix::fs::sync();
    fs::write("/proc/sys/vm/drop_caches", "3").is_ok()
}

fn median(all: &[Taken]) -> Taken {
    let mut sorted = all.to_vec();
    sorted.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    sorted[sorted.len() / 2]
}

/// In a process of its own, for its memory.
fn ours(dir: &Path) -> Result<Taken> {
    forget();
    let output = Command::new(std::env::current_exe()?).arg("copy").arg(dir).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn theirs(command: &mut Command, target: &Path) -> Result<Taken> {
    _ = fs::remove_file(target);
    forget();
    let began = Instant::now();
    let output = command.output()?;
    let seconds = began.elapsed().as_secs_f64();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    let stored = fs::metadata(target)?.blocks() * 512;
    fs::remove_file(target)?;
    Ok(Taken { seconds, stored, peak_bytes: 0 })
}

/// Reads all data of the disk, holes passed over.
fn read(disk: &Path) -> Result<Taken> {
    let began = Instant::now();
    let mut file = File::open(disk)?;
    let size = file.metadata()?.len();
    let mut buffer = vec![0; 4 << 20];
    let mut offset = 0;
    while offset < size {
        file.seek(SeekFrom::Start(offset))?;
        let mut part = (&file).take(STRIPE / 2);
        while part.read(&mut buffer)? > 0 {}
        offset += STRIPE;
    }
    Ok(Taken { seconds: began.elapsed().as_secs_f64(), stored: 0, peak_bytes: 0 })
}

/// Makes the disk. Gives its bytes of data.
fn make(path: &Path, size: u64) -> Result<u64> {
    let mut file = File::create(path)?;
    file.set_len(size)?;
    let mut noise = Noise(1);
    let (mut block, mut written, mut offset) = (vec![0; BLOCK], 0, 0);
    while offset < size {
        file.seek(SeekFrom::Start(offset))?;
        for place in 0..STRIPE / 2 / BLOCK as u64 {
            match place % 3 {
                0 => noise.fill(&mut block),
                1 => text(&mut block, &mut noise),
                _ => block.fill(noise.next().to_le_bytes()[0] | 1),
            }
            file.write_all(&block)?;
            written += BLOCK as u64;
        }
        offset += STRIPE;
    }
    file.sync_all()?;
    Ok(written)
}

/// Writes noise over 1 % of the data, in one place: as a database that grows does.
fn change(path: &Path, size: u64, round: u64) -> Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    let mut noise = Noise(1000 + round);
    let mut block = vec![0; BLOCK];
    let (mut left, mut offset) = (size / 2 / 100, round * STRIPE * 3);
    while left > 0 {
        for place in 0..(STRIPE / 2 / BLOCK as u64).min(left.div_ceil(BLOCK as u64)) {
            noise.fill(&mut block);
            file.write_all_at(&block, (offset + place * BLOCK as u64) % size)?;
            left = left.saturating_sub(BLOCK as u64);
        }
        offset += STRIPE;
    }
    file.sync_all()?;
    Ok(())
}

/// Words in an order that is not the same twice.
fn text(block: &mut [u8], noise: &mut Noise) {
    const WORDS: [&str; 16] = [
        "operation ",
        "snapshot ",
        "of ",
        "the ",
        "disk ",
        "is ",
        "done ",
        "when ",
        "everything ",
        "has ",
        "been ",
        "undone, ",
        "and ",
        "nothing ",
        "is ",
        "left. ",
    ];
    let mut at = 0;
    while at < block.len() {
        let word = WORDS[(noise.next() % 16) as usize].as_bytes();
        let length = word.len().min(block.len() - at);
        block[at..at + length].copy_from_slice(&word[..length]);
        at += length;
    }
}

/// Xorshift: nothing makes it smaller.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn fill(&mut self, block: &mut [u8]) {
        for word in block.chunks_mut(8) {
            let next = self.next().to_le_bytes();
            word.copy_from_slice(&next[..word.len()]);
        }
    }
}

fn bytes_under(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    if !folder.exists() {
        return Ok(0);
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { bytes_under(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}

fn peak_memory() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: u64 = line.and_then(|line| line.trim().strip_suffix(" kB")).unwrap_or("0").trim().parse()?;
    Ok(kib * 1024)
}
