//! FollowBench: answers under one to five constraints (Jiang et al. 2023, arXiv 2310.20410).
//!
//! [`Set::add`] reads the published files, one kind of constraint each. What a program can check
//! is checked after the reference's rules ([`Item::judge`]); what takes a model as a judge is
//! written out as [`JudgeLine`]s for one outside: asked for a verdict here, it is an error.
//! Add a group of checkable items: one row in rules.rs.
mod levels;
mod rules;

pub use levels::{Levels, needs};
pub use rules::{Need, Tongue};

use super::EvalError;
use regex::Regex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Kinds of constraints; each has the file `{kind}_constraints.json`.
pub const KINDS: [&str; 6] = ["content", "example", "format", "mixed", "situation", "style"];

/// One instruction under `level` constraints.
#[derive(Clone, Debug)]
pub struct Item {
    /// Of [`KINDS`].
    pub kind: &'static str,
    /// Language of the instruction.
    pub tongue: Tongue,
    /// Number of the group in its file.
    pub group: u64,
    /// 1 to 5.
    pub level: usize,
    /// The instruction, constraints included.
    pub instruction: String,
    entry: Entry,
    rule: Rule,
}

#[derive(Clone, Debug)]
enum Rule {
    /// The whole answer has this form.
    Form(Regex),
    Needs(Vec<Need>),
    Judge,
}

/// An entry of the published files.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    example_id: u64,
    #[serde(default)]
    category: String,
    source: String,
    level: usize,
    instruction: String,
    #[serde(default)]
    target: String,
}

/// A group's instructions by their level.
type Chain = BTreeMap<usize, String>;

/// Items of one or more files.
#[derive(Debug, Default)]
pub struct Set {
    /// Items with at least one constraint.
    pub items: Vec<Item>,
    /// Instructions of each group, the one without constraints included.
    chains: BTreeMap<(Tongue, &'static str, u64), Chain>,
}

/// What an outside judge needs for one answer: a line of a JSON Lines file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct JudgeLine<'a> {
    /// Kind, language, group and level: `style/en/12/3`.
    pub id: String,
    /// The instruction that was given.
    pub instruction: &'a str,
    /// The group's instructions from none to `level` constraints: each adds one.
    pub instructions: Vec<&'a str>,
    /// What the model answered.
    pub answer: &'a str,
    /// A question to ask the judge: it names the constraints and answers with a list of yes and no.
    pub prompt: String,
}

impl Set {
    /// Reads a file of one kind. Groups must be whole and levels occur once.
    pub fn add(
        &mut self,
        file: &str,
        text: &str,
        kind: &'static str,
        tongue: Tongue,
    ) -> Result<(), EvalError> {
        let wrong =
            |item: String, detail: String| EvalError::Item { file: file.to_owned(), item, detail };
        let entries: Vec<Entry> = serde_json::from_str(text)
            .map_err(|error| wrong("the list".into(), error.to_string()))?;
        for entry in entries {
            let name = format!("example_id {}, level {}", entry.example_id, entry.level);
            let chain = self.chains.entry((tongue, kind, entry.example_id)).or_default();
            if chain.insert(entry.level, entry.instruction.clone()).is_some() {
                return Err(wrong(name, "occurs twice".into()));
            }
            match entry.level {
                0 => {}
                1..=5 => self.items.push(Item::new(entry, kind, tongue)),
                _ => return Err(wrong(name, "levels go to 5".into())),
            }
        }
        let short = self.chains.iter().find(|((t, k, _), chain)| {
            (*t, *k) == (tongue, kind) && (1..=5).any(|level| !chain.contains_key(&level))
        });
        match short {
            Some(((_, _, group), chain)) => {
                let levels: Vec<_> = chain.keys().collect();
                Err(wrong(format!("example_id {group}"), format!("has only levels {levels:?}")))
            }
            None => Ok(()),
        }
    }

    /// The line for an outside judge.
    pub fn judge_line<'a>(&'a self, item: &'a Item, answer: &'a str) -> JudgeLine<'a> {
        let chain = self.chains.get(&(item.tongue, item.kind, item.group));
        let upto = chain.into_iter().flatten().filter(|(level, _)| **level <= item.level);
        let instructions: Vec<&str> = upto.map(|(_, text)| text.as_str()).collect();
        let prompt = judge_prompt(item, &instructions, answer);
        JudgeLine { id: item.id(), instruction: &item.instruction, instructions, answer, prompt }
    }
}

impl Item {
    fn new(entry: Entry, kind: &'static str, tongue: Tongue) -> Self {
        let known = (entry.source.as_str(), entry.category.as_str());
        let rule = if kind == "example" {
            Rule::Form(form(&entry.target))
        } else {
            let needs = needs(tongue, known, entry.example_id, entry.level);
            needs.map_or(Rule::Judge, Rule::Needs)
        };
        Self {
            kind,
            tongue,
            group: entry.example_id,
            level: entry.level,
            instruction: entry.instruction.clone(),
            entry,
            rule,
        }
    }

    /// The item of an entry and of the id that [`Self::id`] gave; `None` of an id that is none.
    pub fn from_entry(entry: Entry, id: &str) -> Option<Self> {
        let mut parts = id.split('/');
        let kind = parts.next()?;
        let kind = KINDS.iter().find(|it| **it == kind)?;
        let tongue = if parts.next()? == "en" { Tongue::En } else { Tongue::Zh };
        (1..=5).contains(&entry.level).then(|| Self::new(entry, kind, tongue))
    }

    /// What the item was read from.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// The right answer, or its form; empty where there is none.
    pub fn target(&self) -> &str {
        &self.entry.target
    }

    /// Kind, language, group and level: `style/en/12/3`.
    pub fn id(&self) -> String {
        let tongue = if self.tongue == Tongue::En { "en" } else { "zh" };
        format!("{}/{tongue}/{}/{}", self.kind, self.group, self.level)
    }

    /// Whether a program can check the answer.
    pub fn is_checkable(&self) -> bool {
        !matches!(self.rule, Rule::Judge)
    }

    /// Whether an answer keeps all constraints; space around it does not count.
    pub fn judge(&self, answer: &str) -> Result<bool, EvalError> {
        let answer = answer.trim();
        match &self.rule {
            Rule::Form(form) => Ok(form.is_match(answer)),
            Rule::Needs(needs) => {
                Ok(needs.iter().all(|need| need.kept(answer, self.target(), self.tongue)))
            }
            Rule::Judge => Err(EvalError::JudgeOnly { item: self.id() }),
        }
    }
}

/// The form of an answer, from `{instruction}\n[Bot]\n{answer}`: what stands for the answer is one
/// line, doubled braces are single ones.
fn form(target: &str) -> Regex {
    let form = target.replace("{instruction}\n", "").replace("{{", "{").replace("}}", "}");
    let parts: Vec<String> = form.split("{answer}").map(regex::escape).collect();
    let pattern = format!(r"\A(?:{})\z", parts.join(".*"));
    Regex::new(&pattern).expect("escaped text is a valid pattern")
}

fn judge_prompt(item: &Item, instructions: &[&str], answer: &str) -> String {
    use std::fmt::Write;
    let mut out = String::from(
        "You check whether an answer keeps the constraints of an instruction. The instruction was \
         written step by step; every step adds one constraint to the one before.\n\n",
    );
    let first = 1 + item.level - instructions.len().min(item.level + 1);
    for (index, text) in instructions.iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "[{} constraints]\n{text}\n", first + index);
    }
    let count = item.level;
    let _ = write!(
        out,
        "[Answer to the instruction with {count} constraints]\n{answer}\n\n\
         First name the {count} constraints that were added. Then decide for each whether the \
         answer keeps it. The last line must be a JSON list of {count} strings, each \"YES\" or \
         \"NO\", in the order in which the constraints were added."
    );
    out
}

/// Figures of one kind and language.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Satisfaction {
    /// Kind and language: `style/en`.
    pub subject: String,
    /// Groups that could be checked.
    pub groups: usize,
    /// Share of groups whose answer keeps all constraints, by level from 1: the hard satisfaction
    /// rate of the paper, of checkable items only.
    pub rate: [f64; 5],
    /// Mean count of levels kept from the first on without a gap, 0 to 5.
    pub consistent_levels: f64,
}

/// Figures by kind and language of answers that were judged, by the ids of their items.
pub fn satisfaction(judged: &[(&str, bool)]) -> Vec<Satisfaction> {
    let mut subjects: BTreeMap<String, BTreeMap<&str, [bool; 5]>> = BTreeMap::new();
    for (id, kept) in judged {
        let parts: Vec<&str> = id.split('/').collect();
        let [kind, tongue, group, level] = parts.as_slice() else { continue };
        let Some(level @ 1..=5) = level.parse::<usize>().ok() else { continue };
        let subject = subjects.entry(format!("{kind}/{tongue}")).or_default();
        subject.entry(*group).or_default()[level - 1] = *kept;
    }
    subjects
        .into_iter()
        .map(|(subject, groups)| {
            let count = groups.len() as f64;
            let share = |level: usize| groups.values().filter(|it| it[level]).count() as f64;
            let run = |it: &[bool; 5]| it.iter().take_while(|kept| **kept).count();
            Satisfaction {
                subject,
                groups: groups.len(),
                rate: std::array::from_fn(|level| share(level) / count),
                consistent_levels: groups.values().map(run).sum::<usize>() as f64 / count,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests;
