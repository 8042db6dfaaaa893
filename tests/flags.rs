//! docs/flags.md is what the program's own definition of its flags says, and so are the keys of recipes.
use clap::{Arg, Command, CommandFactory};
use milm_compress::{
    cli::{self, Cli},
    recipe::Recipe,
};
use std::{fmt::Write, fs, path::Path};

/// Verbs that recipes have as steps.
const STEPS: [&str; 5] = ["prune", "quantize", "eval", "run", "export"];

const HEAD: &str = "# Flags and keys\n
Every flag of every verb, as `--help` tells it. Where a key is marked, a step of a recipe takes it under the
flag's name ([recipes.md](recipes.md)), with the same default and range. This page is written by
`MILM_WRITE_FLAGS=1 cargo test flags::`, and a test compares it with the program.\n";

/// Whether a step of a recipe has this key, by what the program says of a recipe with it.
fn is_key(verb: &str, key: &str) -> bool {
    let text = format!("[[step]]\ndo = \"{verb}\"\n{key} = {{}}\n");
    let read = Recipe::parse("flags.toml", &text).map_err(anyhow::Error::from);
    let read = read.and_then(|it| cli::resolve("flags.toml", &it, "builtin:milm-mini"));
    let told = read.err().map(|error| format!("{error:#}")).unwrap_or_default();
    STEPS.contains(&verb) && !told.contains(&format!("unknown key `{key}`"))
}

/// Text in a cell of a table.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

fn row(verb: &str, arg: &Arg) -> String {
    let long = arg.get_long().map(|it| format!("`--{it}`"));
    let names = arg.get_value_names().unwrap_or_default();
    let name = names.first().map(ToString::to_string).unwrap_or_default();
    let flag = long.clone().unwrap_or_else(|| format!("`{name}`"));
    let values: Vec<String> =
        arg.get_possible_values().iter().map(|it| format!("`{}`", it.get_name())).collect();
    let takes = arg.get_action().takes_values() && long.is_some();
    let value = if !takes {
        String::new()
    } else if values.is_empty() {
        format!("`{}`", cell(&name))
    } else {
        values.join(" ")
    };
    let all = arg.get_default_values().iter().map(|it| format!("`{}`", it.to_string_lossy()));
    let default = if takes { all.collect::<Vec<_>>().join(" ") } else { String::new() };
    let key = arg.get_long().is_some_and(|it| is_key(verb, it));
    let key = if key { "✓" } else { "" };
    let help = cell(&arg.get_help().map(ToString::to_string).unwrap_or_default());
    format!("| {flag} | {value} | {default} | {key} | {help} |\n")
}

fn table<'a>(verb: &str, args: impl Iterator<Item = &'a Arg>) -> String {
    let rows: String = args.map(|arg| row(verb, arg)).collect();
    format!("| flag | value | default | key | |\n| --- | --- | --- | --- | --- |\n{rows}")
}

/// The page.
fn page() -> String {
    let mut program = Cli::command();
    program.build();
    let ours =
        |arg: &&Arg| !arg.is_hide_set() && !["help", "version"].contains(&arg.get_id().as_str());
    let mut page = HEAD.to_owned();
    let global = program.get_arguments().filter(|it| it.is_global_set()).filter(ours);
    write!(page, "\n## Every verb\n\n{}", table("", global)).unwrap();
    for verb in program.get_subcommands().filter(|it| !it.is_hide_set() && it.get_name() != "help")
    {
        let (name, about) = (verb.get_name(), verb.get_about().map(ToString::to_string));
        let own = Command::get_arguments(verb).filter(|it| !it.is_global_set()).filter(ours);
        let about = about.unwrap_or_default();
        write!(page, "\n## `{name}`\n\n{about}.\n\n{}", table(name, own)).unwrap();
    }
    page
}

#[test]
fn the_page_of_flags_is_what_the_program_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/flags.md");
    let page = page();
    if std::env::var_os("MILM_WRITE_FLAGS").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    let other = found.lines().zip(page.lines()).find(|(a, b)| a != b);
    assert!(found == page, "write docs/flags.md anew, with MILM_WRITE_FLAGS=1: {other:?}");
}

/// What the page says of keys is not said of all flags.
#[test]
fn keys_are_told_from_flags_that_are_none() {
    assert!(is_key("quantize", "damping") && is_key("prune", "keep") && is_key("eval", "min-top1"));
    assert!(!is_key("quantize", "output") && !is_key("prune", "dry-run"));
    assert!(!is_key("quantize", "invented") && !is_key("verify", "deep"));
}
