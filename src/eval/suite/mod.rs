//! Capability suites: sets of prompts with scorers, in TOML, by category and sub-item.
//!
//! A file is read by [`Suite::read`]; every item has one [`Scorer`]. [`SAMPLE`] is a small suite
//! in both languages with every category, written for this project. Add a scorer: one variant and
//! one file or function in score.rs.
mod score;

pub use score::{Scorer, f1, rouge_l, tokens};

use super::EvalError;
use crate::text::Message;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The suite that the program carries.
pub const SAMPLE: &str = include_str!("sample.toml");

/// What a model is asked to be capable of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the names say what they are")]
pub enum Category {
    Generation,
    Brainstorming,
    Dialogue,
    QuestionAnswering,
    Rewriting,
    Summarization,
    Classification,
    Extraction,
    Code,
    Safety,
}

impl Category {
    /// All of them, in the order of tables.
    pub const ALL: [Self; 10] = [
        Self::Generation,
        Self::Brainstorming,
        Self::Dialogue,
        Self::QuestionAnswering,
        Self::Rewriting,
        Self::Summarization,
        Self::Classification,
        Self::Extraction,
        Self::Code,
        Self::Safety,
    ];

    /// As files write it: `question-answering`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Generation => "generation",
            Self::Brainstorming => "brainstorming",
            Self::Dialogue => "dialogue",
            Self::QuestionAnswering => "question-answering",
            Self::Rewriting => "rewriting",
            Self::Summarization => "summarization",
            Self::Classification => "classification",
            Self::Extraction => "extraction",
            Self::Code => "code",
            Self::Safety => "safety",
        }
    }
}

/// A file of items.
#[derive(Debug)]
pub struct Suite {
    /// What results are called by.
    pub name: String,
    /// Grows when items or scorers change: results of other versions are not comparable.
    pub version: u32,
    /// At least one.
    pub items: Vec<Item>,
}

/// One prompt and how its answer is scored.
#[derive(Debug)]
pub struct Item {
    /// Unique in the suite.
    pub id: String,
    /// What it tries.
    pub category: Category,
    /// A finer name within the category.
    pub sub: String,
    /// Language of the prompt: `en`, `zh`, …
    pub language: String,
    /// What the model is told, turn by turn; the last is the user's.
    pub messages: Vec<Message>,
    /// Tokens to generate at most.
    pub max_tokens: usize,
    /// How the answer is scored.
    pub scorer: Scorer,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    name: String,
    version: u32,
    #[serde(default)]
    #[expect(dead_code, reason = "for readers of the file")]
    description: String,
    #[serde(default = "default_max_tokens")]
    max_tokens: usize,
    item: Vec<toml::Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct FileItem {
    id: String,
    category: Category,
    #[serde(default)]
    sub: String,
    #[serde(default)]
    language: String,
    #[serde(default)]
    prompt: String,
    #[serde(default)]
    messages: Vec<Message>,
    max_tokens: Option<usize>,
    scorer: Scorer,
}

/// Enough for the answers that scorers look at.
fn default_max_tokens() -> usize {
    128
}

impl Suite {
    /// Reads a suite; `file` is for messages.
    pub fn read(file: &str, text: &str) -> Result<Self, EvalError> {
        let wrong = |item: &str, detail: String| EvalError::Item {
            file: file.to_owned(),
            item: item.to_owned(),
            detail,
        };
        let parsed: File = toml::from_str(text)
            .map_err(|error| wrong("the suite", crate::shown::toml_error(text, &error)))?;
        let mut seen = BTreeSet::new();
        let mut items = vec![];
        for (index, value) in parsed.item.into_iter().enumerate() {
            let id = value.get("id").and_then(toml::Value::as_str).map(str::to_owned);
            let name = id.unwrap_or_else(|| format!("item {}", index + 1));
            let item = Item::read(value, parsed.max_tokens).map_err(|it| wrong(&name, it))?;
            if !seen.insert(item.id.clone()) {
                return Err(wrong(&name, "the id occurs twice".into()));
            }
            items.push(item);
        }
        if items.is_empty() {
            return Err(wrong("the suite", "has no items".into()));
        }
        Ok(Self { name: parsed.name, version: parsed.version, items })
    }
}

impl Item {
    fn read(value: toml::Value, max_tokens: usize) -> Result<Self, String> {
        let item: FileItem =
            value.try_into().map_err(|error: toml::de::Error| error.to_string())?;
        let messages = match (item.prompt.is_empty(), item.messages.is_empty()) {
            (false, true) => vec![Message::new("user", item.prompt)],
            (true, false) => item.messages,
            _ => return Err("needs either `prompt` or `messages`".into()),
        };
        if messages.last().is_none_or(|last| last.role != "user") {
            return Err("the last message must be the user's".into());
        }
        item.scorer.check()?;
        let max_tokens = item.max_tokens.unwrap_or(max_tokens);
        if max_tokens == 0 {
            return Err("`max-tokens` must be at least 1".into());
        }
        Ok(Self {
            id: item.id,
            category: item.category,
            sub: item.sub,
            language: item.language,
            messages,
            max_tokens,
            scorer: item.scorer,
        })
    }
}

impl Item {
    /// The messages as one of the user's: a single one as it is, more with their roles before them.
    pub fn message(&self) -> String {
        match self.messages.as_slice() {
            [only] => only.content.clone(),
            turns => {
                let line = |turn: &Message| format!("{}: {}", turn.role, turn.content);
                turns.iter().map(line).collect::<Vec<_>>().join("\n")
            }
        }
    }
}

/// Scores of a suite: means of scores in 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scores {
    /// Mean over the categories that have items, each the mean of its items.
    pub macro_average: f64,
    /// Mean over all items.
    pub mean: f64,
    /// By category: score and count of items.
    pub categories: BTreeMap<&'static str, (f64, usize)>,
    /// By category and sub-item, `category/sub`.
    pub subs: BTreeMap<String, (f64, usize)>,
    /// By language.
    pub languages: BTreeMap<String, (f64, usize)>,
}

/// Means of items' scores by all that they are sorted by.
pub fn scores(scored: &[(&Item, f64)]) -> Scores {
    fn means<K: Ord>(keyed: impl Iterator<Item = (K, f64)>) -> BTreeMap<K, (f64, usize)> {
        let mut sums: BTreeMap<K, (f64, usize)> = BTreeMap::new();
        for (key, score) in keyed {
            let (sum, count) = sums.entry(key).or_default();
            (*sum, *count) = (*sum + score, *count + 1);
        }
        sums.into_iter().map(|(key, (sum, count))| (key, (sum / count as f64, count))).collect()
    }
    let categories = means(scored.iter().map(|(item, score)| (item.category.name(), *score)));
    let sub = |item: &Item| format!("{}/{}", item.category.name(), item.sub);
    let total: f64 = scored.iter().map(|(_, score)| score).sum();
    let of_categories: f64 = categories.values().map(|(mean, _)| mean).sum();
    Scores {
        macro_average: of_categories / categories.len() as f64,
        mean: total / scored.len() as f64,
        categories,
        subs: means(scored.iter().map(|(item, score)| (sub(item), *score))),
        languages: means(scored.iter().map(|(item, score)| (item.language.clone(), *score))),
    }
}

#[cfg(test)]
mod tests;
