//! The real clients: Yandex Cloud's SDKs for Python and Node, google-api-core, reflection, curl. They are in `clients/`.

#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::path::Path;
use std::process::Command;

/// What cannot be had here is skipped. The first run installs what it can, beside what cargo makes.
#[test]
fn real_clients_work_with_the_server_unchanged() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/run.sh");
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("clients");
    let mut run = Command::new("bash");
    run.arg(script).arg(env!("CARGO_BIN_EXE_longrun")).env("CLIENTS_CACHE", cache);
    let output = match run.output() {
        Ok(output) => output,
        Err(error) => return loudly(&format!("SKIPPED: the real clients: no bash: {error}")),
    };
    let (shown, noise) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    shown.lines().filter(|line| line.starts_with("SKIPPED")).for_each(loudly);
    assert!(output.status.success(), "{shown}\n{noise}");
    let last = shown.lines().last().unwrap_or_default();
    assert!(last.ends_with(" passed, 0 failed"), "{shown}\n{noise}");
    println!("{last}");
}

/// Says it also when the test passes: the harness does not hold back what does not come from `println`.
fn loudly(line: &str) {
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
}
