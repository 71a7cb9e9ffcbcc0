//! A second process on the same folder: refused, and the first one does not notice.

use anyhow::{bail, ensure};
use longrun_folder::OpenError;

use super::super::child::{self, READY_WITHIN, WriterPlan, await_ready};
use super::super::verify::Mode;
use super::Bench;

pub(super) fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let ground = bench.ground("second")?;
    let plan = WriterPlan { seed: bench.dice.next(), operations: Some(120), ..WriterPlan::default() };
    let mut writer = child::writer(&ground, &plan)?;
    ensure!(await_ready(&ground, 0)?, "the writer does not start");
    let mut result = Ok(());
    for _ in 0..5 {
        result = match ground.open_kv() {
            Err(OpenError::Locked { .. }) => Ok(()),
            Err(other) => Err(anyhow::anyhow!("not the right error: {other:?}")),
            Ok(_) => Err(anyhow::anyhow!("a second handle was given out")),
        };
        if result.is_err() {
            break;
        }
    }
    bench.check("a second process is refused", result);
    let ended = writer.wait(READY_WITHIN)?;
    let result = match ended {
        Some(status) if status.success() => bench.whole(&ground, Mode { look: false, tell: true }),
        other => (|| bail!("the first process ended with {other:?}"))(),
    };
    bench.check("the first process does not notice a second one", result);
    Ok(())
}
