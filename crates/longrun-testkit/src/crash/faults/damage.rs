//! Damaged files: refused with a typed error, or everything is still shown.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use longrun_folder::OpenError;

use super::super::ground::Ground;
use super::super::stores::Files;
use super::super::verify::{self, Seen};
use super::{Bench, copy, note};

/// Places in the log that are cut and flipped.
const PLACES: u64 = 16;
/// Files that are flipped beside the log; of more, every so many-th is.
const FILES: usize = 12;

/// How often what was found.
#[derive(Debug, Default)]
struct Found {
    truncated: u64,
    corrupt: u64,
    whole: u64,
}

pub(super) fn run(bench: &mut Bench) -> anyhow::Result<()> {
    for killed in [true, false] {
        let name = if killed { "damage-killed" } else { "damage-closed" };
        let ground = bench.ground(name)?;
        if killed {
            bench.killed(&ground)?;
        } else {
            bench.closed(&ground)?;
        }
        let result = truncated(bench, &ground);
        bench.check(&format!("{name}: a truncated database"), result);
        let result = flipped(bench, &ground);
        bench.check(&format!("{name}: a flipped bit in each file"), result);
        let result = missing(bench, &ground);
        bench.check(&format!("{name}: a missing file"), result);
        let result = future(bench, &ground);
        bench.check(&format!("{name}: a future format"), result);
        if killed {
            // The original was never touched.
            let result = bench.whole(&ground, verify::Mode { look: false, tell: true });
            bench.check(&format!("{name}: the original"), result);
        }
    }
    Ok(())
}

/// Opens a damaged copy. An error of another type, or less than everything, is a violation.
fn inspect(bench: &Bench, ground: &Ground, found: &mut Found) -> anyhow::Result<()> {
    match ground.open_kv() {
        Err(OpenError::Truncated { .. }) => found.truncated += 1,
        Err(OpenError::Corrupt { .. }) => found.corrupt += 1,
        Err(other) => bail!("not the right error: {other:?}"),
        Ok(kv) => {
            drop(kv);
            let opened = ground.open()?;
            let wrong = bench.runtime.block_on(verify::look(ground, &opened, &mut Seen::default()))?;
            ensure!(wrong.is_empty(), "S15: it opens and shows less: {}", wrong.join("; "));
            found.whole += 1;
        }
    }
    Ok(())
}

/// Damages a copy, looks at it, and removes it.
fn damaged(
    bench: &Bench,
    ground: &Ground,
    found: &mut Found,
    what: &str,
    damage: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let folder = bench.root.path().join("copy");
    let ground = copy(ground, &folder)?;
    damage(&folder)?;
    inspect(bench, &ground, found).with_context(|| what.to_owned())?;
    fs::remove_dir_all(folder)?;
    Ok(())
}

fn flip(path: &Path, at: u64) -> anyhow::Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    file.write_all_at(&[byte[0] ^ 0x10], at)?;
    Ok(())
}

/// The length of a file without the zeros at its end.
fn used(path: &Path) -> anyhow::Result<u64> {
    let bytes = fs::read(path)?;
    Ok(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at as u64 + 1))
}

fn files(ground: &Ground) -> anyhow::Result<Files> {
    Ok(Files::of(ground.store, &ground.dir)?)
}

fn truncated(bench: &Bench, ground: &Ground) -> anyhow::Result<()> {
    let (log, mut found) = (files(ground)?.log, Found::default());
    let used = used(&ground.dir.join(&log))?;
    for part in 0..PLACES {
        let at = used * part / PLACES;
        damaged(bench, ground, &mut found, &format!("cut at {at} of {used}"), |folder| {
            Ok(File::options().write(true).open(folder.join(&log))?.set_len(at)?)
        })?;
    }
    note(&format!("cut at {PLACES} places: {found:?}"));
    ensure!(found.truncated + found.corrupt > 0, "no cut was noticed");
    ensure!(found.whole == 0, "S15: a cut log was taken for whole");
    Ok(())
}

fn flipped(bench: &Bench, ground: &Ground) -> anyhow::Result<()> {
    let files = files(ground)?;
    let (every, needed) = (files.all.len().div_ceil(FILES), |name| files.needed.contains(name));
    for (number, name) in files.all.iter().enumerate() {
        if *name != files.log && !needed(name) && number % every != 0 {
            continue;
        }
        let len = used(&ground.dir.join(name))?;
        let mut places: Vec<u64> = (0..PLACES).map(|part| len * part / PLACES).collect();
        places.extend([1, 20, 100, 400, 1000].into_iter().filter_map(|back| len.checked_sub(back)));
        places.retain(|at| *at < len);
        places.sort_unstable();
        places.dedup();
        let mut found = Found::default();
        let shown = name.display();
        for at in &places {
            let what = format!("{shown} flipped at {at} of {len}");
            damaged(bench, ground, &mut found, &what, |folder| flip(&folder.join(name), *at))?;
        }
        note(&format!("{shown} flipped at {} places: {found:?}", places.len()));
        if *name == files.log || needed(name) {
            ensure!(found.truncated + found.corrupt > 0, "no flip of {shown} was noticed");
        }
    }
    Ok(())
}

fn missing(bench: &Bench, ground: &Ground) -> anyhow::Result<()> {
    let (Files { log, needed, .. }, mut found) = (files(ground)?, Found::default());
    for name in needed.iter().chain([&log]) {
        damaged(bench, ground, &mut found, &format!("{} is gone", name.display()), |folder| {
            Ok(fs::remove_file(folder.join(name))?)
        })?;
    }
    damaged(bench, ground, &mut found, "the log is empty", |folder| Ok(fs::write(folder.join(&log), b"")?))?;
    ensure!(found.whole == 0, "S15: a missing file was not missed");
    Ok(())
}

/// A format that does not exist yet; nothing may be changed then.
fn future(bench: &Bench, ground: &Ground) -> anyhow::Result<()> {
    let folder = bench.root.path().join("copy");
    let copied = copy(ground, &folder)?;
    let Files { log, format: (name, magic), .. } = files(ground)?;
    let mut bytes = magic.to_vec();
    bytes.extend_from_slice(&99_u32.to_le_bytes());
    bytes.extend_from_slice(b"whatever there will be");
    bytes.extend_from_slice(&crc32c(&bytes).to_le_bytes());
    fs::write(folder.join(name), bytes)?;
    let before = fs::read(folder.join(&log))?;
    match copied.open_kv() {
        Err(OpenError::FutureFormat { found: 99, .. }) => {}
        Err(other) => bail!("not the right error: {other:?}"),
        Ok(_) => bail!("it was opened"),
    }
    ensure!(fs::read(folder.join(log))? == before, "a future format was changed");
    fs::remove_dir_all(folder)?;
    Ok(())
}

/// CRC-32C, bit by bit: it is needed once.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_checksum_is_the_known_one() {
        assert_eq!(super::crc32c(b"123456789"), 0xe306_9283);
    }
}
