//! Which constraints the items of each source cumulate, level by level.
use super::rules::{Need, Tongue};

/// Cumulated constraints of a group of five levels: level n must keep the first n.
pub type Levels = [&'static [Need]; 5];

/// The whole answer is judged at once, on every level.
const fn whole(need: &'static [Need]) -> Levels {
    [need, &[], &[], &[], &[]]
}

use Need::{
    Begins, Count, Ends, Has, HasTarget, InList, Lacks, LastMatch, Length, LengthBelow, Lines,
    Matches, NoMatch, NoNumerals, NoSuffix, Numbered, Paragraphs, ParagraphsBelow, PointsBelow,
    Punctuation, ReadSentences, SentenceHas, SentenceLacks, SentenceMatches, Sentences,
    SentencesAbove, SentencesBelow, Small, Target,
};

/// The constraints of a source of both languages.
const SHARED: &[(&str, Levels)] = &[
    ("E2E", whole(&[Target])),
    ("WIKIEVENTS", whole(&[Lines])),
    ("CONLL2003", whole(&[InList])),
    ("text_editing", whole(&[Target])),
    ("BBH_logical", whole(&[LastMatch(r"\([A-Z]\)")])),
    ("BBH_time", whole(&[LastMatch(r"\d{2}/\d{2}/\d{4}")])),
    ("self_made_space", whole(&[HasTarget])),
];

const ENGLISH: &[(&str, Levels)] = &[
    ("gsm_8k", whole(&[LastMatch(r"\$\d+")])),
    (
        "cnn_dailymail",
        [
            &[Sentences(3)],
            &[SentencesBelow(15)],
            &[SentenceHas(1, "Potter"), SentenceHas(2, "actor"), SentenceHas(3, "films")],
            &[SentenceLacks(2, "lavish")],
            &[SentenceMatches(3, r"\b(?:has|have)\s+\w+")],
        ],
    ),
    (
        "xsum",
        [
            &[Sentences(1)],
            &[LengthBelow(20)],
            &[Lacks("Newton Stewart")],
            &[Matches(r"\b(?:am|is|are)\s+\w+ing\b")],
            &[Has("operation")],
        ],
    ),
    (
        "samsum",
        [
            &[Sentences(1)],
            &[LengthBelow(15)],
            &[Has("stuff")],
            &[NoMatch("(?i)procrast")],
            &[Punctuation(1)],
        ],
    ),
    ("gigaword", [&[Length(8)], &[Punctuation(0)], &[Small], &[Lacks("bus")], &[Has("in")]]),
    (
        "arxiv",
        [
            &[Sentences(1)],
            &[LengthBelow(21)],
            &[Begins("We")],
            &[Has("activations")],
            &[Lacks("transformer")],
        ],
    ),
];

const CHINESE: &[(&str, Levels)] = &[
    ("gsm_8k", whole(&[LastMatch(r"\d+美元")])),
    (
        "cnn_dailymail",
        [
            &[Sentences(3)],
            &[SentencesBelow(15)],
            &[SentenceHas(1, "波特"), SentenceHas(2, "演员"), SentenceHas(3, "电影")],
            &[SentenceLacks(2, "奢侈")],
            &[SentenceHas(3, "了")],
        ],
    ),
    (
        "xsum",
        [
            &[Sentences(1)],
            &[LengthBelow(20)],
            &[Lacks("牛顿斯图尔特")],
            &[Has("在")],
            &[Has("操作")],
        ],
    ),
    (
        "samsum",
        [
            &[Sentences(1)],
            &[LengthBelow(15)],
            &[Has("琐碎的")],
            &[Lacks("拖沓的")],
            &[Punctuation(1)],
        ],
    ),
    (
        "gigaword",
        [&[Length(8)], &[Punctuation(0)], &[NoNumerals], &[Lacks("公交车")], &[Has("在")]],
    ),
    (
        "arxiv",
        [
            &[Sentences(1)],
            &[LengthBelow(21)],
            &[Begins("我们")],
            &[Has("激活")],
            &[Lacks("transformer")],
        ],
    ),
];

/// Two groups of the format constraints, by their number. The last level of 22 asks for a closing
/// sentence, which the reference counts as a fourth paragraph.
const FORMATS: &[(Tongue, u64, Levels)] = &[
    (
        Tongue::En,
        22,
        [
            &[Paragraphs(3)],
            &[ParagraphsBelow(3)],
            &[SentencesAbove(20)],
            &[Numbered],
            &[Ends("Those are suggestions")],
        ],
    ),
    (
        Tongue::Zh,
        22,
        [
            &[Paragraphs(3)],
            &[ParagraphsBelow(3)],
            &[SentencesAbove(20)],
            &[Numbered],
            &[Ends("这些是建议")],
        ],
    ),
    (
        Tongue::En,
        30,
        [
            &[Matches(r"\*\*")],
            &[Count(r"\*\*[\d].+?:", 5)],
            &[PointsBelow(3)],
            &[ReadSentences(10, 15)],
            &[NoSuffix("-ly")],
        ],
    ),
];

/// What a program can check of an item: `None` when that takes a judge. `category` is the kind of
/// the constraint as the item names it.
pub fn needs(
    tongue: Tongue,
    (source, category): (&str, &str),
    id: u64,
    level: usize,
) -> Option<Vec<Need>> {
    let own = if tongue == Tongue::En { ENGLISH } else { CHINESE };
    let by_source = SHARED.iter().chain(own).find(|(name, _)| *name == source).map(|it| &it.1);
    let by_id = || {
        let found = FORMATS.iter().find(|it| (it.0, it.1) == (tongue, id));
        found.filter(|_| category == "format").map(|it| &it.2)
    };
    let levels = by_source.or_else(by_id)?;
    let mut needs: Vec<Need> = levels.iter().take(level).copied().flatten().copied().collect();
    if by_source.is_none() && id == 22 && level == 5 {
        needs[0] = Paragraphs(4);
    }
    Some(needs)
}
