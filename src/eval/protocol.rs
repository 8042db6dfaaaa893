//! Which windows a model sees and which positions count. Figures of different protocols are not
//! comparable.
use super::{EvalError, wikitext};
use crate::text::{Document, Text};
use serde::Serialize;
use std::ops::Range;

/// What a model sees at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Tokens.
    pub ids: Vec<u32>,
    /// Positions whose tokens are scored; starts at 1 at least: the token at t is predicted from
    /// those before it.
    pub scored: Range<usize>,
}

/// Ids of a document, with the special tokens that belong around it.
type Encode<'a> = &'a dyn Fn(&Document) -> Result<Vec<u32>, String>;

/// How an evaluation uses the tokenizer.
pub struct Encoder<'a> {
    /// Ids of a document: a plain text has the special tokens around it that the checkpoint wants,
    /// a chat those of its template.
    pub encode: Encode<'a>,
    /// The token that a text begins with, if there is one.
    pub bos: Option<u32>,
    /// The token that ends a text, if there is one.
    pub eos: Option<u32>,
}

impl Encoder<'_> {
    fn ids(&self, document: &Document) -> Result<Vec<u32>, EvalError> {
        (self.encode)(document).map_err(|detail| EvalError::Encode { detail })
    }

    /// The BOS token, if the checkpoint puts it before texts.
    fn added_bos(&self) -> Result<Option<u32>, EvalError> {
        let first = self.ids(&Document::plain("a"))?.first().copied();
        Ok(self.bos.filter(|bos| first == Some(*bos)))
    }
}

/// Where BOS stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BosPolicy {
    /// Nowhere: neither the tokenizer nor a chat template adds it.
    None,
    /// Once, at the start of the text: in the first window only.
    TextStart,
    /// In place of the first token of every window.
    EveryWindow,
    /// Before every document, unscored (EOS if there is no BOS).
    EveryDocument,
}

/// Sizes of windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanSettings {
    /// Tokens of a window.
    pub ctx: usize,
    /// Tokens from one window's start to the next (`strided`).
    pub stride: Option<usize>,
    /// Take the first N windows only.
    pub windows: Option<usize>,
}

/// Windows of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// In the order of the text.
    pub windows: Vec<Window>,
    /// Where BOS stands.
    pub bos: BosPolicy,
    /// Tokens of the whole text.
    pub text_tokens: usize,
    /// Words and bytes of the documents in the windows, for protocols that count them.
    pub words: Option<(usize, usize)>,
}

impl Plan {
    /// Scored positions.
    pub fn scored(&self) -> usize {
        self.windows.iter().map(|window| window.scored.len()).sum()
    }
}

/// One way of cutting.
pub struct Protocol {
    /// Name on the command line.
    pub name: &'static str,
    /// What it does, in a sentence, and where it comes from.
    pub about: &'static str,
    /// Tokens that a text has at least; `None`: a window of them.
    least: Option<usize>,
    cut: fn(&Text, &Encoder<'_>, PlanSettings) -> Result<Plan, EvalError>,
}

/// Every protocol.
pub const PROTOCOLS: &[Protocol] = &[
    Protocol {
        name: "gptq",
        about: "disjoint windows of --ctx, all but the first token of each scored, an incomplete \
                last one dropped (GPTQ, arXiv 2210.17323, and the papers after it)",
        least: None,
        cut: gptq,
    },
    Protocol {
        name: "llama",
        about: "disjoint windows of --ctx, BOS in place of the first token where the tokenizer \
                adds it, the second half of each scored (llama-perplexity)",
        least: None,
        cut: llama,
    },
    Protocol {
        name: "strided",
        about: "windows of --ctx every --stride tokens, each token scored once with as much \
                before it as fits (the transformers documentation on perplexity)",
        least: Some(2),
        cut: strided,
    },
    Protocol {
        name: "word",
        about: "each page of WikiText, detokenized, rolling, every token scored; also per word \
                and byte (lm-evaluation-harness, task wikitext)",
        least: Some(1),
        cut: word,
    },
];

impl Protocol {
    /// The protocol of a name.
    pub fn find(name: &str) -> Result<&'static Self, EvalError> {
        PROTOCOLS.iter().find(|protocol| protocol.name == name).ok_or_else(|| {
            let known: Vec<String> = PROTOCOLS.iter().map(|it| format!("`{}`", it.name)).collect();
            EvalError::Protocol { found: name.to_owned(), known: known.join(", ") }
        })
    }

    /// Windows of a text; at least one with a scored position.
    pub fn plan(
        &self,
        text: &Text,
        encoder: &Encoder<'_>,
        settings: PlanSettings,
    ) -> Result<Plan, EvalError> {
        if settings.ctx < 2 {
            return Err(setting("ctx", settings.ctx, "a window has at least 2 tokens".into()));
        }
        if settings.windows == Some(0) {
            return Err(setting("windows", 0, "at least one window is measured".into()));
        }
        if let Some(stride) = settings.stride {
            let (name, ctx) = (self.name, settings.ctx);
            if name != "strided" {
                let rule = format!("protocol `{name}` has no stride");
                return Err(setting("stride", stride, rule));
            }
            if stride == 0 || stride > ctx {
                return Err(setting("stride", stride, format!("must lie in 1 to {ctx} (ctx)")));
            }
        }
        let mut plan = (self.cut)(text, encoder, settings)?;
        plan.windows.truncate(settings.windows.unwrap_or(usize::MAX));
        if plan.scored() == 0 {
            let (tokens, protocol) = (plan.text_tokens, self.name);
            let needed = self.least.unwrap_or(settings.ctx);
            return Err(EvalError::TooShort { tokens, needed, protocol });
        }
        Ok(plan)
    }
}

fn setting(setting: &'static str, found: usize, rule: String) -> EvalError {
    EvalError::Setting { setting, found: found.to_string(), rule, hint: "see `eval --help`" }
}

/// The text as one stream, and whether it begins with BOS.
fn stream(text: &Text, encoder: &Encoder<'_>) -> Result<(Vec<u32>, BosPolicy), EvalError> {
    let ids = encoder.ids(&text.joined())?;
    let begins = encoder.bos.is_some() && ids.first() == encoder.bos.as_ref();
    Ok((ids, if begins { BosPolicy::TextStart } else { BosPolicy::None }))
}

fn gptq(text: &Text, encoder: &Encoder<'_>, settings: PlanSettings) -> Result<Plan, EvalError> {
    let (ids, bos) = stream(text, encoder)?;
    let windows = ids
        .chunks_exact(settings.ctx)
        .map(|ids| Window { ids: ids.to_vec(), scored: 1..ids.len() })
        .collect();
    Ok(Plan { windows, bos, text_tokens: ids.len(), words: None })
}

fn llama(text: &Text, encoder: &Encoder<'_>, settings: PlanSettings) -> Result<Plan, EvalError> {
    let (ids, begins) = stream(text, encoder)?;
    let bos = encoder.added_bos()?;
    let windows = ids
        .chunks_exact(settings.ctx)
        .map(|chunk| {
            let mut ids = chunk.to_vec();
            if let Some(bos) = bos {
                ids[0] = bos;
            }
            // Logits after positions ctx/2 to ctx-2 count: tokens ctx/2+1 to ctx-1.
            Window { scored: ids.len() / 2 + 1..ids.len(), ids }
        })
        .collect();
    let policy = bos.map_or(begins, |_| BosPolicy::EveryWindow);
    Ok(Plan { windows, bos: policy, text_tokens: ids.len(), words: None })
}

fn strided(text: &Text, encoder: &Encoder<'_>, settings: PlanSettings) -> Result<Plan, EvalError> {
    let (ids, bos) = stream(text, encoder)?;
    let stride = settings.stride.unwrap_or(settings.ctx / 2);
    let (mut windows, mut begin, mut done) = (Vec::new(), 0, 0);
    while done < ids.len() {
        let end = (begin + settings.ctx).min(ids.len());
        // The first token of a window has nothing before it.
        let first = (done - begin).max(1);
        if first < end - begin {
            windows.push(Window { ids: ids[begin..end].to_vec(), scored: first..end - begin });
        }
        done = end;
        begin += stride;
    }
    Ok(Plan { windows, bos, text_tokens: ids.len(), words: None })
}

fn word(text: &Text, encoder: &Encoder<'_>, settings: PlanSettings) -> Result<Plan, EvalError> {
    let start = encoder.bos.or(encoder.eos).ok_or_else(|| EvalError::Setting {
        setting: "protocol",
        found: "word".into(),
        rule: "the tokenizer has neither BOS nor EOS to begin a document with".into(),
        hint: "measure with another protocol",
    })?;
    let limit = settings.windows.unwrap_or(usize::MAX);
    let mut plan =
        Plan { windows: vec![], bos: BosPolicy::EveryDocument, text_tokens: 0, words: None };
    let (mut words, mut bytes, mut full) = (0, 0, false);
    for page in text.documents.iter().flat_map(|document| wikitext::pages(&document.text)) {
        let text = wikitext::detokenize(page);
        let mut ids = encoder.ids(&Document { text, special: false })?;
        if ids.first() == Some(&start) {
            // A chat template has written it.
            ids.remove(0);
        }
        plan.text_tokens += ids.len();
        let windows = rolling(start, &ids, settings.ctx);
        // Words are counted by whole pages: a page that does not fit ends the text.
        full |= plan.windows.len() + windows.len() > limit;
        if !full {
            plan.windows.extend(windows);
            words += wikitext::words(page);
            bytes += page.len();
        }
    }
    plan.words = Some((words, bytes));
    Ok(plan)
}

/// Disjoint runs of `ctx` tokens, each predicted from the token before the run on; the last run
/// is predicted from as many tokens before it as fill its window.
fn rolling(start: u32, ids: &[u32], ctx: usize) -> Vec<Window> {
    let all: Vec<u32> = std::iter::once(start).chain(ids.iter().copied()).collect();
    (0..ids.len())
        .step_by(ctx)
        .map(|done| {
            let end = (done + ctx).min(ids.len());
            // In `all`, the run's tokens stand at done+1 to end; inputs are ctx tokens before end.
            let begin = if done == 0 { 0 } else { end - ctx };
            Window { ids: all[begin..=end].to_vec(), scored: done + 1 - begin..end + 1 - begin }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Form;

    /// One token per byte; BOS 256 before the text if wanted.
    fn plan(name: &str, text: &str, bos: bool, settings: (usize, Option<usize>)) -> Plan {
        try_plan(name, text, bos, (settings.0, settings.1, None)).unwrap()
    }

    fn try_plan(
        name: &str,
        text: &str,
        bos: bool,
        (ctx, stride, windows): (usize, Option<usize>, Option<usize>),
    ) -> Result<Plan, EvalError> {
        let form = if text.starts_with('{') { Form::Jsonl } else { Form::Plain };
        let text = Text::read(&[("t", text.as_bytes())], form, &|_| Ok("^chat".to_owned()))?;
        let encode = |document: &Document| {
            let start = (document.special && bos).then_some(256);
            let ids = document.text.bytes().map(|it| if it == b'^' { 256 } else { it.into() });
            Ok(start.into_iter().chain(ids).collect())
        };
        let encoder = Encoder { encode: &encode, bos: Some(256), eos: None };
        Protocol::find(name)?.plan(&text, &encoder, PlanSettings { ctx, stride, windows })
    }

    fn shape(plan: &Plan) -> Vec<(String, Range<usize>)> {
        let shown = |id: &u32| u8::try_from(*id).map_or('^', char::from);
        plan.windows
            .iter()
            .map(|window| (window.ids.iter().map(shown).collect(), window.scored.clone()))
            .collect()
    }

    #[test]
    fn gptq_drops_the_incomplete_tail() {
        let plan = plan("gptq", "abcdefghij", false, (4, None));
        assert_eq!(shape(&plan), [("abcd".into(), 1..4), ("efgh".into(), 1..4)]);
        assert_eq!((plan.bos, plan.text_tokens, plan.scored()), (BosPolicy::None, 10, 6));
    }

    #[test]
    fn gptq_has_bos_in_the_first_window_only() {
        let plan = plan("gptq", "abcdefg", true, (4, None));
        assert_eq!(shape(&plan), [("^abc".into(), 1..4), ("defg".into(), 1..4)]);
        assert_eq!(plan.bos, BosPolicy::TextStart);
    }

    /// `^` stands for BOS, which the template of these chats writes.
    #[test]
    fn a_chat_has_the_bos_of_its_template_and_no_other() {
        let chats = "{\"messages\": []}\n{\"messages\": []}";
        for protocol in PROTOCOLS {
            for bos in [true, false] {
                let plan = plan(protocol.name, chats, bos, (12, None));
                let first = &plan.windows[0].ids;
                assert_eq!(first[0], 256, "{}: {first:?}", protocol.name);
                assert_ne!(first[1], 256, "{}: {first:?}", protocol.name);
                assert_ne!(plan.bos, BosPolicy::None, "{}", protocol.name);
            }
        }
    }

    #[test]
    fn llama_scores_the_second_half_after_bos() {
        let with = plan("llama", "abcdefghijk", true, (6, None));
        assert_eq!(shape(&with), [("^abcde".into(), 4..6), ("^ghijk".into(), 4..6)]);
        assert_eq!(with.bos, BosPolicy::EveryWindow);
        let without = plan("llama", "abcdefghijk", false, (6, None));
        assert_eq!(shape(&without), [("abcdef".into(), 4..6)]);
        // ctx - 1 - ctx/2 positions per window, as its stored logits have it.
        assert_eq!(plan("llama", &"x".repeat(512), false, (512, None)).scored(), 255);
    }

    #[test]
    fn strided_scores_each_token_but_the_first_once() {
        let plan = plan("strided", "abcdefgh", false, (4, Some(2)));
        assert_eq!(
            shape(&plan),
            [("abcd".into(), 1..4), ("cdef".into(), 2..4), ("efgh".into(), 2..4)]
        );
        for (len, ctx, stride) in [(23, 7, 3), (20, 5, 1), (9, 10, 4), (8, 4, 3)] {
            let plan = self::plan("strided", &"y".repeat(len), false, (ctx, Some(stride)));
            assert_eq!(plan.scored(), len - 1, "{len} {ctx} {stride}");
        }
        let apart = self::plan("strided", "abcdefgh", false, (4, Some(4)));
        assert_eq!(apart.scored(), 6, "without overlap, each window's first token has no past");
    }

    #[test]
    fn word_rolls_over_each_page_and_scores_every_token() {
        let plan = plan("word", "= A =\nbcd\n= E =\nf", true, (6, None));
        // Pages of 10 and 7 tokens; 6 inputs end before the last token of a window.
        let want =
            [("^= A =\n", 1..7), (" =\nbcd\n", 3..7), ("^= E =\n", 1..7), ("= E =\nf", 6..7)];
        assert_eq!(shape(&plan), want.map(|(ids, scored)| (ids.to_owned(), scored)));
        assert_eq!(plan.words, Some((5 + 4, 17)));
        assert_eq!(plan.scored(), plan.text_tokens);
    }

    #[test]
    fn the_number_of_windows_can_be_limited() {
        for (protocol, count) in [("gptq", 2), ("llama", 2), ("strided", 2)] {
            let plan = try_plan(protocol, &"z".repeat(99), true, (8, None, Some(2))).unwrap();
            assert_eq!(plan.windows.len(), count, "{protocol}");
        }
        // The second page does not fit into 3 windows: only the first one's words count.
        let plan = try_plan("word", "= A =\nb\n= C =\nd", true, (4, None, Some(3))).unwrap();
        assert_eq!((plan.windows.len(), plan.words), (2, Some((5, 8))));
    }

    #[test]
    fn every_protocol_predicts_from_what_lies_before_and_says_what_it_is() {
        for protocol in PROTOCOLS {
            let text = "Some text of a few words that is longer than the window.";
            for bos in [false, true] {
                let plan = plan(protocol.name, text, bos, (8, None));
                assert!(plan.scored() > 0, "{}", protocol.name);
                for window in &plan.windows {
                    let Range { start, end } = window.scored;
                    assert!(1 <= start && start < end && end <= window.ids.len());
                    assert!(window.ids.len() <= 9, "at most ctx tokens go in, one more is scored");
                }
            }
            assert!(protocol.about.contains('('), "{}: names its source", protocol.name);
        }
    }

    #[test]
    fn a_text_that_is_too_short_is_told_what_the_protocol_needs() {
        for (protocol, needed) in [("gptq", 8), ("llama", 8), ("strided", 2)] {
            let error = try_plan(protocol, "a", false, (8, None, None)).unwrap_err().to_string();
            let told =
                format!("the text has 1 token, protocol `{protocol}` needs at least {needed}");
            assert!(error.contains(&told), "{error}");
            assert_eq!(error.contains("--ctx"), needed == 8, "{error}");
            assert!(try_plan(protocol, &"a".repeat(needed), false, (8, None, None)).is_ok());
        }
        assert!(try_plan("word", "a", true, (8, None, None)).is_ok(), "BOS stands before it");
    }

    #[test]
    fn settings_without_sense_are_errors() {
        let long = "a".repeat(50);
        assert!(matches!(
            try_plan("gptq", "abc", false, (4, None, None)),
            Err(EvalError::TooShort { tokens: 3, needed: 4, .. })
        ));
        for (protocol, settings) in [
            ("gptq", (1, None, None)),
            ("gptq", (4, Some(2), None)),
            ("gptq", (4, None, Some(0))),
            ("strided", (4, Some(0), None)),
            ("strided", (4, Some(5), None)),
        ] {
            let result = try_plan(protocol, &long, false, settings);
            assert!(matches!(result, Err(EvalError::Setting { .. })), "{protocol} {settings:?}");
        }
        let error = try_plan("gqtp", &long, false, (4, None, None)).unwrap_err().to_string();
        assert!(error.contains("`gptq`, `llama`"), "{error}");
    }
}
