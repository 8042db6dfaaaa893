//! Text that comes from files, as it is shown to people and pipelines.
//!
//! Names and words of a package, a tokenizer or a recipe are whatever their author wrote: line ends
//! that forge a line of a log, escape sequences that a terminal obeys, commands to a pipeline. Whoever
//! prints puts its text through here; a form with line structure of its own (a table, a list)
//! puts each entry through [`line()`] first.
use std::{borrow::Cow, fmt::Write as _};

/// What follows a line end within a message of this program: an entry of a list, the hint.
const PARTS: [&str; 3] = ["  ", "hint: ", "- "];

/// Beginnings of commands that pipelines take from a log: of GitHub and Azure, of `TeamCity`.
const COMMANDS: [&str; 3] = ["##[", "##vso[", "##teamcity["];

/// Text as part of a line: control characters, line ends among them, are written as escapes, and so
/// are characters that turn the direction of a text.
pub fn line(text: &str) -> Cow<'_, str> {
    if !text.chars().any(hidden) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().fold(String::with_capacity(text.len() + 8), |mut out, c| {
        if hidden(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
        out
    }))
}

/// Text of several lines: line feeds and tabs stay, the rest as [`line()`]; no line is a command to a
/// pipeline.
pub fn lines(text: &str) -> String {
    terminal(text).split('\n').map(defused).collect::<Vec<_>>().join("\n")
}

/// Text as a terminal takes it, and nothing else: for what a model writes, a piece at a time.
pub fn terminal(text: &str) -> String {
    let shown = |part: &str| part.split('\t').map(line).collect::<Vec<_>>().join("\t");
    text.split('\n').map(shown).collect::<Vec<_>>().join("\n")
}

/// Text in a code span of Markdown, where all but its end is taken as it is.
pub fn code(text: &str) -> String {
    line(text).replace('`', "'")
}

/// Text as part of a line or a table of Markdown, outside of code spans.
pub fn markdown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in line(text).chars() {
        match c {
            '|' => out.push_str("\\|"),
            '<' => out.push_str("&lt;"),
            '`' => out.push('\''),
            c => out.push(c),
        }
    }
    out
}

/// An error or a note: lines of a list and the hint are lines, every other line end is an escape.
pub fn message(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (index, part) in text.split('\n').enumerate() {
        let shown = defused(&line(part));
        match index {
            0 => {}
            _ if PARTS.iter().any(|it| part.starts_with(it)) => out.push('\n'),
            _ => out.push_str("\\n"),
        }
        out.push_str(&shown);
    }
    out
}

/// JSON as it was written, with its own escapes for what it may hold and a terminal may obey.
pub fn json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c == '\n' || !hidden(c) {
            out.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            let _ = write!(out, "\\u{unit:04x}");
        }
    }
    out
}

/// What is wrong with TOML, in a line, with the key where it is: the library's own message shows the
/// whole line of the file.
pub fn toml_error(text: &str, error: &toml::de::Error) -> String {
    let what = error.message().trim_end().replace('\n', ", ");
    let Some(before) = error.span().and_then(|it| text.get(..it.start)) else { return what };
    let (row, column) =
        (before.matches('\n').count(), before.chars().rev().take_while(|c| *c != '\n'));
    let line = text.lines().nth(row).unwrap_or_default();
    let key = line.split_once('=').map_or("", |(key, _)| key.trim());
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-_\"".contains(c);
    let named = !key.is_empty() && key.len() <= 64 && key.chars().all(plain);
    let key = if named { format!(" (`{key}`)") } else { String::new() };
    format!("line {}, column {}{key}: {what}", row + 1, column.count() + 1)
}

fn hidden(c: char) -> bool {
    let turns = matches!(
        c,
        '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
    );
    c.is_control() || turns
}

fn defused(part: &str) -> String {
    let mut out = part.to_owned();
    let start = out.len() - out.trim_start().len();
    if out[start..].starts_with("::") {
        out.replace_range(start..=start, "\\u{3a}");
    }
    for command in COMMANDS {
        out = out.replace(command, &format!("\\u{{23}}{}", &command[1..]));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_line_and_move_no_cursor() {
        assert_eq!(line("model.embed_tokens 模型 é"), "model.embed_tokens 模型 é");
        assert_eq!(
            line("a\n::error::b\r\x1b[2J\u{202e}\u{9b}"),
            "a\\n::error::b\\r\\u{1b}[2J\\u{202e}\\u{9b}"
        );
        assert_eq!(lines("a\n\tb\x1b"), "a\n\tb\\u{1b}");
    }

    #[test]
    fn messages_keep_their_own_lines_only() {
        let own = "`x` is wrong:\n  first\n  second\nhint: do this";
        assert_eq!(message(own), own);
        assert_eq!(message("no `a\n::error::b`\nhint: c"), "no `a\\n\\u{3a}:error::b`\nhint: c");
    }

    #[test]
    fn no_line_is_a_command_to_a_pipeline() {
        for command in ["::error::x", "  ::stop-commands::x", "a ##vso[task.x]", "##[error]x"] {
            let shown = lines(&format!("first\n{command}"));
            let second = shown.lines().nth(1).unwrap().trim();
            assert!(!second.starts_with("::") && !second.contains("##"), "{second}");
        }
        assert_eq!(lines("## Heading [a](b)\na::b"), "## Heading [a](b)\na::b");
    }

    #[test]
    fn markdown_keeps_names_in_their_cell() {
        assert_eq!(code("a<b>`c`\n"), "a<b>'c'\\n");
        assert_eq!(markdown("a|b`c`<img src=x>\nd"), "a\\|b'c'&lt;img src=x>\\nd");
    }

    #[test]
    fn json_stays_the_same_value() {
        let value = serde_json::json!({ "a": "x\u{9b}\u{202e}\n\x1b 模" });
        let text = serde_json::to_string_pretty(&value).unwrap();
        let shown = json(&text);
        assert!(!shown.chars().any(|c| c != '\n' && hidden(c)), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }
}
