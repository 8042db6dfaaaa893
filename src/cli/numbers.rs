//! Every number that the program is given, as a flag or as a key of a recipe: what is out of range is
//! refused before any work, by a message with its name, its range and what was found.
use super::{Cli, eval, export, prune, quantize, recover, run};
use crate::recipe::{Step, Verb};
use clap::{Arg, ArgAction, Args, Command, CommandFactory as _, error::ErrorKind};
use serde::de::DeserializeOwned;
use std::{any::TypeId, collections::BTreeSet, fmt::Debug, path::PathBuf};
use toml::{Table, Value};

/// A flag, how its range is told, what is refused, what is accepted: the edges of the range.
type Row = (&'static str, &'static str, &'static [&'static str], &'static [&'static str]);

const ABOVE_U64: &str = "18446744073709551616";
/// No count: `COUNT` has 1 as its least.
const NO_COUNT: &[&str] = &["-1", "0", "1.5", "nan", "inf", "", "x", ABOVE_U64];
const NO_WHOLE: &[&str] = &["-1", "0.5", "nan", "inf", "", ABOVE_U64];
const NO_PAIR: &[&str] = &["-1", "0", "1", "2.5", "nan", ABOVE_U64];
const NO_RIDGE: &[&str] = &["-1", "-0.001", "nan", "inf", "-inf", "1e999", "", "x"];
const NO_AMOUNT: &[&str] = &["-1", "0", "nan", "inf", "1e999", "", "x"];
const NO_SIZE: &[&str] =
    &["-1", "0", "nan", "inf", "", "MB", "-1MB", "0MB", "99999999999999999999GB"];

const ROWS: &[Row] = &[
    // Of every verb.
    ("seed", "a whole number of at least 0", NO_WHOLE, &["0", "18446744073709551615"]),
    (
        "threads",
        "a whole number from 1 up to 1024",
        &["-1", "0", "1.5", "nan", "1025"],
        &["1", "1024"],
    ),
    // Calibration.
    (
        "calibration",
        "a weight above 0",
        &["a=0", "a=-1", "a=nan", "a=inf", "=2"],
        &["a=0.001", "a"],
    ),
    (
        "calibration-samples",
        "from 1 up to 4294967295",
        &["-1", "0", "1.5", "nan", "4294967296"],
        &["1", "4294967295"],
    ),
    ("calibration-tokens", "of at least 2", NO_PAIR, &["2"]),
    // Pruning.
    ("target-params", "an amount such as", NO_SIZE, &["1", "0.5K", "8999TB"]),
    ("target-bytes", "an amount such as", NO_SIZE, &["1", "0.5K"]),
    (
        "keep",
        "above 0 and up to 1",
        &["-1", "0", "1.001", "nan", "inf", "80%"],
        &["0.001", "1", "1.0"],
    ),
    ("attn-width", "of at least 1", NO_COUNT, &["1"]),
    ("ffn-width", "of at least 1", NO_COUNT, &["1"]),
    ("drop-layers", "of at least 1", NO_COUNT, &["1"]),
    ("shots", "from 1 up to 64", &["-1", "0", "1.5", "nan", "65"], &["1", "64"]),
    ("balance", "from 0 up to 1", &["-0.001", "1.001", "nan", "inf"], &["0", "1", "1.0"]),
    ("multiple", "of at least 1", NO_COUNT, &["1"]),
    (
        "measure-windows",
        "from 0 up to 4294967295",
        &["-1", "0.5", "nan", "4294967296"],
        &["0", "4294967295"],
    ),
    ("measure-tokens", "of at least 2", NO_PAIR, &["2"]),
    // Learning.
    ("block-epochs", "from 0 up to 1000", &["-1", "0.5", "nan", "1001"], &["0", "1000"]),
    ("epochs", "up to 1000", &["-1", "0.5", "nan", "1001"], &["1", "1000"]),
    ("heads", "from 1 up to 16", &["-1", "0", "1.5", "nan", "17"], &["1", "16"]),
    ("draft-vocabulary", "from 2 up to 16777216", NO_PAIR, &["2", "16777216"]),
    ("block-rate", "above 0", NO_AMOUNT, &["0.0001", "1"]),
    ("learning-rate", "above 0", NO_AMOUNT, &["0.0001", "1"]),
    ("distill-temperature", "above 0", NO_AMOUNT, &["0.5", "1.0"]),
    ("gradient-clip", "above 0", NO_AMOUNT, &["0.5", "1.0"]),
    ("weight-decay", "of at least 0", &["-1", "nan", "inf", ""], &["0", "0.1"]),
    ("step-windows", "from 1 up to 65536", &["-1", "0", "1.5", "nan", "65537"], &["1", "65536"]),
    (
        "validation-windows",
        "from 1 up to 4294967295",
        &["-1", "0", "0.5", "nan", "4294967296"],
        &["1", "4294967295"],
    ),
    // Quantization, and the repair of a cut.
    ("damping", "a number of at least 0", NO_RIDGE, &["0", "0.0"]),
    ("target-damping", "a number of at least 0", NO_RIDGE, &["0", "0.0"]),
    (
        "group-size",
        "32, 64, 128 or channel",
        &["-1", "0", "1.5", "nan", "48", "256"],
        &["32", "128", "channel"],
    ),
    ("sweeps", "of at least 0", NO_WHOLE, &["0"]),
    (
        "tune-samples",
        "from 1 up to 4294967295",
        &["-1", "0", "0.5", "nan", "4294967296"],
        &["1", "4294967295"],
    ),
    ("tune-epochs", "from 1 up to 1000", &["-1", "0", "0.5", "nan", "1001"], &["1", "1000"]),
    ("tune-rate", "above 0", NO_AMOUNT, &["0.0001", "1"]),
    ("outliers", "above 0 and up to 0.5", &["-1", "0", "0.501", "nan", "inf"], &["0.001", "0.5"]),
    (
        "avg-bits",
        "above 0 and up to 64",
        &["-1", "0", "64.5", "nan", "inf"],
        &["0.1", "64", "64.0"],
    ),
    ("max-bytes", "a size such as", NO_SIZE, &["1", "1KB"]),
    (
        "rule",
        "32, 64, 128 or channel",
        &["a=w4a16-g0", "a=w4a16-g-32", "a=w4a16-g1.5"],
        &["a=w4a16-g32"],
    ),
    ("shard-size", "a size such as", NO_SIZE, &["1", "1KB"]),
    ("rotate-block", "of at least 1", NO_COUNT, &["1"]),
    ("memory", "a size such as", NO_SIZE, &["1", "1KB"]),
    // Measurement.
    ("ctx", "of at least 2", NO_PAIR, &["2"]),
    ("stride", "of at least 1", NO_COUNT, &["1"]),
    ("windows", "of at least 1", NO_COUNT, &["1"]),
    ("max-kl", "a number of at least 0", NO_RIDGE, &["0", "0.0"]),
    (
        "max-ppl-increase",
        "2% or 0.02",
        &["-1%", "-0.1", "1", "nan", "inf", "inf%", "%"],
        &["0%", "0", "200%"],
    ),
    (
        "min-top1",
        "from 0 to 100%",
        &["-1%", "-0.1", "1", "101%", "nan", "inf", "%"],
        &["0", "100%", "0.999"],
    ),
    (
        "gate",
        "hint: ",
        &["kl <= nan", "kl <= inf", "kl <= x", "kl"],
        &["kl <= 0", "ceval loss <= 1%"],
    ),
    ("limit", "of at least 1", NO_COUNT, &["1"]),
    ("num-fewshot", "of at least 0", NO_WHOLE, &["0"]),
    ("task-window", "of at least 1", NO_COUNT, &["1"]),
    ("batch", "of at least 1", NO_COUNT, &["1"]),
    // Text.
    ("max-tokens", "of at least 0", NO_WHOLE, &["0"]),
    ("temperature", "a number of at least 0", &["-1", "nan", "inf", "1e39"], &["0", "0.0"]),
    ("top-k", "of at least 0", NO_WHOLE, &["0"]),
    ("top-p", "above 0 and up to 1", &["-1", "0", "1.001", "nan", "inf"], &["0.001", "1", "1.0"]),
    ("min-p", "from 0 up to 1", &["-0.001", "1.001", "nan", "inf"], &["0", "1", "1.0"]),
    ("repetition-penalty", "a number above 0", &["-1", "0", "nan", "inf"], &["0.001", "1"]),
    // Speed, and logits.
    ("prefill", "of at least 1", NO_COUNT, &["1"]),
    ("decode", "of at least 1", NO_COUNT, &["1"]),
    ("context", "of at least 0", NO_WHOLE, &["0"]),
    ("draft-tokens", "from 1 up to 64", &["-1", "0", "1.5", "nan", "65"], &["1", "64"]),
    ("acceptance", "from 0 up to 1", &["-0.001", "1.001", "nan", "inf"], &["0", "0.7", "1"]),
    // A number in `export`, a text in `run` and `bench`.
    ("prompt", "of at least 1", NO_COUNT, &["1"]),
    ("repeats", "from 1 up to 65535", &["-1", "0", "1.5", "nan", "65536"], &["1", "65535"]),
    (
        "ids",
        "from 0 up to 4294967295",
        &["-1", "1.5", "nan", "4294967296", "1,-2"],
        &["0", "4294967295", "1,2"],
    ),
];

/// The fewest arguments of a verb.
fn fewest(verb: &str) -> &'static [&'static str] {
    match verb {
        "compress" => &["r.toml", "-o", "out", "--device=x86"],
        "import" | "sbom" | "report" | "calibrate" | "heads" => &["m", "-o", "out"],
        "export" => &["m", "--to=gguf", "-o", "out", "--device=x86"],
        "prune" => &["m", "--dry-run"],
        "recover" => &["m", "--parent=p", "-o", "out"],
        "quantize" => &["m", "--dry-run", "--device=x86"],
        "verify" => &["m", "--device=x86"],
        "sign" => &["m", "--key=k"],
        "eval" => &["m", "--tasks=sample"],
        "run" => &["m", "--prompt=a"],
        "logits" => &["m", "-o", "out", "--ids=1"],
        "synth" => &["--shape=tiny", "-o", "out"],
        "completions" => &["bash"],
        "man" => &[],
        _ => &["m"],
    }
}

/// Whether a flag takes more than a text, a path, a yes or no, or one of some words.
fn is_number(flag: &Arg) -> bool {
    let parser = flag.get_value_parser();
    let kinds = [TypeId::of::<String>(), TypeId::of::<PathBuf>(), TypeId::of::<bool>()];
    let takes_value = matches!(flag.get_action(), ArgAction::Set | ArgAction::Append);
    takes_value && !kinds.iter().any(|it| parser.type_id() == *it) && !has_words(flag)
}

fn has_words(flag: &Arg) -> bool {
    flag.get_value_parser().possible_values().is_some()
}

/// Numeric flags of a command that the table does not know.
fn unknown(command: &Command) -> Vec<String> {
    let flags = command.get_arguments().filter(|flag| is_number(flag));
    let names = flags.map(|flag| flag.get_long().unwrap_or(flag.get_id().as_str()).to_owned());
    names.filter(|name| ROWS.iter().all(|row| row.0 != name)).collect()
}

/// The whole program, with the flags of every verb in each.
fn program() -> Command {
    let mut command = Cli::command();
    command.build();
    command
}

#[test]
fn every_numeric_flag_is_in_the_table() {
    let mut seen = BTreeSet::new();
    for verb in program().get_subcommands() {
        assert_eq!(
            unknown(verb),
            [""; 0],
            "of `{}`: give its range and a row here",
            verb.get_name()
        );
        seen.extend(verb.get_arguments().filter_map(|it| it.get_long().map(str::to_owned)));
    }
    let stale: Vec<_> = ROWS.iter().filter(|row| !seen.contains(row.0)).collect();
    assert!(stale.is_empty(), "no verb has these: {stale:?}");
    // A flag that is added is seen.
    let more = Arg::new("x").long("size").value_parser(clap::value_parser!(u32));
    assert_eq!(unknown(&Command::new("x").arg(more)), ["size"]);
}

#[test]
fn flags_refuse_what_is_out_of_range() {
    for verb in program().get_subcommands().filter(|it| it.get_name() != "help") {
        let name = verb.get_name();
        let parse = |more: Option<&str>| {
            let line =
                ["milm-compress", name].into_iter().chain(fewest(name).iter().copied()).chain(more);
            Cli::command().try_get_matches_from(line)
        };
        parse(None).unwrap();
        let has = |row: &&Row| {
            let mut flags = verb.get_arguments();
            flags.any(|it| it.get_long() == Some(row.0) && is_number(it))
        };
        for (flag, range, refused, accepted) in ROWS.iter().filter(has) {
            for value in *refused {
                let error = parse(Some(&format!("--{flag}={value}"))).expect_err(value);
                let told = error.to_string();
                assert_eq!(error.kind(), ErrorKind::ValueValidation, "{name}: {told}");
                let found = value.rsplit(',').next().unwrap();
                let has_all = [found, &format!("--{flag}"), range];
                assert!(has_all.iter().all(|it| told.contains(it)), "{name} {value}: {told}");
            }
            for value in *accepted {
                parse(Some(&format!("--{flag}={value}"))).unwrap_or_else(|error| panic!("{error}"));
            }
        }
    }
}

/// A value as people write it in TOML.
fn value(text: &str, flag: &Arg) -> Value {
    let one = match (text.parse::<i64>(), text.parse::<f64>()) {
        (Ok(number), _) => Value::Integer(number),
        (_, Ok(number)) => Value::Float(number),
        _ => Value::String(text.to_owned()),
    };
    if matches!(flag.get_action(), ArgAction::Append) { vec![one].into() } else { one }
}

/// Settings of a step with a single key.
fn read<T: DeserializeOwned + Args>(verb: Verb, key: &str, value: Value) -> Result<T, String> {
    let step = Step { verb, settings: Table::from_iter([(key.to_owned(), value)]) };
    step.settings("r.toml").map_err(|error| error.to_string())
}

fn keys_refuse<T: DeserializeOwned + Args + Debug>(verb: Verb) -> usize {
    let flags = T::augment_args(Command::new(verb.name()));
    let numeric = flags.get_arguments().filter(|flag| is_number(flag));
    let mut count = 0;
    for flag in numeric {
        let key = flag.get_long().unwrap();
        let (_, range, refused, accepted) = ROWS.iter().find(|row| row.0 == key).unwrap();
        for text in *refused {
            let told = read::<T>(verb, key, value(text, flag)).expect_err(text);
            let has_all = [verb.name(), &format!("`{key}`: "), range];
            assert!(has_all.iter().all(|it| told.contains(it)), "{key} {text}: {told}");
        }
        for text in *accepted {
            read::<T>(verb, key, value(text, flag)).unwrap_or_else(|error| panic!("{error}"));
        }
        count += 1;
    }
    count
}

#[test]
fn keys_of_recipes_have_the_ranges_of_their_flags() {
    let counts = [
        keys_refuse::<prune::Settings>(Verb::Prune),
        keys_refuse::<recover::Settings>(Verb::Recover),
        keys_refuse::<quantize::Settings>(Verb::Quantize),
        keys_refuse::<eval::Settings>(Verb::Eval),
        keys_refuse::<run::Settings>(Verb::Run),
        keys_refuse::<export::Settings>(Verb::Export),
    ];
    assert!(counts[..5].iter().all(|count| *count > 4), "{counts:?}");
}
