//! What every verb is given: threads, seed, progress.
use super::{Global, progress::Bars};
use crate::{checkpoint, linalg::Team, progress::Progress};
use std::io::IsTerminal;

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
        let threads = match global.threads {
            Some(threads) => threads,
            None => std::thread::available_parallelism()?,
        };
        // Loops that rayon shares out take their threads from its global pool.
        if let Err(error) =
            rayon::ThreadPoolBuilder::new().num_threads(threads.get()).build_global()
        {
            tracing::debug!("thread pool: {error}");
        }
        log(global);
        leave_nothing_on_interrupt();
        Ok(Self {
            team: Team::new(threads.get()),
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

    /// A line for people, on stderr; not with `--quiet`.
    #[expect(clippy::print_stderr, reason = "the command line prints")]
    pub fn note(&self, line: impl std::fmt::Display) {
        if !self.quiet {
            self.bars.suspend(|| eprintln!("{line}"));
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
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let started = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(format!("milm_compress={level}")))
        .with_writer(std::io::stderr)
        .with_ansi(colour)
        .without_time()
        .with_target(false)
        .try_init();
    if let Err(error) = started {
        tracing::debug!("log: {error}");
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
