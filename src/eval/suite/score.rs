//! Scorers: an answer to a number in 0 to 1. None runs what a model wrote.
use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// How an answer is scored. White space around the answer never counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", deny_unknown_fields, rename_all = "kebab-case")]
pub enum Scorer {
    /// The answer is one of these, whole; a final period and the case of letters do not count.
    Exact {
        /// Right answers.
        answers: Vec<String>,
    },
    /// Share of the conditions that hold; letters' case does not count.
    Contains {
        /// Each must occur.
        #[serde(default)]
        all: Vec<String>,
        /// At least one must occur.
        #[serde(default)]
        any: Vec<String>,
        /// None may occur; one that does makes the score 0.
        #[serde(default)]
        none: Vec<String>,
    },
    /// The pattern (crate `regex`) occurs.
    Regex {
        /// The pattern.
        pattern: String,
    },
    /// The first option letter that stands alone is the right one.
    Choice {
        /// The letters in question: `ABCD`.
        options: String,
        /// The right one.
        answer: char,
    },
    /// Harmonic mean of precision and recall of words, the best of several answers (as SQuAD:
    /// small letters, no punctuation, no articles); Chinese by characters.
    F1 {
        /// Right answers.
        answers: Vec<String>,
    },
    /// F-measure of the longest common subsequence of words, the best of several references
    /// (Lin 2004, ROUGE-L with β = 1, no stemming); Chinese by characters.
    RougeL {
        /// Good answers.
        references: Vec<String>,
    },
    /// The answer, or the block of code in it, is JSON that a schema accepts.
    JsonSchema {
        /// JSON Schema, by default draft 2020-12.
        schema: Value,
    },
    /// The block of code in the answer, or all of it, has its brackets closed and matches every
    /// pattern: share of patterns, 0 with open brackets. It is not executed.
    Code {
        /// Patterns (crate `regex`), where `^` and `$` are the ends of lines.
        patterns: Vec<String>,
    },
}

impl Scorer {
    /// Whether the settings make sense.
    pub(super) fn check(&self) -> Result<(), String> {
        let nonempty = |count: usize, name: &str| match count {
            0 => Err(format!("`{name}` is empty")),
            _ => Ok(()),
        };
        let texts = |texts: &[String], name: &str| {
            nonempty(texts.len(), name)?;
            match texts.iter().position(|it| it.trim().is_empty()) {
                Some(at) => Err(format!("text {} of `{name}` is blank", at + 1)),
                None => Ok(()),
            }
        };
        match self {
            Self::Exact { answers } | Self::F1 { answers } => texts(answers, "answers"),
            Self::RougeL { references } => texts(references, "references"),
            Self::Contains { all, any, none } => {
                nonempty(all.len() + any.len() + none.len(), "contains")?;
                let blank = all.iter().chain(any).chain(none).any(String::is_empty);
                if blank { Err("an empty text is contained in everything".into()) } else { Ok(()) }
            }
            Self::Regex { pattern } => lines(pattern).map(drop),
            Self::Choice { options, answer } => {
                let known = options.chars().all(char::is_alphanumeric) && options.contains(*answer);
                known.then_some(()).ok_or_else(|| {
                    format!("answer `{answer}` is not among the options `{options}`")
                })
            }
            Self::JsonSchema { schema } => validator(schema).map(drop),
            Self::Code { patterns } => {
                nonempty(patterns.len(), "patterns")?;
                patterns.iter().try_for_each(|pattern| lines(pattern).map(drop))
            }
        }
    }

    /// Score of an answer, 0 to 1.
    pub fn score(&self, answer: &str) -> f64 {
        let answer = answer.trim();
        let whole = |right: bool| f64::from(u8::from(right));
        match self {
            Self::Exact { answers } => {
                whole(answers.iter().any(|right| plain(right) == plain(answer)))
            }
            Self::Contains { all, any, none } => contains(answer, all, any, none),
            Self::Regex { pattern } => whole(lines(pattern).is_ok_and(|it| it.is_match(answer))),
            Self::Choice { options, answer: right } => {
                whole(choice(answer, options) == Some(*right))
            }
            Self::F1 { answers } => best(answers, |right| f1(answer, right)),
            Self::RougeL { references } => best(references, |right| rouge_l(answer, right)),
            Self::JsonSchema { schema } => {
                let value = serde_json::from_str::<Value>(block(answer));
                let valid = |value| validator(schema).is_ok_and(|it| it.is_valid(&value));
                whole(value.is_ok_and(valid))
            }
            Self::Code { patterns } => code(block(answer), patterns),
        }
    }
}

fn best(rights: &[String], score: impl Fn(&str) -> f64) -> f64 {
    rights.iter().map(|right| score(right)).fold(0.0, f64::max)
}

fn lines(pattern: &str) -> Result<Regex, String> {
    let built = regex::RegexBuilder::new(pattern).multi_line(true).build();
    built.map_err(|error| format!("pattern `{pattern}`: {error}"))
}

fn validator(schema: &Value) -> Result<jsonschema::Validator, String> {
    jsonschema::validator_for(schema).map_err(|error| format!("schema: {error}"))
}

fn plain(text: &str) -> String {
    text.trim().trim_end_matches(['.', '。']).to_lowercase()
}

fn contains(answer: &str, all: &[String], any: &[String], none: &[String]) -> f64 {
    let answer = answer.to_lowercase();
    let has = |text: &String| answer.contains(&text.to_lowercase());
    if none.iter().any(has) {
        return 0.0;
    }
    let conditions = all.len() + usize::from(!any.is_empty());
    let held = all.iter().filter(|it| has(it)).count() + usize::from(any.iter().any(has));
    if conditions == 0 { 1.0 } else { held as f64 / conditions as f64 }
}

/// The first option letter without letters or digits beside it; Chinese characters may stand there.
fn choice(answer: &str, options: &str) -> Option<char> {
    let chars: Vec<char> = answer.chars().collect();
    let beside = |at: Option<&char>| at.is_some_and(char::is_ascii_alphanumeric);
    let alone = |at: usize| {
        let before = at.checked_sub(1).and_then(|at| chars.get(at));
        !beside(before) && !beside(chars.get(at + 1))
    };
    let found = (0..chars.len()).find(|at| options.contains(chars[*at]) && alone(*at));
    found.map(|at| chars[at])
}

/// The first block of code between fences, or the whole text; a last fence that none opens is
/// dropped.
fn block(text: &str) -> &str {
    let whole = text.strip_suffix("```").unwrap_or(text).trim();
    let Some((_, rest)) = whole.split_once("```") else { return whole };
    let Some((_, body)) = rest.split_once('\n') else { return whole };
    body.split("```").next().unwrap_or_default().trim()
}

fn code(text: &str, patterns: &[String]) -> f64 {
    if !brackets_close(text) {
        return 0.0;
    }
    let matches = |pattern: &&String| lines(pattern).is_ok_and(|it| it.is_match(text));
    patterns.iter().filter(matches).count() as f64 / patterns.len() as f64
}

/// Whether brackets outside strings are closed in order. A quote that its line does not close is
/// taken for an apostrophe.
fn brackets_close(text: &str) -> bool {
    let mut open = vec![];
    for line in text.lines() {
        let mut rest = line.chars();
        while let Some(c) = rest.next() {
            match c {
                '"' | '\'' => {
                    let after = rest.as_str();
                    if let Some(end) = after.find(c) {
                        rest = after[end + 1..].chars();
                    }
                }
                '(' => open.push(')'),
                '[' => open.push(']'),
                '{' => open.push('}'),
                ')' | ']' | '}' if open.pop() != Some(c) => return false,
                _ => {}
            }
        }
    }
    open.is_empty()
}

/// Words in small letters; each Chinese, Japanese or Korean character is one.
pub fn tokens(text: &str) -> Vec<String> {
    let wide = |c: char| matches!(u32::from(c), 0x3040..=0x30ff | 0x3400..=0x9fff | 0xac00..=0xd7af | 0xf900..=0xfaff | 0x20000..=0x3ffff);
    let mut out: Vec<String> = vec![];
    let mut inside = false;
    for c in text.to_lowercase().chars() {
        if wide(c) {
            out.push(c.to_string());
            inside = false;
        } else if c.is_alphanumeric() {
            match out.last_mut().filter(|_| inside) {
                Some(word) => word.push(c),
                None => out.push(c.to_string()),
            }
            inside = true;
        } else {
            inside = false;
        }
    }
    out
}

/// F1 of the words of an answer and a right answer, 0 to 1.
pub fn f1(answer: &str, right: &str) -> f64 {
    let count = |text: &str| {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for word in tokens(text).into_iter().filter(|it| !["a", "an", "the"].contains(&it.as_str()))
        {
            *counts.entry(word).or_default() += 1;
        }
        counts
    };
    let (found, wanted) = (count(answer), count(right));
    let of = |word: &String| found.get(word).copied().unwrap_or(0);
    let common: usize = wanted.iter().map(|(word, count)| of(word).min(*count)).sum();
    harmonic(common, found.values().sum(), wanted.values().sum())
}

/// ROUGE-L of an answer and a reference, 0 to 1.
pub fn rouge_l(answer: &str, reference: &str) -> f64 {
    let (a, b) = (tokens(answer), tokens(reference));
    let mut row = vec![0_usize; b.len() + 1];
    for word in &a {
        let mut diagonal = 0;
        for (at, other) in b.iter().enumerate() {
            let above = row[at + 1];
            row[at + 1] = if word == other { diagonal + 1 } else { above.max(row[at]) };
            diagonal = above;
        }
    }
    harmonic(row[b.len()], a.len(), b.len())
}

/// 2PR/(P+R) with P = common/found, R = common/wanted; two empty texts are equal.
fn harmonic(common: usize, found: usize, wanted: usize) -> f64 {
    if found + wanted == 0 { 1.0 } else { 2.0 * common as f64 / (found + wanted) as f64 }
}
