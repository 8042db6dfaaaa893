//! Constraints that a program can check, each with the rule of the reference.
use regex::Regex;

/// Language of the instructions: it decides what a word, a sentence and a length are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tongue {
    /// English: words, `.`, `!`, `?`.
    En,
    /// Chinese: characters, `。`, `！`, `？`.
    Zh,
}

/// One constraint on an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Need {
    /// The answer is the target.
    Target,
    /// The answer stands in the target, a Python list of strings.
    InList,
    /// Each line of the answer is a line of the target.
    Lines,
    /// The last match of a pattern is the target.
    LastMatch(&'static str),
    /// The target occurs.
    HasTarget,
    /// So many sentences.
    Sentences(usize),
    /// Every sentence is shorter: words, or characters of Chinese.
    SentencesBelow(usize),
    /// Every sentence is longer.
    SentencesAbove(usize),
    /// The n-th sentence, from 1, has a word.
    SentenceHas(usize, &'static str),
    /// The n-th sentence has no such word.
    SentenceLacks(usize, &'static str),
    /// The n-th sentence matches a pattern.
    SentenceMatches(usize, &'static str),
    /// So many words, or characters of Chinese.
    Length(usize),
    /// Fewer words.
    LengthBelow(usize),
    /// A word occurs.
    Has(&'static str),
    /// A word does not occur.
    Lacks(&'static str),
    /// A pattern occurs.
    Matches(&'static str),
    /// A pattern does not occur.
    NoMatch(&'static str),
    /// It begins so.
    Begins(&'static str),
    /// It ends so.
    Ends(&'static str),
    /// So many marks of punctuation.
    Punctuation(usize),
    /// No capital letters, and some small ones.
    Small,
    /// No numerals, Chinese ones included.
    NoNumerals,
    /// So many paragraphs, with empty lines between.
    Paragraphs(usize),
    /// The first three paragraphs have fewer sentences each.
    ParagraphsBelow(usize),
    /// Paragraphs begin with a number and a period.
    Numbered,
    /// So many matches of a pattern.
    Count(&'static str, usize),
    /// Points from 1 to 5 hold fewer periods.
    PointsBelow(usize),
    /// All sentences have this many words, ends included; sentences as readers split them.
    ReadSentences(usize, usize),
    /// No word ends so.
    NoSuffix(&'static str),
}

const ASCII_MARKS: &str = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";
const CHINESE_MARKS: &str = "，。：’“”";
const CHINESE_NUMERALS: &str = "〇零一二三四五六七八九十百千万亿两壹贰叁肆伍陆柒捌玖拾佰仟廿卅";

impl Need {
    /// Whether an answer keeps it.
    pub fn kept(self, answer: &str, target: &str, tongue: Tongue) -> bool {
        let nth = |n: usize| tongue.sentences(answer).get(n - 1).copied();
        match self {
            Self::Target => answer == target,
            Self::InList => python_list(target).iter().any(|it| it == answer),
            Self::Lines => answer.split('\n').all(|line| target.split('\n').any(|it| it == line)),
            Self::LastMatch(pattern) => {
                regex(pattern).find_iter(answer).last().is_some_and(|it| it.as_str() == target)
            }
            Self::HasTarget => answer.contains(target),
            Self::Sentences(count) => tongue.sentences(answer).len() == count,
            Self::SentencesBelow(most) => {
                tongue.sentences(answer).iter().all(|it| tongue.sentence_length(it) < most)
            }
            Self::SentencesAbove(least) => {
                tongue.sentences(answer).iter().all(|it| tongue.sentence_length(it) > least)
            }
            Self::SentenceHas(n, word) => nth(n).is_some_and(|it| tongue.has(it, word)),
            Self::SentenceLacks(n, word) => !nth(n).is_some_and(|it| tongue.has(it, word)),
            Self::SentenceMatches(n, pattern) => {
                nth(n).is_some_and(|it| regex(pattern).is_match(it))
            }
            Self::Has(word) => tongue.has(answer, word),
            Self::Lacks(word) => !tongue.has(answer, word),
            other => other.kept_by_form(answer, tongue),
        }
    }

    /// The needs that ask for a form, not for words.
    fn kept_by_form(self, answer: &str, tongue: Tongue) -> bool {
        let numeral = |c: char| c.is_numeric() || CHINESE_NUMERALS.contains(c);
        match self {
            Self::Length(count) => tongue.length(answer) == count,
            Self::LengthBelow(most) => tongue.length(answer) < most,
            Self::Matches(pattern) => regex(pattern).is_match(answer),
            Self::NoMatch(pattern) => !regex(pattern).is_match(answer),
            Self::Begins(text) => answer.starts_with(text),
            Self::Ends(text) => answer.ends_with(text),
            Self::Punctuation(count) => {
                answer.chars().filter(|c| tongue.marks(*c)).count() == count
            }
            Self::Small => {
                answer.contains(char::is_lowercase) && !answer.contains(char::is_uppercase)
            }
            Self::NoNumerals => !answer.contains(numeral),
            Self::Paragraphs(count) => answer.split("\n\n").count() == count,
            Self::ParagraphsBelow(most) => {
                answer.split("\n\n").take(3).all(|it| tongue.sentences(it).len() < most)
            }
            Self::Numbered => {
                let mut parts = answer.split("\n\n").map(str::trim_start);
                parts.all(|it| it.is_empty() || regex(r"^\d+\.").is_match(it))
            }
            Self::Count(pattern, count) => regex(pattern).find_iter(answer).count() == count,
            Self::PointsBelow(most) => {
                let point = |it: &&String| (1..=5).any(|n| it.contains(&format!("{n}.")));
                read_sentences(answer).iter().filter(point).all(|it| it.split('.').count() < most)
            }
            Self::ReadSentences(least, most) => read_sentences(answer)
                .iter()
                .all(|it| (least..=most).contains(&it.split_whitespace().count())),
            Self::NoSuffix(suffix) => !answer.split_whitespace().any(|it| it.ends_with(suffix)),
            _ => false,
        }
    }
}

impl Tongue {
    /// Parts between marks that end sentences; empty parts do not count, blank ones do, as in the
    /// reference.
    fn sentences(self, text: &str) -> Vec<&str> {
        let marks: &[char] = match self {
            Self::En => &['.', '!', '?'],
            Self::Zh => &['。', '！', '？'],
        };
        text.split(marks).filter(|it| !it.is_empty()).collect()
    }

    fn sentence_length(self, text: &str) -> usize {
        match self {
            Self::En => text.split_whitespace().count(),
            Self::Zh => text.chars().count(),
        }
    }

    /// Parts between single spaces, or characters.
    fn length(self, text: &str) -> usize {
        match self {
            Self::En => text.split(' ').count(),
            Self::Zh => text.chars().count(),
        }
    }

    fn has(self, text: &str, word: &str) -> bool {
        match self {
            Self::En => regex(&format!(r"\b{}\b", regex::escape(word))).is_match(text),
            Self::Zh => text.contains(word),
        }
    }

    fn marks(self, c: char) -> bool {
        ASCII_MARKS.contains(c) || (self == Self::Zh && CHINESE_MARKS.contains(c))
    }
}

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("patterns of the benchmark are valid")
}

/// The strings of a Python list as the data writes it: `['a', "b"]`, with backslash escapes of
/// quotes and backslashes.
fn python_list(text: &str) -> Vec<String> {
    let mut out = vec![];
    let mut chars = text.chars();
    while let Some(open) = chars.find(|c| matches!(c, '\'' | '"')) {
        let mut item = String::new();
        while let Some(c) = chars.next().filter(|c| *c != open) {
            item.extend(if c == '\\' { chars.next() } else { Some(c) });
        }
        out.push(item);
    }
    out
}

/// Sentences end at white space after `.` or `?`, except after forms like `e.g.` and `Dr.`.
fn read_sentences(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let word = |c: &char| c.is_alphanumeric() || *c == '_';
    let ends = |at: usize| {
        let before = |n: usize| at.checked_sub(n).map(|from| &chars[from..at]);
        let closed = matches!(before(1), Some(['.' | '?']));
        let short =
            matches!(before(4), Some([a, '.', b, last]) if word(a) && word(b) && *last != '\n');
        let title = matches!(before(3), Some([a, b, '.']) if a.is_ascii_uppercase() && b.is_ascii_lowercase());
        chars[at].is_whitespace() && closed && !short && !title
    };
    let mut out = vec![String::new()];
    for at in 0..chars.len() {
        if ends(at) {
            out.push(String::new());
        } else if let Some(last) = out.last_mut() {
            last.push(chars[at]);
        }
    }
    out
}
