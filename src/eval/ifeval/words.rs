//! Words and sentences as the reference's library (NLTK) splits them, nearly: see
//! docs/evaluation.md for how nearly.
use regex::Regex;
use std::sync::LazyLock;

/// Abbreviations that a sentence does not end with, without their last period.
const ABBREVIATIONS: &[&str] = &[
    "a.d", "a.m", "adm", "approx", "apr", "assn", "aug", "ave", "b.c", "bros", "c", "capt", "cf",
    "co", "col", "corp", "d.c", "dec", "dept", "dr", "e.g", "ed", "est", "etc", "ex", "feb", "fig",
    "ft", "g", "gen", "gov", "hon", "i.e", "inc", "jan", "jr", "lt", "ltd", "m", "maj", "messrs",
    "mr", "mrs", "ms", "mt", "n", "nov", "oct", "p.m", "p.s", "ph", "ph.d", "prof", "r", "rep",
    "rev", "s", "sen", "sept", "sgt", "sr", "st", "t", "u.k", "u.n", "u.s", "u.s.a", "v", "vs",
    "w",
];

/// Words that begin a sentence often enough to end one after an abbreviation.
const STARTERS: &[&str] =
    &["he", "she", "it", "they", "we", "i", "the", "this", "that", "these", "in", "but", "and"];

/// Runs of letters, digits and `_`.
pub fn words(text: &str) -> usize {
    static WORD: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\w+").expect("a valid pattern"));
    WORD.find_iter(text).count()
}

/// Sentences: they end with `.`, `?` or `!` before a space, closing quotes and brackets included,
/// but not after an abbreviation, an initial, an ellipsis or a number that a small letter follows.
/// Line feeds end none.
pub fn sentences(text: &str) -> usize {
    let tokens: Vec<&str> = text.split_whitespace().collect();
    let ends = tokens.windows(2).filter(|pair| ends_sentence(pair[0], pair[1])).count();
    ends + usize::from(!tokens.is_empty())
}

fn ends_sentence(token: &str, next: &str) -> bool {
    let closing = |c: char| matches!(c, '"' | '\'' | ')' | ']' | '}' | '*' | '_' | '”' | '’');
    let bare = token.trim_end_matches(closing);
    if bare.ends_with(['?', '!']) {
        return true;
    }
    let Some(word) = bare.strip_suffix('.') else { return false };
    let word = word.trim_start_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
    let next = next.trim_start_matches(|c: char| !c.is_alphanumeric() && !",;:".contains(c));
    let small = next.starts_with(|c: char| c.is_lowercase() || ",;:".contains(c));
    let initial = word.chars().count() == 1 && word.chars().all(char::is_alphabetic);
    let last = word.rsplit('-').next().unwrap_or_default();
    if ABBREVIATIONS.contains(&word.as_str()) || ABBREVIATIONS.contains(&last) || initial {
        let next = next.to_lowercase();
        let next = next.trim_end_matches(|c: char| !c.is_alphanumeric());
        return !initial && STARTERS.contains(&next) && !small;
    }
    let special = word.is_empty() || word.ends_with('.') || word.parse::<f64>().is_ok();
    !(special && small)
}

/// Words without small letters. Hyphens, slashes and periods inside a word do not end it;
/// contractions count as two (`I'M`).
pub fn capital_words(text: &str) -> usize {
    let upper = |part: &str| {
        part.contains(char::is_uppercase) && !part.contains(|c: char| c.is_lowercase())
    };
    let text = text.replace("--", " ").replace("..", " ");
    let chars: Vec<char> = text.chars().collect();
    let split: String = chars
        .iter()
        .enumerate()
        .map(|(at, c)| {
            let before_digit = chars.get(at + 1).is_some_and(char::is_ascii_digit);
            let parts = SEPARATORS.contains(*c) || (matches!(c, ',' | ':') && !before_digit);
            if parts { ' ' } else { *c }
        })
        .collect();
    let count = |token: &str| {
        let (word, tail) = contraction(token.trim_matches('\''));
        usize::from(upper(word)) + usize::from(upper(tail))
    };
    split.split_whitespace().map(count).sum()
}

/// Characters that stand alone among words.
const SEPARATORS: &str = ";@#$%&?!*()[]{}<>\"“”«»";

/// A word and its contracted end: `I'M` is `I` and `'M`, `CAN'T` is `CA` and `N'T`.
fn contraction(token: &str) -> (&str, &str) {
    let lower = token.to_lowercase();
    let end =
        ["n't", "'ll", "'re", "'ve", "'s", "'m", "'d"].iter().find(|end| lower.ends_with(**end));
    let at = end.map_or(token.len(), |end| token.len().saturating_sub(end.len()));
    if token.is_char_boundary(at) { token.split_at(at) } else { (token, "") }
}
