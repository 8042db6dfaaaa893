//! The command line: one file per verb; the only module that prints.
//!
//! Add a verb: one file with its `Args` and `run`, one line in `Verb` and one in [`run`].
mod bench;
mod between;
mod calibrate;
mod calibration;
mod choice;
mod compress;
mod context;
mod device;
mod eval;
mod export;
mod form;
mod heads;
mod inspect;
mod import;
mod logits;
mod measure;
mod model;
#[cfg(test)]
mod numbers;
mod output;
mod progress;
mod prune;
mod quantize;
mod recover;
mod report;
mod resident;
mod run;
mod sbom;
mod sign;
mod speculation;
mod stderr;
mod steps;
mod synth;
mod verify;

pub use context::{Context, Outcome};
pub use steps::resolve;

use crate::number::whole;
use clap::{Args, CommandFactory, Parser, Subcommand};

/// Makes language models small enough for phones, cars and speakers, and proves what that cost.
#[derive(Debug, Parser)]
#[command(name = "milm-compress", version, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

/// Flags of every verb.
#[derive(Args, Clone, Debug, Default)]
pub struct Global {
    /// Show no progress and no notes; errors and results only
    #[arg(long, short, global = true)]
    quiet: bool,
    /// Log more (-v: what is done, -vv: in detail) to stderr
    #[arg(long, short, global = true, action = clap::ArgAction::Count, conflicts_with = "quiet")]
    verbose: u8,
    /// Threads to use, at most 1024 [default: all processors]
    #[arg(long, global = true, value_name = "N", value_parser = whole::<usize>(1..=1024))]
    threads: Option<usize>,
    /// Seed of everything random; same seed, same bytes
    #[arg(long, global = true, value_name = "N", default_value_t = 0, value_parser = whole::<u64>(0..))]
    seed: u64,
    /// Replace an output that exists
    #[arg(long, global = true)]
    force: bool,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Compress(compress::Args),
    Import(import::Args),
    Export(export::Args),
    Calibrate(calibrate::Args),
    Inspect(inspect::Args),
    Prune(prune::Args),
    Recover(Box<recover::Args>),
    Heads(heads::Args),
    Quantize(quantize::Args),
    Sbom(sbom::Args),
    Sign(sign::Args),
    Verify(verify::Args),
    Eval(Box<eval::Args>),
    Report(report::Args),
    Run(run::Args),
    Bench(bench::Args),
    Logits(logits::Args),
    Synth(synth::Args),
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page (roff)
    #[command(hide = true)]
    Man,
}

/// Tells why the program ends, on stderr: causes first, each said once, what to do last.
pub fn tell_error(error: &anyhow::Error) {
    let mut told = String::new();
    let mut hints: Vec<String> = Vec::new();
    for cause in error.chain().map(ToString::to_string) {
        let (what, hint) =
            cause.rsplit_once("\nhint: ").map_or((&*cause, None), |(a, b)| (a, Some(b)));
        // Many name their cause in their own words already.
        if !told.contains(what) {
            told = if told.is_empty() { what.to_owned() } else { format!("{told}: {what}") };
        }
        hints.extend(hint.map(|it| format!("\nhint: {it}")).filter(|it| !hints.contains(it)));
    }
    stderr::line(&format!("error: {told}{}", hints.concat()));
}

/// Parses nothing, runs everything: the program after its arguments are read.
pub fn run(cli: Cli) -> anyhow::Result<Outcome> {
    let context = Context::new(&cli.global)?;
    match cli.verb {
        Verb::Compress(args) => compress::run(&args, &context),
        Verb::Calibrate(args) => calibrate::run(&args, &context),
        Verb::Import(args) => import::run(&args, &context),
        Verb::Export(args) => export::run(&args, &context),
        Verb::Inspect(args) => inspect::run(&args, &context),
        Verb::Prune(args) => prune::run(&args, &context),
        Verb::Heads(args) => heads::run(&args, &context),
        Verb::Recover(args) => recover::run(&args, &context),
        Verb::Quantize(args) => quantize::run(&args, &context),
        Verb::Sbom(args) => sbom::run(&args, &context),
        Verb::Sign(args) => sign::run(&args, &context),
        Verb::Verify(args) => verify::run(&args, &context),
        Verb::Eval(args) => eval::run(&args, &context),
        Verb::Report(args) => report::run(&args, &context),
        Verb::Run(args) => run::run(&args, &context),
        Verb::Bench(args) => bench::run(&args, &context),
        Verb::Logits(args) => logits::run(&args, &context),
        Verb::Synth(args) => synth::run(&args, &context),
        Verb::Completions { shell } => {
            // The library takes no failing writer.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "milm-compress", &mut script);
            output::text(&String::from_utf8(script)?)?;
            Ok(Outcome::Done)
        }
        Verb::Man => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut page)?;
            output::text(&String::from_utf8(page)?)?;
            Ok(Outcome::Done)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// clap itself asks this in builds with debug assertions only, and ends the program there.
    #[test]
    fn groups_of_flags_have_names_of_their_own() {
        let mut command = Cli::command();
        command.build();
        for verb in command.get_subcommands() {
            let groups: Vec<_> = verb.get_groups().map(clap::ArgGroup::get_id).collect();
            let names: BTreeSet<_> = groups.iter().collect();
            assert_eq!(names.len(), groups.len(), "{}: {groups:?}", verb.get_name());
        }
    }
}
