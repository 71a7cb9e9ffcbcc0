//! A trace of strace, and the calls in it.
//!
//! strace handles one stop of one thread at a time, and a thread goes on only when its stop was handled. So of two lines
//! of which one could be the cause of the other, the cause comes first: the order of the lines is an order in which it
//! can have happened, and the time of a call is the numbers of its two lines.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

use anyhow::{Context, bail, ensure};

/// Calls that change nothing on a disk, and those that only change who may look. What a call does that is in no list is
/// not known: then nothing can be said of a store that makes it.
pub(crate) const HARMLESS: [&str; 23] = [
    "access",
    "chmod",
    "close",
    "dup",
    "execve",
    "fadvise64",
    "fchmod",
    "fcntl",
    "flock",
    "fstat",
    "fstatfs",
    "getdents64",
    "lseek",
    "mmap",
    "newfstatat",
    "poll",
    "pread64",
    "read",
    "readlink",
    "readlinkat",
    "stat",
    "statfs",
    "statx",
];

/// One system call that has returned.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) thread: u32,
    pub(crate) name: String,
    args: Vec<String>,
    /// What it returned; below zero is an error. An address is a zero.
    pub(crate) result: i64,
    pub(crate) begin: usize,
    pub(crate) end: usize,
}

/// The words before the program, which make strace write all calls that concern files or descriptors to `log`.
pub(crate) fn wrapper(log: &Path) -> Vec<OsString> {
    // Every byte in hexadecimal digits, so that nothing in a name or in the data is taken for a part of the line.
    let mut words: Vec<OsString> =
        ["strace", "-f", "-y", "-xx", "-s", "1000000000"].map(OsString::from).into();
    words.extend(["-e", "trace=%file,%desc,io_uring_setup", "-e", "signal=none", "-o"].map(OsString::from));
    words.push(log.into());
    words
}

/// Reads the calls of a trace, by the order of their begins.
pub(crate) fn read(log: &Path) -> anyhow::Result<Vec<Call>> {
    read_until(log, false)
}

/// The same of a program that may have been killed. The calls that it was in are left out.
pub(crate) fn read_killed(log: &Path) -> anyhow::Result<Vec<Call>> {
    read_until(log, true)
}

fn read_until(log: &Path, killed: bool) -> anyhow::Result<Vec<Call>> {
    let text = fs::read_to_string(log).with_context(|| format!("cannot read {}", log.display()))?;
    let mut begun: HashMap<&str, (usize, &str)> = HashMap::new();
    let mut calls = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let parsed = (|| {
            let (thread, rest) = line.split_once(' ').context("no thread")?;
            let (of, rest) = (thread.parse()?, rest.trim_start());
            if rest.starts_with("+++") || rest.starts_with("---") {
                ensure!(killed || !rest.contains("killed"), "the program was killed");
                return Ok(None);
            }
            if let Some(head) = rest.strip_suffix(" <unfinished ...>") {
                ensure!(begun.insert(thread, (number, head)).is_none(), "two calls of one thread");
                return Ok(None);
            }
            if let Some(tail) = rest.strip_prefix("<... ") {
                let (_, tail) = tail.split_once(" resumed>").context("no resumed call")?;
                let (begin, head) = begun.remove(thread).context("a call that did not begin")?;
                return Call::parse(of, &format!("{head}{tail}"), begin, number);
            }
            Call::parse(of, rest, number, number)
        })();
        let parsed = parsed.with_context(|| {
            let shown: String = line.chars().take(200).collect();
            format!("line {} of the trace is not understood: {shown}", number + 1)
        })?;
        calls.extend(parsed);
    }
    calls.sort_by_key(|call| call.begin);
    Ok(calls)
}

impl Call {
    fn parse(thread: u32, text: &str, begin: usize, end: usize) -> anyhow::Result<Option<Self>> {
        let (call, result) = text.rsplit_once(" = ").context("no result")?;
        let call = call.trim_end().strip_suffix(')').context("no end of the arguments")?;
        let (name, args) = call.split_once('(').context("no arguments")?;
        // A call that the end of the process cut off, such as `exit_group`, or one that was begun anew.
        if result.starts_with('?') {
            ensure!(!result.contains("ERESTART"), "a call that was interrupted");
            return Ok(None);
        }
        let digits = result.split([' ', '<']).next().unwrap_or_default();
        let result = if digits.starts_with("0x") { 0 } else { digits.parse().context("no number")? };
        Ok(Some(Self { thread, name: name.to_owned(), args: split(args), result, begin, end }))
    }

    /// An argument as strace writes it: a number, a flag, or what the others here take apart.
    pub(crate) fn arg(&self, at: usize) -> anyhow::Result<&str> {
        self.args.get(at).map(String::as_str).with_context(|| format!("{} has no argument {at}", self.name))
    }

    pub(crate) fn number(&self, at: usize) -> anyhow::Result<u64> {
        Ok(self.arg(at)?.parse()?)
    }

    /// Bytes, all of them.
    pub(crate) fn bytes(&self, at: usize) -> anyhow::Result<Vec<u8>> {
        unescape(self.arg(at)?.strip_prefix('"').and_then(|text| text.strip_suffix('"')).context("no bytes")?)
    }

    /// A descriptor and the path that it had.
    pub(crate) fn descriptor(&self, at: usize) -> Option<(i64, String)> {
        let (number, path) = self.args.get(at)?.split_once('<')?;
        let path = path.split('>').next()?;
        Some((number.parse().ok()?, String::from_utf8(unescape(path).ok()?).ok()?))
    }

    /// A path that may be relative to the folder before it.
    pub(crate) fn path(&self, folder: Option<usize>, at: usize) -> anyhow::Result<String> {
        let path = String::from_utf8(self.bytes(at)?)?;
        match folder {
            Some(folder) if !path.starts_with('/') => {
                let (_, above) = self.arg(folder)?.split_once('<').context("no folder")?;
                let above = String::from_utf8(unescape(above.split('>').next().unwrap_or_default())?)?;
                Ok(format!("{above}/{path}"))
            }
            None if !path.starts_with('/') => bail!("a path that begins nowhere: {path}"),
            _ => Ok(path),
        }
    }

    /// Every path in the arguments: of a descriptor, or a text that begins as a path does.
    pub(crate) fn paths(&self) -> impl Iterator<Item = String> {
        self.args.iter().enumerate().filter_map(|(at, arg)| {
            if arg.starts_with('"') {
                return String::from_utf8(self.bytes(at).ok()?).ok().filter(|path| path.starts_with('/'));
            }
            let (_, path) = arg.split_once('<')?;
            String::from_utf8(unescape(path.split('>').next()?).ok()?).ok()
        })
    }
}

/// The arguments: cut at commas outside of all brackets. No text holds any, as every byte is in digits.
fn split(args: &str) -> Vec<String> {
    let (mut found, mut depth, mut from) = (Vec::new(), 0_usize, 0);
    for (at, byte) in args.bytes().enumerate() {
        match byte {
            b'(' | b'[' | b'{' | b'<' => depth += 1,
            b')' | b']' | b'}' | b'>' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                found.push(args[from..at].trim().to_owned());
                from = at + 1;
            }
            _ => {}
        }
    }
    found.push(args[from..].trim().to_owned());
    found
}

/// The bytes of a text in which strace has written each as `\xHH`.
fn unescape(text: &str) -> anyhow::Result<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let bytes = text.as_bytes().chunks(4).map(|chunk| match chunk {
        [b'\\', b'x', high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    });
    bytes.collect::<Option<_>>().context("not in hexadecimal digits")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls(text: &str) -> anyhow::Result<Vec<Call>> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        read(file.path())
    }

    #[test]
    fn a_call_in_two_lines_is_one() {
        let text = "7 pwrite64(5<\\x2f\\x61>, \"\\x2c\\x29\", 2, 4096 <unfinished ...>\n\
                    8 fsync(6<\\x2f\\x62>) = -1 EIO (Input/output error)\n\
                    7 <... pwrite64 resumed>)        = 2\n\
                    8 +++ exited with 0 +++\n";
        let calls = calls(text).unwrap();
        let [write, sync] = &calls[..] else { panic!("{calls:?}") };
        assert_eq!((write.begin, write.end, write.result), (0, 2, 2));
        assert_eq!(write.bytes(1).unwrap(), b",)");
        assert_eq!(write.number(3).unwrap(), 4096);
        assert_eq!(write.descriptor(0), Some((5, "/a".to_owned())));
        assert_eq!((sync.begin, sync.result), (1, -1));
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        for text in
            ["7 write(5, ", "7 +++ killed by SIGKILL +++", "7 <... write resumed>) = 1", "7 write(1) = x"]
        {
            assert!(calls(text).is_err(), "{text}");
        }
        let cut = calls("7 write(5<\\x61>, \"\\x61\"..., 9) = 9\n").unwrap();
        assert!(cut[0].bytes(1).is_err(), "data that strace has cut");
    }
}
