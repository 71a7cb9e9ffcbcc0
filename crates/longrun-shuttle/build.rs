//! Sets `cfg(longrun_shuttle)` for the store, and prepares single files of others for tests: with shuttle's primitives, and with mistakes.
// A panic is how a build script fails.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::{env, fs};

/// What replaces what. A text that is not there, or more than once, is an error: the file has changed, and this has to follow.
type Change = (&'static str, &'static str);

const GATE: &str = "../longrun-store/src/gate.rs";
const WAITERS: &str = "../longrun/src/waiters.rs";

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
}

fn with(changes: &[Change], more: &[Change]) -> Vec<Change> {
    [changes, more].concat()
}

/// Writes a file of the project as one to be included: without its head, its own tests, and with these changes.
fn write(name: &str, from: &str, changes: &[Change]) {
    println!("cargo::rerun-if-changed={from}");
    let text = fs::read_to_string(from).unwrap();
    let mut text = text
        .split("\n#[cfg(test)]\nmod tests {")
        .next()
        .unwrap()
        .replace("\n//!", "\n// ")
        .replacen("//!", "// ", 1);
    for (old, new) in changes {
        let found = text.matches(old).count();
        assert_eq!(found, 1, "{from} has to contain {old:?} once, this file has to follow it");
        text = text.replace(old, new);
    }
    let out = env::var_os("OUT_DIR").unwrap();
    fs::write(Path::new(&out).join(format!("{name}.rs")), text).unwrap();
}
