//! Engines on one PostgreSQL, while everything around them fails. See [`longrun_testkit::chaos`].

use std::process::ExitCode;

fn main() -> ExitCode {
    longrun_testkit::chaos::main()
}
