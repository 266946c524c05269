//! The `condlora` program: everything is in the library's `cli` module.

use std::process::ExitCode;

fn main() -> ExitCode {
    condlora::cli::run(std::env::args_os())
}
