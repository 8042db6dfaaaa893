//! The `milm-compress` program: reads its arguments, runs the verb, maps errors to exit codes.
use clap::Parser;
use milm_compress::{
    cli::{self, Cli, Outcome},
    text::apart::{self, Guard},
};
use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|it| it == apart::ARGUMENT) {
        return apart::serve(std::env::args().skip(2));
    }
    match Guard::of_this_program() {
        Ok(guard) => guard.install(),
        Err(error) => return ended(Err(error.into()), 0),
    }
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
