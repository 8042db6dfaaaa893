//! What documents and examples say of the program: the program takes each command, has each flag and reads each recipe.
use crate::tidy::imports::{rust_files, test_lines};
use clap::{
    Command, CommandFactory, Parser,
    error::{ContextKind, ContextValue, ErrorKind},
};
use milm_compress::{
    cli::{self, Cli},
    device::Profile,
    eval::suite::Suite,
    recipe::Recipe,
};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Flags in inline code of documents that are other programs', with the program.
const FOREIGN: &[(&str, &str)] = &[
    ("--ignored", "cargo test"),
    ("--kl-divergence-base", "llama-perplexity"),
    ("--no-default-features", "cargo"),
    ("--path", "cargo install"),
    ("--release", "cargo"),
    ("--strict", "kubernetes-validate"),
    ("--text-helper", "the program to itself, in place of a verb"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// README.md and the documents, with their text.
fn documents() -> Vec<(String, String)> {
    let entries = fs::read_dir(root().join("docs")).unwrap().map(|it| it.unwrap().path());
    let mut paths: Vec<PathBuf> =
        entries.filter(|it| it.extension().is_some_and(|it| it == "md")).collect();
    paths.push(root().join("README.md"));
    paths.sort();
    let read = |path: PathBuf| {
        let name = path.strip_prefix(root()).unwrap().display().to_string();
        (name, fs::read_to_string(path).unwrap())
    };
    paths.into_iter().map(read).collect()
}

/// A fenced block of a document.
struct Block<'a> {
    language: &'a str,
    /// The number of its first line.
    first: usize,
    lines: Vec<&'a str>,
}

/// The fenced blocks of a document, and its other lines with their numbers.
fn parts(text: &str) -> (Vec<Block<'_>>, Vec<(usize, &str)>) {
    let (mut blocks, mut prose) = (vec![], vec![]);
    let mut lines = text.lines().zip(1..);
    while let Some((line, number)) = lines.next() {
        let Some(language) = line.trim_start().strip_prefix("```") else {
            prose.push((number, line));
            continue;
        };
        let inside = lines.by_ref().map(|(line, _)| line);
        let lines = inside.take_while(|line| line.trim_start() != "```").collect();
        blocks.push(Block { language, first: number + 1, lines });
    }
    (blocks, prose)
}

/// The words of the commands of a shell line, as far as documents use the shell.
fn commands(line: &str) -> Vec<Vec<String>> {
    let mut commands = vec![vec![]];
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, '\\') => word.get_or_insert_default().extend(chars.next()),
            (None, ' ' | '|' | ';' | '&' | '>' | '(' | ')') => {
                word.take_if(|it| c == '>' && *it == "2");
                commands.last_mut().unwrap().extend(word.take());
                if c == '>' {
                    // The file of a redirection is no argument.
                    chars
                        .by_ref()
                        .skip_while(|c| *c == ' ')
                        .take_while(|c| *c != ' ')
                        .for_each(drop);
                }
                if c != ' ' && c != '>' {
                    commands.push(vec![]);
                }
            }
            _ => word.get_or_insert_default().push(c),
        }
    }
    commands.last_mut().unwrap().extend(word);
    commands
}

/// The arguments of each call of the program in a shell text, with the number of its line.
fn calls(lines: &[&str]) -> Vec<(usize, Vec<String>)> {
    let mut found = vec![];
    let mut joined = String::new();
    let mut first = 0;
    for (number, line) in lines.iter().enumerate() {
        if joined.is_empty() {
            first = number;
        }
        if let Some(begun) = line.strip_suffix('\\') {
            joined.push_str(begun);
            continue;
        }
        joined.push_str(line);
        for words in commands(&joined) {
            found.extend(arguments(words).map(|it| (first, it)));
        }
        joined.clear();
    }
    found
}

/// What stands behind the program's name, where the words call it.
fn arguments(mut words: Vec<String>) -> Option<Vec<String>> {
    let cargo = words.windows(2).any(|it| it == ["cargo", "run"]);
    let name = if cargo { "--" } else { "milm-compress" };
    let before = ["$", "do", "exec", "/usr/bin/time", "-v", "cargo", "run"];
    let at = words.iter().position(|it| it == name)?;
    let called = cargo || words[..at].iter().all(|it| before.contains(&it.as_str()));
    called.then(|| words.split_off(at + 1))
}

/// Why the program does not take these arguments. A variable of the shell stands for any value.
fn refused(arguments: &[String]) -> Option<String> {
    let error =
        Cli::try_parse_from(std::iter::once("milm-compress").chain(words(arguments))).err()?;
    let variable = match error.get(ContextKind::InvalidValue) {
        Some(ContextValue::String(value)) => value.starts_with('$'),
        _ => false,
    };
    let more = arguments.iter().any(|it| it == "$@");
    let absent = more && error.kind() == ErrorKind::MissingRequiredArgument;
    // Help that is asked for is no error.
    let taken = variable || absent || error.exit_code() == 0;
    (!taken).then(|| error.to_string().lines().next().unwrap_or_default().to_owned())
}

/// As the program gets them: `${NAME:+--flag}` stands for the flag, `$@` for more that nobody knows.
fn words(arguments: &[String]) -> impl Iterator<Item = &str> {
    let known = arguments.iter().filter(|it| *it != "$@");
    known.map(|it| match it.split_once(":+") {
        Some((variable, word)) if variable.starts_with("${") => word.trim_end_matches('}'),
        _ => it.as_str(),
    })
}

/// What is wrong with the commands of a document.
fn wrong_commands(file: &str, text: &str) -> (Vec<String>, usize) {
    let (mut wrong, mut count) = (vec![], 0);
    for block in parts(text).0 {
        if !matches!(block.language, "" | "console" | "sh" | "bash") {
            continue;
        }
        for (at, arguments) in calls(&block.lines) {
            count += 1;
            let told = refused(&arguments);
            wrong.extend(told.map(|it| format!("{file}:{}: {it}", block.first + at)));
        }
    }
    (wrong, count)
}

#[test]
fn the_program_takes_every_command_of_the_documents() {
    let (mut wrong, mut count) = (vec![], 0);
    for (file, text) in documents() {
        let (mut found, commands) = wrong_commands(&file, &text);
        wrong.append(&mut found);
        count += commands;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 50, "{count} commands are found");
}

#[test]
fn the_program_takes_every_command_of_its_examples_and_scripts() {
    let (mut wrong, mut count) = (vec![], 0);
    let mut check = |place: &str, text: &str| {
        for (at, arguments) in calls(&text.lines().collect::<Vec<_>>()) {
            count += 1;
            wrong.extend(refused(&arguments).map(|it| format!("{place}:{}: {it}", at + 1)));
        }
    };
    for verb in Cli::command().get_subcommands() {
        let examples = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
        check(&format!("{} --help", verb.get_name()), &examples);
    }
    for script in ["ci/gate.sh", "ci/try.sh", "cluster/slurm.sh", "cluster/job.yaml"] {
        let text = fs::read_to_string(root().join("docs").join(script)).unwrap();
        check(script, &text);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 40, "{count} commands are found");
}

/// The twin of both: what no program takes is told with its file and line.
#[test]
fn a_command_that_the_program_does_not_take_is_found() {
    let told = |line: &str| wrong_commands("a.md", &format!("text\n\n```console\n{line}\n```\n")).0;
    for right in [
        "$ milm-compress quantize ./a --scheme $s \\\n  -o b   # remark --invented",
        "milm-compress run ./a --prompt 'a | b' > out.txt 2>/dev/null | head --lines 3",
        "for s in a b; do milm-compress verify $s; done",
        "milm-compress quantize a -o b --group-size $g",
        "cargo run --release -- compress a.toml -o b",
        "milm-compress eval ${A:+--annotate} \"$@\"",
    ] {
        assert_eq!(told(right), Vec::<String>::new(), "{right}");
    }
    for (wrong, named) in [
        ("milm-compress quantise ./a", "quantise"),
        ("$ milm-compress quantize ./a -o b \\\n  --shceme w4a16", "--shceme"),
        ("milm-compress quantize $a -o b --group-size 48", "48"),
        ("milm-compress quantize ./a -o b --preset fastest", "fastest"),
        ("milm-compress verify ${B:+--invented} $@", "--invented"),
        ("milm-compress verify ./a && milm-compress verify ./a --deeper", "--deeper"),
        ("/usr/bin/time -v milm-compress bench a b c", "'b'"),
        ("cargo run --release -- compress a.toml --out b", "--out"),
        ("milm-compress quantize ./a", "required"),
    ] {
        let found = told(wrong);
        assert_eq!(found.len(), 1, "{wrong}: {found:?}");
        assert!(found[0].starts_with("a.md:4: ") && found[0].contains(named), "{found:?}");
    }
}

/// The flags of one verb, or of all.
fn flags(verb: Option<&Command>, program: &Command) -> Vec<String> {
    let verbs = verb.map_or_else(|| program.get_subcommands().collect(), |it| vec![it]);
    let arguments = verbs.into_iter().flat_map(Command::get_arguments);
    arguments.filter_map(|it| it.get_long()).map(|it| format!("--{it}")).collect()
}

/// Flags in inline code that neither the verb before them nor, without one, any verb has.
fn wrong_flags(file: &str, text: &str) -> (Vec<String>, usize) {
    let mut program = Cli::command();
    program.build();
    let (mut wrong, mut count) = (vec![], 0);
    for (number, line) in parts(text).1 {
        for code in line.split('`').skip(1).step_by(2) {
            let code = code.strip_prefix("milm-compress ").unwrap_or(code);
            let words: Vec<&str> = code.split_whitespace().collect();
            let verb = words.first().and_then(|it| program.find_subcommand(it));
            let known = flags(verb, &program);
            for word in words.iter().map(|it| it.trim_start_matches('[')) {
                let end = |c: char| !(c.is_ascii_alphanumeric() || c == '-');
                let flag = word.split(end).next().unwrap_or_default();
                if flag.len() < 3 || !flag.starts_with("--") {
                    continue;
                }
                count += 1;
                let foreign = FOREIGN.iter().any(|(it, _)| *it == flag);
                if !(known.iter().any(|it| it == flag) || verb.is_none() && foreign) {
                    wrong.push(format!("{file}:{number}: `{code}`: no flag {flag}"));
                }
            }
        }
    }
    (wrong, count)
}

#[test]
fn every_flag_in_the_documents_exists() {
    let (mut wrong, mut count) = (vec![], 0);
    for (file, text) in documents() {
        let (mut found, flags) = wrong_flags(&file, &text);
        wrong.append(&mut found);
        count += flags;
        for (flag, _) in FOREIGN {
            assert!(!flags_of_program().contains(&(*flag).to_owned()), "{flag} is ours");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 150, "{count} flags are found");
    // The twin.
    let told = |text: &str| wrong_flags("a.md", text).0;
    assert!(
        told("`--scheme w4a16`, `prune --keep 0.8`, `[--model DIR]`, `a --ignored`").is_empty()
    );
    for wrong in ["`--shceme w4a16`", "`prune --scheme w4a16`", "`milm-compress eval A --invented`"]
    {
        assert_eq!(told(wrong).len(), 1, "{wrong}");
    }
}

/// Flags in what the program itself tells, that are other programs'.
const FOREIGN_IN_SOURCE: &[(&str, &str)] = &[
    ("--cache-type-k", "llama.cpp"),
    ("--cache-type-v", "llama.cpp"),
    ("--kv-cache-dtype", "vLLM"),
    ("--text-helper", "the program to itself, in place of a verb"),
];

/// Flags in the code of a source file (not in its remarks and tests) that no verb has.
fn wrong_hints(file: &str, text: &str, known: &[String]) -> (Vec<String>, usize) {
    let (mut wrong, mut count) = (vec![], 0);
    let tests = test_lines(text);
    for (line, number) in text.lines().zip(1..) {
        let line = line.trim_start();
        if tests.iter().any(|it| it.contains(&number)) {
            continue;
        }
        if line.starts_with("//") && !line.starts_with("///") {
            continue;
        }
        let word = |c: char| c.is_ascii_alphanumeric() || c == '-';
        for flag in line.split(|c| !word(c)).map(|it| it.trim_end_matches('-')) {
            let letter = flag.strip_prefix("--").and_then(|it| it.chars().next());
            if !letter.is_some_and(|it| it.is_ascii_lowercase()) {
                continue;
            }
            count += 1;
            let foreign = FOREIGN_IN_SOURCE.iter().any(|(it, _)| *it == flag);
            if !known.iter().any(|it| it == flag) && !foreign {
                wrong.push(format!("{file}:{number}: no flag {flag}"));
            }
        }
    }
    (wrong, count)
}

#[test]
fn every_flag_that_the_program_tells_of_exists() {
    let known = flags_of_program();
    let (mut wrong, mut count) = (vec![], 0);
    for path in rust_files(&root().join("src")) {
        let text = fs::read_to_string(&path).unwrap();
        let (mut found, flags) = wrong_hints(&path.display().to_string(), &text, &known);
        wrong.append(&mut found);
        count += flags;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 100, "{count} flags are found");
    // The twin.
    let told = |text: &str| wrong_hints("a.rs", text, &known).0;
    assert!(told("\"hint: name one with --model, a--b, --seed=1\"\n// --invented").is_empty());
    assert_eq!(told("\n\"hint: write it with --judge-out;\"").len(), 1);
}

#[test]
fn the_readme_leads_to_every_document() {
    let all = documents();
    let (_, readme) = all.iter().find(|(file, _)| file == "README.md").unwrap();
    for (file, _) in all.iter().filter(|(file, _)| file != "README.md") {
        assert!(readme.contains(&format!("({file})")), "{file}");
    }
}

#[test]
fn the_table_of_verbs_is_that_of_the_program() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let rows = readme.lines().filter_map(|line| line.strip_prefix("| `"));
    let verbs: BTreeSet<&str> = rows.filter_map(|row| row.split([' ', '`']).next()).collect();
    let program = Cli::command();
    let shown = program.get_subcommands().filter(|it| !it.is_hide_set());
    assert_eq!(verbs, shown.map(Command::get_name).collect());
}

fn flags_of_program() -> Vec<String> {
    let mut program = Cli::command();
    program.build();
    flags(None, &program)
}

/// What is wrong with a TOML block: of a recipe, a suite or a profile, by its tables.
fn wrong_toml(place: &str, text: &str) -> Option<String> {
    let read = if text.contains("[[step]]") {
        let recipe = Recipe::parse(place, text).map_err(anyhow::Error::from);
        recipe.and_then(|it| cli::resolve(place, &it, "builtin:milm-mini")).map(drop)
    } else if text.contains("[[item]]") {
        let whole = format!("name = \"a\"\nversion = 1\n{text}");
        Suite::read(place, &whole).map(drop).map_err(anyhow::Error::from)
    } else {
        Profile::parse(place, text).map(drop).map_err(anyhow::Error::from)
    };
    read.err().map(|error| format!("{place}: {error:#}"))
}

#[test]
fn the_program_reads_every_toml_of_the_documents_and_recipes() {
    let mut found = vec![];
    for (file, text) in documents() {
        for block in parts(&text).0.into_iter().filter(|it| it.language == "toml") {
            found.push((format!("{file}:{}", block.first), block.lines.join("\n")));
        }
    }
    assert!(found.len() >= 2, "documents show a recipe and a suite");
    for folder in ["recipes", "recipes/devices"] {
        for entry in fs::read_dir(root().join(folder)).unwrap().map(Result::unwrap) {
            if entry.path().is_file() {
                let text = fs::read_to_string(entry.path()).unwrap();
                found.push((entry.path().display().to_string(), text));
            }
        }
    }
    assert!(found.len() >= 16, "{} files and blocks", found.len());
    let wrong: Vec<String> =
        found.iter().filter_map(|(place, text)| wrong_toml(place, text)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The twin: keys that no verb has, values that none takes and plans that cannot be made.
#[test]
fn a_recipe_that_the_program_does_not_read_is_found() {
    let step = |keys: &str| format!("[[step]]\ndo = \"quantize\"\n{keys}\n");
    assert_eq!(
        wrong_toml("a", &step("group-size = 64\nfor = \"milm\"\nrotate = \"hadamard\"")),
        None
    );
    for (keys, named) in [
        ("sheme = \"w4a16\"", "`sheme`"),
        ("scheme = \"w3a16\"", "w3a16"),
        ("group-size = 48", "48"),
        ("rotate = \"sideways\"", "sideways"),
        ("calibration-samples = \"many\"", "calibration-samples"),
        ("rule = [\"re:.*no_proj=w8a8\"]", "no_proj"),
    ] {
        let told = wrong_toml("a", &step(keys)).unwrap_or_default();
        assert!(told.contains(named), "{keys}: {told}");
    }
    let told = wrong_toml("a", &format!("{}{}", step(""), step(""))).unwrap_or_default();
    assert!(told.contains("once"), "{told}");
    assert!(wrong_toml("a", "[[item]]\nid = \"a\"\ninvented = 1\n").is_some());
    assert!(wrong_toml("a", "invented = 1\n").is_some());
}
