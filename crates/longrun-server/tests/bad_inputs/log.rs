//! What the server logs and counts, for the whole of this test program.

use std::io;
use std::sync::{Mutex, OnceLock};

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use tracing_subscriber::EnvFilter;

static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());
static METRICS: OnceLock<Snapshotter> = OnceLock::new();

struct Sink;

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Begins to listen, once for all tests of the program.
pub(crate) fn capture() {
    METRICS.get_or_init(|| {
        let filter =
            "longrun=debug,longrun_server=debug,longrun_snapshot=debug,longrun_store=debug,longrun_api=debug";
        tracing_subscriber::fmt()
            .with_ansi(false)
            .with_env_filter(EnvFilter::new(filter))
            .with_writer(|| Sink)
            .init();
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        recorder.install().unwrap();
        snapshotter
    });
}

/// Everything logged so far.
pub(crate) fn text() -> String {
    String::from_utf8_lossy(&LOG.lock().unwrap()).into_owned()
}

/// Every counter with its labels, as text, and what was counted since the program began.
///
/// The recorder starts anew when it is looked at, so what it has counted is summed up here.
pub(crate) fn counters() -> std::collections::BTreeMap<String, u64> {
    static SUMS: Mutex<std::collections::BTreeMap<String, u64>> =
        Mutex::new(std::collections::BTreeMap::new());
    let mut sums = SUMS.lock().unwrap();
    for (key, _, _, value) in METRICS.get().unwrap().snapshot().into_vec() {
        if let DebugValue::Counter(count) = value {
            let labels: Vec<_> =
                key.key().labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
            *sums.entry(format!("{}{{{}}}", key.key().name(), labels.join(","))).or_default() += count;
        }
    }
    sums.clone()
}

/// What a counter has come to.
pub(crate) fn counter(name: &str) -> u64 {
    counters().get(name).copied().unwrap_or(0)
}
