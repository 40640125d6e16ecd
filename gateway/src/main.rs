//! The binary: everything that it does is in the library.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::Parser;
use gateway::cli::{self, Cli};

fn main() -> ExitCode {
    // First of all: whatever speaks TLS later finds this provider. It fails only if one is there already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match cli::run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // A closed standard error leaves the exit code, which says the rest.
            let _ = writeln!(io::stderr(), "acmegate: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}
