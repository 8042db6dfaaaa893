//! WikiText as word perplexity sees it: pages, words, and text with the spaces of print.
use regex::{Captures, Regex};
use std::sync::LazyLock;

/// Splits at headings of the first level (` = Title = ` alone on a line); text before the first
/// one is a page of its own if it says something. Text without headings is one page.
pub fn pages(text: &str) -> Vec<&str> {
    let mut starts = vec![0];
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if is_title(line) {
            starts.push(at);
        }
        at += line.len();
    }
    starts.push(text.len());
    starts
        .windows(2)
        .map(|ends| &text[ends[0]..ends[1]])
        .filter(|page| !page.trim().is_empty())
        .collect()
}

fn is_title(line: &str) -> bool {
    let inner = line.trim().strip_prefix("= ").and_then(|it| it.strip_suffix(" ="));
    inner.is_some_and(|it| !it.starts_with('=') && !it.ends_with('='))
}

/// Words of a page as lm-evaluation-harness counts them: the pieces between runs of white space,
/// the empty ones before a leading and after a trailing run included.
pub fn words(page: &str) -> usize {
    let (mut runs, mut inside) = (0, false);
    for c in page.chars() {
        runs += usize::from(c.is_whitespace() && !inside);
        inside = c.is_whitespace();
    }
    runs + 1
}

/// Pieces that are replaced before brackets and quotes are closed up.
const BEFORE: &[(&str, &str)] = &[
    ("s '", "s'"),
    (" @-@ ", "-"),
    (" @,@ ", ","),
    (" @.@ ", "."),
    (" : ", ": "),
    (" ; ", "; "),
    (" . ", ". "),
    (" ! ", "! "),
    (" ? ", "? "),
    (" , ", ", "),
];

/// Pieces that are replaced after it: headings, degrees, line ends, the digit one, genitives.
const AFTER: &[(&str, &str)] = &[
    ("= = = =", "===="),
    ("= = =", "==="),
    ("= =", "=="),
    (" \u{b0} ", "\u{b0}"),
    (" \n", "\n"),
    ("\n ", "\n"),
    (" N ", " 1 "),
    (" 's", "'s"),
];

/// Brackets and quotes with the space just inside them, in the order in which they are closed up.
static PAIRS: LazyLock<[Regex; 5]> = LazyLock::new(|| {
    [
        r"(\()\s*([^)]*?)\s*(\))",
        r"(\[)\s*([^\]]*?)\s*(\])",
        r"(\{)\s*([^}]*?)\s*(\})",
        "(\")\\s*([^\"]*?)\\s*(\")",
        r"(')\s*([^']*?)\s*(')",
    ]
    .map(|rule| Regex::new(rule).expect("the rules are fixed"))
});

/// Undoes WikiText's tokenization with the rules of lm-evaluation-harness' task `wikitext`.
pub fn detokenize(page: &str) -> String {
    let mut text = page.to_owned();
    for (from, to) in BEFORE {
        text = text.replace(from, to);
    }
    for rule in PAIRS.iter() {
        text = rule
            .replace_all(&text, |found: &Captures<'_>| {
                format!("{}{}{}", &found[1], &found[2], &found[3])
            })
            .into_owned();
    }
    for (from, to) in AFTER {
        text = text.replace(from, to);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_begin_at_first_level_headings() {
        let text = " \n = One = \n \n a \n = = Part = = \n b \n = Two = \n c \n";
        assert_eq!(pages(text), [" = One = \n \n a \n = = Part = = \n b \n", " = Two = \n c \n"]);
        assert_eq!(pages("no heading\n= 5\n"), ["no heading\n= 5\n"]);
    }

    #[test]
    fn words_are_counted_as_a_split_at_white_space_does() {
        for (page, count) in [("a b", 2), (" a  b\n", 4), ("", 1), (" \n ", 2)] {
            assert_eq!(words(page), count, "{page:?}");
        }
    }

    #[test]
    fn spaces_of_tokenization_go() {
        let page = " = = Early life = = \n The boys ' 3 @.@ 5 @-@ mile walk ( in 1 @,@ 000 ) , \
            called \" The Walk \" , was Tom 's . \n It was 20 \u{b0} C ; why ? \n";
        // A genitive and the next apostrophe are taken for quotes: the rules know no better.
        let want = " == Early life ==\nThe boys'3.5-mile walk (in 1,000), called \"The Walk\", was \
            Tom's.\nIt was 20\u{b0}C; why?\n";
        assert_eq!(detokenize(page), want);
    }
}
