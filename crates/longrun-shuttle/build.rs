//! Sets `cfg(longrun_shuttle)` for the store, and prepares files of the project for tests: single ones, with shuttle's primitives and with
//! mistakes, and the whole store with a mistake in its committer.
// A panic is how a build script fails.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::{env, fs};

/// What replaces what. A text that is not there, or more than once, is an error: the file has changed, and this has to follow.
type Change = (&'static str, &'static str);

const GATE: &str = "../longrun-store/src/gate.rs";
const WAITERS: &str = "../longrun/src/waiters.rs";
const STORE: &str = "../longrun-store/src";

const WAITERS_ON_SHUTTLE: &[Change] = &[(
    "use std::sync::{Arc, Mutex, OnceLock, Weak};",
    "use std::sync::{Arc, OnceLock, Weak};\n\nuse shuttle::sync::Mutex;",
)];

fn main() {
    println!("cargo::rustc-cfg=longrun_shuttle");
    println!("cargo::rerun-if-changed=build.rs");

    write("gate", GATE, &[]);
    // Who waits counts itself before it looks, and who settles looks after it has written.
    write(
        "gate_counts_before_it_writes",
        GATE,
        &[
            (
                "        self.settled.store(self.begun.load(Ordering::SeqCst), Ordering::SeqCst);\n",
                "        let waiting = self.waiting.load(Ordering::SeqCst);\n        \
                 self.settled.store(self.begun.load(Ordering::SeqCst), Ordering::SeqCst);\n",
            ),
            ("if self.waiting.load(Ordering::SeqCst) > 0 {", "if waiting > 0 {"),
        ],
    );
    write(
        "gate_subscribes_after_it_looks",
        GATE,
        &[
            ("        let mut state = self.state.subscribe();\n", ""),
            (
                "        _ = state.wait_for(enough).await;\n",
                "        if !enough(&self.state.borrow()) {\n            \
                 let mut state = self.state.subscribe();\n            \
                 _ = state.changed().await;\n        }\n",
            ),
        ],
    );
    write("gate_forgets_restarts", GATE, &[("if after.restarts == before.restarts {", "if true {")]);
    write(
        "gate_does_not_wait",
        GATE,
        &[("                self.settled_until(begun, before.restarts).await;\n", "")],
    );
    write("gate_looks_once", GATE, &[(" && self.gate.begun.load(Ordering::SeqCst) == self.begun", "")]);

    write("waiters", WAITERS, WAITERS_ON_SHUTTLE);
    write(
        "waiters_tell_before_they_keep",
        WAITERS,
        &with(
            WAITERS_ON_SHUTTLE,
            &[(
                "            awaited.operation.get_or_init(operation);\n            awaited.notify.notify_waiters();\n",
                "            awaited.notify.notify_waiters();\n            awaited.operation.get_or_init(operation);\n",
            )],
        ),
    );
    write(
        "waiters_subscribe_when_they_wait",
        WAITERS,
        &with(
            WAITERS_ON_SHUTTLE,
            &[(
                "        self.notified.as_mut().await;\n",
                "        let awaited = self.awaited.clone();\n        let notify = awaited.map(|awaited| Arc::clone(&awaited.notify));\n        \
                 self.notified = Box::pin(notify.unwrap_or_default().notified_owned());\n        \
                 self.notified.as_mut().await;\n",
            )],
        ),
    );
    write(
        "waiters_take_the_entry_of_others",
        WAITERS,
        &with(
            WAITERS_ON_SHUTTLE,
            &[("if ends.get(&self.id).is_some_and(|end| end.strong_count() == 0) {", "{")],
        ),
    );

    // The committer cannot be had without the store around it.
    write_store(
        "store_answers_before_it_writes",
        &[(
            "        let result = if overlay.batch.writes.is_empty()",
            "        answers.drain(..).for_each(|answer| answer.tell(None));\n        \
             let result = if overlay.batch.writes.is_empty()",
        )],
    );
    write_store(
        "store_refuses_at_once",
        &[(
            "                self.gather(work, &mut overlay, bytes_max)\n",
            "                match self.gather(work, &mut overlay, bytes_max) {\n                    \
             Answer::Done(reply, Err(error)) => {\n                        \
             _ = reply.send(Err(error));\n                        \
             continue;\n                    \
             }\n                    \
             answer => answer,\n                \
             }\n",
        )],
    );
}

fn with(changes: &[Change], more: &[Change]) -> Vec<Change> {
    [changes, more].concat()
}

/// Writes a file of the project as one to be included: without its head, its own tests, and with these changes.
fn write(name: &str, from: &str, changes: &[Change]) {
    let text = without_head(&without_tests(from));
    fs::write(out().join(format!("{name}.rs")), changed(from, text, changes)).unwrap();
}

/// Writes the store as a module of this name, at the root of the test that includes its `lib.rs`. The changes are to its committer.
fn write_store(name: &str, changes: &[Change]) {
    println!("cargo::rerun-if-changed={STORE}");
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        fs::create_dir_all(out().join(name).join(&folder)).unwrap();
        for entry in fs::read_dir(Path::new(STORE).join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let file = folder.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                folders.push(file);
                continue;
            }
            let from = format!("{STORE}/{}", file.display());
            let text = without_tests(&from).replace("crate::", &format!("crate::{name}::"));
            // Its macros would be those of the test, which uses none.
            let mut text = text.replace("#[macro_export]\n", "");
            match file.to_str() {
                Some("lib.rs") => text = without_head(&text),
                Some("committer.rs") => text = changed(&from, text, changes),
                _ => {}
            }
            fs::write(out().join(name).join(file), text).unwrap();
        }
    }
}

fn out() -> PathBuf {
    env::var_os("OUT_DIR").unwrap().into()
}

fn without_tests(from: &str) -> String {
    println!("cargo::rerun-if-changed={from}");
    let text = fs::read_to_string(from).unwrap();
    text.split("\n#[cfg(test)]\nmod tests {").next().unwrap().to_owned()
}

fn without_head(text: &str) -> String {
    text.replace("\n//!", "\n// ").replacen("//!", "// ", 1)
}

fn changed(from: &str, mut text: String, changes: &[Change]) -> String {
    for (old, new) in changes {
        let found = text.matches(old).count();
        assert_eq!(found, 1, "{from} has to contain {old:?} once, this file has to follow it");
        text = text.replace(old, new);
    }
    text
}
