//! Crash tests of real stores. See [`longrun_testkit::crash`].

use std::process::ExitCode;

fn main() -> ExitCode {
    longrun_testkit::crash::main()
}
