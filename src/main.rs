//! The `milm-compress` program: reads its arguments, runs the verb, maps errors to exit codes.
use clap::Parser;
use milm_compress::cli::{self, Cli, Outcome};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help that was asked for is a result: one that cannot be written is an error.
        Err(usage) => return ended(usage.print().map_err(Into::into), usage.exit_code() as u8),
    };
    match cli::run(cli) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::GateFailed) => ExitCode::from(1),
        Err(error) => ended(Err(error), 0),
    }
}

fn ended(result: anyhow::Result<()>, code: u8) -> ExitCode {
    match result {
        Ok(()) => ExitCode::from(code),
        Err(error) if broken_pipe(&error) => ExitCode::from(code),
        Err(error) => {
            cli::tell_error(&error);
            ExitCode::from(2)
        }
    }
}

/// The reader of stdout went away (`milm-compress … | head`): that is success.
fn broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}
