//! The 25 kinds of instructions, each with the rule of the reference.
use super::{language, words};
use regex::{Regex, RegexBuilder};
use serde::Deserialize;

/// How a count relates to its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Relation {
    /// count < bound
    #[serde(rename = "less than")]
    LessThan,
    /// count ≥ bound
    #[serde(rename = "at least")]
    AtLeast,
}

/// Arguments of an instruction, named as in the published set; each kind uses some of them.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the names are those of the published set")]
pub struct Kwargs {
    pub relation: Option<Relation>,
    pub num_sentences: usize,
    pub num_words: usize,
    pub num_placeholders: usize,
    pub num_bullets: usize,
    pub num_highlights: usize,
    pub num_sections: usize,
    pub num_paragraphs: usize,
    pub nth_paragraph: usize,
    pub section_spliter: String,
    pub postscript_marker: String,
    pub first_word: String,
    pub keywords: Vec<String>,
    pub forbidden_words: Vec<String>,
    pub keyword: String,
    pub frequency: usize,
    pub letter: String,
    pub let_relation: Option<Relation>,
    pub let_frequency: usize,
    pub capital_relation: Option<Relation>,
    pub capital_frequency: usize,
    pub language: Option<String>,
    pub prompt_to_repeat: String,
    pub end_phrase: String,
}

/// A kind of instruction.
#[derive(Debug)]
pub struct Check {
    /// Its id in the published set.
    pub id: &'static str,
    /// Arguments it cannot do without.
    pub needs: &'static [&'static str],
    follows: fn(&Kwargs, &str) -> bool,
}

/// Whether a response follows an instruction of a kind.
pub fn check(check: &Check, kwargs: &Kwargs, response: &str) -> bool {
    (check.follows)(kwargs, response)
}

const fn row(
    id: &'static str,
    needs: &'static [&'static str],
    follows: fn(&Kwargs, &str) -> bool,
) -> Check {
    Check { id, needs, follows }
}

/// All kinds, in the alphabet of their ids.
pub const CHECKS: &[Check] = &[
    row(
        "change_case:capital_word_frequency",
        &["capital_relation", "capital_frequency"],
        |it, text| relates(it.capital_relation, words::capital_words(text), it.capital_frequency),
    ),
    row("change_case:english_capital", &[], |_, text| {
        has_cased(text) && !text.contains(char::is_lowercase) && language::is(text, "en")
    }),
    row("change_case:english_lowercase", &[], |_, text| {
        has_cased(text) && !text.contains(char::is_uppercase) && language::is(text, "en")
    }),
    row("combination:repeat_prompt", &["prompt_to_repeat"], |it, text| {
        let wanted = it.prompt_to_repeat.trim().to_lowercase();
        text.trim().to_lowercase().starts_with(&wanted)
    }),
    row("combination:two_responses", &[], |_, text| two_responses(text)),
    row("detectable_content:number_placeholders", &["num_placeholders"], |it, text| {
        count(r"\[.*?\]", text) >= it.num_placeholders
    }),
    row("detectable_content:postscript", &["postscript_marker"], postscript),
    row("detectable_format:constrained_response", &[], |_, text| {
        ["My answer is yes.", "My answer is no.", "My answer is maybe."]
            .iter()
            .any(|answer| text.contains(answer))
    }),
    row("detectable_format:json_format", &[], |_, text| json(text)),
    row("detectable_format:multiple_sections", &["section_spliter", "num_sections"], |it, text| {
        let mark = pattern(it.section_spliter.trim());
        count(&format!(r"\s?{mark}\s?\d+\s?"), text) >= it.num_sections
    }),
    row("detectable_format:number_bullet_lists", &["num_bullets"], |it, text| {
        let stars = count(r"(?m)^\s*\*[^\*].*$", text);
        stars + count(r"(?m)^\s*-.*$", text) == it.num_bullets
    }),
    row("detectable_format:number_highlighted_sections", &["num_highlights"], |it, text| {
        highlights(text) >= it.num_highlights
    }),
    row("detectable_format:title", &[], |_, text| {
        let found = regex(r"<<[^\n]+>>");
        found.find_iter(text).any(|title| {
            let title = title.as_str().trim_start_matches('<').trim_end_matches('>');
            !title.trim().is_empty()
        })
    }),
    row("keywords:existence", &["keywords"], |it, text| {
        it.keywords.iter().all(|word| ignoring_case(&pattern(word)).is_match(text))
    }),
    row("keywords:forbidden_words", &["forbidden_words"], |it, text| {
        let there =
            |word: &String| ignoring_case(&format!(r"\b{}\b", pattern(word))).is_match(text);
        !it.forbidden_words.iter().any(there)
    }),
    row("keywords:frequency", &["relation", "keyword", "frequency"], |it, text| {
        let found = ignoring_case(&pattern(it.keyword.trim())).find_iter(text).count();
        relates(it.relation, found, it.frequency)
    }),
    row("keywords:letter_frequency", &["let_relation", "letter", "let_frequency"], |it, text| {
        let letter = it.letter.trim().to_lowercase();
        relates(it.let_relation, text.to_lowercase().matches(&letter).count(), it.let_frequency)
    }),
    row("language:response_language", &["language"], |it, text| {
        language::is(text, it.language.as_deref().unwrap_or_default())
    }),
    row(
        "length_constraints:nth_paragraph_first_word",
        &["num_paragraphs", "nth_paragraph", "first_word"],
        first_word,
    ),
    row("length_constraints:number_paragraphs", &["num_paragraphs"], paragraphs),
    row("length_constraints:number_sentences", &["relation", "num_sentences"], |it, text| {
        relates(it.relation, words::sentences(text), it.num_sentences)
    }),
    row("length_constraints:number_words", &["relation", "num_words"], |it, text| {
        relates(it.relation, words::words(text), it.num_words)
    }),
    row("punctuation:no_comma", &[], |_, text| !text.contains(',')),
    row("startend:end_checker", &["end_phrase"], |it, text| {
        let end = it.end_phrase.trim().to_lowercase();
        text.trim().trim_matches('"').to_lowercase().ends_with(&end)
    }),
    row("startend:quotation", &[], |_, text| {
        let text = text.trim();
        text.len() > 1 && text.starts_with('"') && text.ends_with('"')
    }),
];

/// Without a relation the instruction was refused when it was read.
fn relates(relation: Option<Relation>, count: usize, bound: usize) -> bool {
    match relation {
        Some(Relation::LessThan) => count < bound,
        Some(Relation::AtLeast) => count >= bound,
        None => false,
    }
}

/// A pattern of this file.
fn regex(text: &str) -> Regex {
    RegexBuilder::new(text).build().expect("patterns of this file are valid")
}

fn count(pattern: &str, text: &str) -> usize {
    regex(pattern).find_iter(text).count()
}

/// Words of the set are regular expressions in the reference; what is none is taken literally.
fn pattern(word: &str) -> String {
    let valid = word.len() < 1000 && Regex::new(&format!(r"\b{word}\b\s?{word}")).is_ok();
    if valid { word.to_owned() } else { regex::escape(word) }
}

fn ignoring_case(pattern: &str) -> Regex {
    let built = RegexBuilder::new(pattern).case_insensitive(true).build();
    built.unwrap_or_else(|_| regex(&regex::escape(pattern)))
}

fn has_cased(text: &str) -> bool {
    text.contains(|c: char| c.is_lowercase() || c.is_uppercase())
}

/// Two different texts with six asterisks between them, and nothing else.
fn two_responses(text: &str) -> bool {
    let parts: Vec<&str> = text.split("******").map(str::trim).collect();
    let inner = parts.get(1..parts.len() - 1).unwrap_or_default();
    let full: Vec<&&str> = parts.iter().filter(|part| !part.is_empty()).collect();
    !inner.contains(&"") && full.len() == 2 && full[0] != full[1]
}

fn postscript(it: &Kwargs, text: &str) -> bool {
    let marker = it.postscript_marker.trim();
    let pattern = match marker {
        "P.P.S" => r"p\.\s?p\.\s?s".to_owned(),
        "P.S." => r"p\.\s?s\.".to_owned(),
        other => pattern(&other.to_lowercase()),
    };
    regex(&pattern).is_match(&text.to_lowercase())
}

fn json(text: &str) -> bool {
    let mut text = text.trim();
    for fence in ["```json", "```Json", "```JSON", "```"] {
        text = text.strip_prefix(fence).unwrap_or(text);
    }
    let text = text.strip_suffix("```").unwrap_or(text).trim();
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// `*one*` counts once, `**two**` twice: its outer asterisks are empty highlights for the first
/// pattern, its whole is one for the second.
fn highlights(text: &str) -> usize {
    let single = regex(r"\*[^\n\*]*\*");
    let double = regex(r"\*\*[^\n\*]*\*\*");
    let full = |found: &regex::Match<'_>| !found.as_str().trim_matches('*').trim().is_empty();
    single.find_iter(text).filter(full).count() + double.find_iter(text).filter(full).count()
}

/// Paragraphs have `***` between them; at the ends one may be empty.
fn paragraphs(it: &Kwargs, text: &str) -> bool {
    let parts: Vec<&str> = regex(r"\s?\*\*\*\s?").split(text).map(str::trim).collect();
    let last = parts.len() - 1;
    let empty = |at: usize| parts[at].is_empty();
    if (1..last).any(empty) {
        return false;
    }
    let ends = usize::from(empty(0)) + usize::from(last > 0 && empty(last));
    parts.len() - ends == it.num_paragraphs
}

/// Paragraphs have an empty line between them; the n-th, empty ones counted when looking for it,
/// begins with a word.
fn first_word(it: &Kwargs, text: &str) -> bool {
    let parts: Vec<&str> = text.split("\n\n").map(str::trim).collect();
    let full = parts.iter().filter(|part| !part.is_empty()).count();
    let Some(index) = it.nth_paragraph.checked_sub(1).filter(|index| *index < full) else {
        return false;
    };
    let Some(word) = parts[index].split_whitespace().next() else { return false };
    let word = word.trim_start_matches('\'').trim_start_matches('"');
    let word = word.split(['.', ',', '?', '!', '\'', '"']).next().unwrap_or_default();
    full == it.num_paragraphs && word.to_lowercase() == it.first_word.to_lowercase()
}
