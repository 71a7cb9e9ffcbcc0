//! Damaged files: refused with a typed error, or everything is still shown.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use longrun::sled::OpenError;

use super::super::ground::Ground;
use super::super::verify::{self, Seen};
use super::{Bench, copy, note};

/// Places in the log that are cut and flipped.
const PLACES: u64 = 16;

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

/// The length of the log without the zeros at its end.
fn used(ground: &Ground) -> anyhow::Result<u64> {
    let bytes = fs::read(ground.dir.join("db"))?;
    Ok(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at as u64 + 1))
}

fn truncated(bench: &Bench, ground: &Ground) -> anyhow::Result<()> {
    let (used, mut found) = (used(ground)?, Found::default());
    for part in 0..PLACES {
        let at = used * part / PLACES;
        damaged(bench, ground, &mut found, &format!("cut at {at} of {used}"), |folder| {
            Ok(File::options().write(true).open(folder.join("db"))?.set_len(at)?)
        })?;
    }
    note(&format!("cut at {PLACES} places: {found:?}"));
    ensure!(found.truncated + found.corrupt > 0, "no cut was noticed");
    ensure!(found.whole == 0, "S15: a cut log was taken for whole");
    Ok(())
}

fn flipped(bench: &Bench, ground: &Ground) -> anyhow::Result<()> {
    let used = used(ground)?;
    for entry in fs::read_dir(&ground.dir)? {
        let entry = entry?;
        if !entry.file_type()?.is_file() {
            continue;
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        let len = if name == "db" { used } else { entry.metadata()?.len() };
        let mut places: Vec<u64> = (0..PLACES).map(|part| len * part / PLACES).collect();
        places.extend([1, 20, 100, 400, 1000].into_iter().filter_map(|back| len.checked_sub(back)));
        places.retain(|at| *at < len);
        places.sort_unstable();
        places.dedup();
        let mut found = Found::default();
        for at in &places {
            let what = format!("{name} flipped at {at} of {len}");
            damaged(bench, ground, &mut found, &what, |folder| flip(&folder.join(&name), *at))?;
        }
        note(&format!("{name} flipped at {} places: {found:?}", places.len()));
        if name == "db" || name == "completeness" {
            ensure!(found.truncated + found.corrupt > 0, "no flip of {name} was noticed");
        }
    }
    Ok(())
}

fn missing(bench: &Bench, ground: &Ground) -> anyhow::Result<()> {
    let mut found = Found::default();
    for name in ["db", "completeness"] {
        damaged(bench, ground, &mut found, &format!("{name} is gone"), |folder| {
            Ok(fs::remove_file(folder.join(name))?)
        })?;
    }
    damaged(bench, ground, &mut found, "db is empty", |folder| Ok(fs::write(folder.join("db"), b"")?))?;
    ensure!(found.whole == 0, "S15: a missing file was not missed");
    Ok(())
}

/// A format of the completeness file that does not exist yet; nothing may be changed then.
fn future(bench: &Bench, ground: &Ground) -> anyhow::Result<()> {
    let folder = bench.root.path().join("copy");
    let copied = copy(ground, &folder)?;
    let mut bytes = b"lr-sled\n".to_vec();
    bytes.extend_from_slice(&99_u32.to_le_bytes());
    bytes.extend_from_slice(b"whatever there will be");
    bytes.extend_from_slice(&crc32c(&bytes).to_le_bytes());
    fs::write(folder.join("completeness"), bytes)?;
    let before = fs::read(folder.join("db"))?;
    match copied.open_kv() {
        Err(OpenError::FutureFormat { found: 99, .. }) => {}
        Err(other) => bail!("not the right error: {other:?}"),
        Ok(_) => bail!("it was opened"),
    }
    ensure!(fs::read(folder.join("db"))? == before, "a future format was changed");
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
