//! A disk in a file: ext4 on a loop device, whose power can be cut.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};

/// Set in the process that has mounts of its own.
const OWN_MOUNTS: &str = "LONGRUN_CRASH_OWN_MOUNTS";
/// sled takes space in units of 8 MiB and needs some ten of them; fjall and redb want 64 MiB to be free.
const IMAGE_BYTES: u64 = 384 << 20;

/// `EXT4_IOC_SHUTDOWN` with `EXT4_GOING_FLAGS_NOLOGFLUSH`: from now on nothing reaches the image, not even the journal.
///
/// The ioctl needs `unsafe` in Rust, which this workspace forbids. Waits for a line before it strikes, so that the time
/// Python takes to start is not between the order and the cut.
const CUT: &str = "
import fcntl, os, struct, sys
print('armed', flush=True)
sys.stdin.readline()
fd = os.open(sys.argv[1], os.O_RDONLY)
fcntl.ioctl(fd, 0x8004587D, struct.pack('I', 2))
print('cut', flush=True)
";

fn run<S: AsRef<OsStr>>(program: &str, arguments: &[S]) -> anyhow::Result<()> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!("{program}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Runs this process again with mounts of its own, which the kernel takes away with the last process that has them,
/// however it ends. Returns where that cannot be done; the mounts are then taken away by destructors alone.
pub(crate) fn own_mounts() {
    if std::env::var_os(OWN_MOUNTS).is_some() || run("unshare", &["-m", "true"]).is_err() {
        return;
    }
    if let Ok(exe) = std::env::current_exe() {
        let mut again = Command::new("unshare");
        again.arg("-m").arg(exe).args(std::env::args_os().skip(1)).env(OWN_MOUNTS, "1");
        // Returns only if it fails.
        _ = again.exec();
    }
}

/// An image and where it is mounted. Unmounted when dropped; the loop device goes with the mount.
#[derive(Debug)]
pub(crate) struct Disk {
    image: PathBuf,
    point: PathBuf,
    mounted: bool,
}

impl Disk {
    /// Makes a file system in `root/image` and mounts it at `root/disk`. The error says what is missing here.
    pub(crate) fn make(root: &Path) -> anyhow::Result<Self> {
        let mut disk = Self { image: root.join("image"), point: root.join("disk"), mounted: false };
        std::fs::create_dir_all(&disk.point)?;
        std::fs::File::create(&disk.image)?.set_len(IMAGE_BYTES)?;
        run("mkfs.ext4", &[OsStr::new("-q"), OsStr::new("-F"), disk.image.as_os_str()])?;
        disk.mount()?;
        Ok(disk)
    }

    pub(crate) fn point(&self) -> &Path {
        &self.point
    }

    pub(crate) fn mount(&mut self) -> anyhow::Result<()> {
        let words = [OsStr::new("-o"), OsStr::new("loop"), self.image.as_os_str(), self.point.as_os_str()];
        run("mount", &words)?;
        self.mounted = true;
        Ok(())
    }

    pub(crate) fn unmount(&mut self) -> anyhow::Result<()> {
        for _ in 0..50 {
            match run("umount", &[self.point.as_os_str()]) {
                Ok(()) => {
                    self.mounted = false;
                    return Ok(());
                }
                // The last file of a killed process may not be closed yet.
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        }
        bail!("{} cannot be unmounted", self.point.display())
    }

    /// Unmounts it for good.
    pub(crate) fn end(mut self) -> anyhow::Result<()> {
        self.unmount()
    }

    /// Gets ready to cut the power.
    pub(crate) fn arm(&self) -> anyhow::Result<Cutter> {
        let mut command = Command::new("python3");
        command.args(["-c", CUT]).arg(&self.point).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("python3, which does the ioctl, cannot be run")?;
        let order = child.stdin.take().context("no pipe")?;
        let answers = BufReader::new(child.stdout.take().context("no pipe")?);
        let mut cutter = Cutter { child, order, answers };
        cutter.expect("armed")?;
        Ok(cutter)
    }

    /// After the cut, and after whoever used the disk is gone: the power is back, and the journal is replayed.
    pub(crate) fn power_on(&mut self) -> anyhow::Result<()> {
        self.unmount()?;
        self.mount()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted && self.unmount().is_err() {
            _ = run("umount", &[OsStr::new("-l"), self.point.as_os_str()]);
        }
    }
}

/// Cuts the power of one disk, once.
#[derive(Debug)]
pub(crate) struct Cutter {
    child: Child,
    order: ChildStdin,
    answers: BufReader<std::process::ChildStdout>,
}

impl Cutter {
    fn expect(&mut self, word: &str) -> anyhow::Result<()> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        if line.trim() != word {
            bail!("the power could not be cut: {:?}", self.child.wait()?);
        }
        Ok(())
    }

    /// Cuts. When this returns nothing reaches the disk any more.
    pub(crate) fn cut(mut self) -> anyhow::Result<()> {
        self.order.write_all(b"now\n")?;
        self.expect("cut")?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
