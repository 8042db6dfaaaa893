//! What every verb is given: threads, seed, progress.
use super::{Global, progress::Bars, stderr};
use crate::{checkpoint, linalg::Team, progress::Progress};
use anyhow::Context as _;
use std::io::{self, IsTerminal, Write};

/// How a verb ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done; exit code 0.
    Done,
    /// Done, but a quality gate failed; exit code 1.
    GateFailed,
}

impl Outcome {
    /// The worse of two.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        if self == Self::Done { other } else { self }
    }
}

/// The surroundings of a verb.
#[derive(Debug)]
pub struct Context {
    /// Threads for the numeric work.
    pub team: Team,
    /// Seed of everything random.
    pub seed: u64,
    /// An output that exists may be replaced.
    pub force: bool,
    /// Notes on stderr are unwanted.
    pub quiet: bool,
    bars: Bars,
}

impl Context {
    pub(super) fn new(global: &Global) -> anyhow::Result<Self> {
        log(global);
        let threads = match global.threads {
            Some(threads) => threads,
            None => std::thread::available_parallelism()?.get(),
        };
        // Loops that rayon shares out take their threads from its global pool.
        rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().with_context(|| {
            format!("{threads} threads cannot be started\nhint: take fewer with --threads")
        })?;
        leave_nothing_on_interrupt();
        Ok(Self {
            team: Team::new(threads),
            seed: global.seed,
            force: global.force,
            quiet: global.quiet,
            bars: Bars::new(!global.quiet && std::io::stderr().is_terminal()),
        })
    }

    /// Where long work reports its progress.
    pub fn progress(&self) -> &dyn Progress {
        &self.bars
    }

    /// Lines for people whose entries are escaped already, on stderr; not with `--quiet`.
    pub fn table(&self, lines: String) {
        if !self.quiet {
            self.bars.suspend(|| stderr::lines(&lines));
        }
    }

    /// A line for people, on stderr; not with `--quiet`.
    pub fn note(&self, line: impl std::fmt::Display) {
        if !self.quiet {
            self.bars.suspend(|| stderr::line(&line.to_string()));
        }
    }
}

fn log(global: &Global) {
    let level = match (global.quiet, global.verbose) {
        (true, _) => "error",
        (false, 0) => "warn",
        (false, 1) => "info",
        (false, _) => "debug",
    };
    let started = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(format!("milm_compress={level}")))
        .with_writer(|| Log)
        .with_ansi(false)
        .log_internal_errors(false)
        .without_time()
        .with_target(false)
        .try_init();
    if let Err(error) = started {
        tracing::debug!("log: {error}");
    }
}

/// Takes an event a call; shows it as a note.
struct Log;

impl Write for Log {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        stderr::line(String::from_utf8_lossy(event).trim_end());
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Ctrl-C and termination remove unfinished outputs before the program ends.
fn leave_nothing_on_interrupt() {
    #[expect(clippy::exit, reason = "the handler runs on a thread of its own")]
    let handler = || {
        checkpoint::remove_unfinished();
        std::process::exit(130);
    };
    if let Err(error) = ctrlc::set_handler(handler) {
        tracing::warn!("Ctrl-C will leave unfinished outputs behind: {error}");
    }
}
