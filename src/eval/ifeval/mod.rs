//! IFEval: instructions whose following a program can check (Zhou et al. 2023, arXiv 2311.07911).
//!
//! [`Prompt::read`] reads the published file `input_data.jsonl`; [`Prompt::judge`] gives a
//! [`Verdict`] of one response, [`Accuracy`] the four figures of many. The 25 kinds of
//! instructions are the rows of [`CHECKS`]: add one there.
//! What differs from the reference's results and why is in docs/evaluation.md.
mod checks;
mod language;
mod words;

pub use checks::{CHECKS, Check, Kwargs, Relation, check};
pub use language::{LANGUAGES, detect};
pub use words::{capital_words, sentences, words};

use super::EvalError;
use serde::{Deserialize, Serialize};

/// One instruction of a prompt, and what it asks.
#[derive(Clone, Debug)]
pub struct Instruction {
    /// How it is checked.
    pub check: &'static Check,
    /// Its arguments.
    pub kwargs: Kwargs,
}

/// A prompt with its instructions.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// Number of the prompt in the published set.
    pub key: u64,
    /// What the model is asked.
    pub prompt: String,
    /// At least one.
    pub instructions: Vec<Instruction>,
}

/// A line of the file.
#[derive(Deserialize)]
struct Line {
    key: u64,
    prompt: String,
    instruction_id_list: Vec<String>,
    kwargs: Vec<serde_json::Map<String, serde_json::Value>>,
}

impl Prompt {
    /// Reads JSON lines; `file` is for messages. Keys that occur twice are an error.
    pub fn read(file: &str, text: &str) -> Result<Vec<Self>, EvalError> {
        let mut seen = std::collections::BTreeSet::new();
        let mut out = vec![];
        for (index, line) in text.lines().enumerate().filter(|(_, it)| !it.trim().is_empty()) {
            let wrong = |detail: String| EvalError::Item {
                file: file.to_owned(),
                item: format!("line {}", index + 1),
                detail,
            };
            let prompt = Self::parse(line).map_err(wrong)?;
            if !seen.insert(prompt.key) {
                return Err(wrong(format!("key {} occurs twice", prompt.key)));
            }
            out.push(prompt);
        }
        Ok(out)
    }

    fn parse(line: &str) -> Result<Self, String> {
        let line: Line = serde_json::from_str(line).map_err(|error| error.to_string())?;
        let (ids, kwargs) = (line.instruction_id_list, line.kwargs);
        if ids.is_empty() || ids.len() != kwargs.len() {
            return Err(format!("{} instructions with {} kwargs", ids.len(), kwargs.len()));
        }
        let instructions = ids
            .iter()
            .zip(kwargs)
            .map(|(id, kwargs)| Instruction::new(id, kwargs))
            .collect::<Result<_, _>>()?;
        Ok(Self { key: line.key, prompt: line.prompt, instructions })
    }

    /// Checks every instruction on a response, strictly and loosely.
    pub fn judge(&self, response: &str) -> Verdict {
        let loose = loose_forms(response);
        Verdict {
            instructions: self.instructions.iter().map(|it| it.check.id.to_owned()).collect(),
            strict: self.instructions.iter().map(|it| it.follows(response)).collect(),
            loose: self
                .instructions
                .iter()
                .map(|it| loose.iter().any(|form| it.follows(form)))
                .collect(),
        }
    }

    /// Languages that are asked for and that [`detect`] does not know: these instructions always
    /// count as not followed.
    pub fn unknown_languages(&self) -> impl Iterator<Item = &str> {
        let asked = self.instructions.iter().filter_map(|it| it.kwargs.language.as_deref());
        asked.filter(|code| !LANGUAGES.iter().any(|(known, _)| known == code))
    }
}

impl Instruction {
    /// An instruction by its id; arguments that it needs must be there, `null` counts as absent.
    pub fn new(
        id: &str,
        mut kwargs: serde_json::Map<String, serde_json::Value>,
    ) -> Result<Self, String> {
        let found = CHECKS.iter().find(|check| check.id == id);
        let check = found.ok_or_else(|| format!("no instruction `{id}` is known"))?;
        kwargs.retain(|_, value| !value.is_null());
        if let Some(missing) = check.needs.iter().find(|key| !kwargs.contains_key(**key)) {
            return Err(format!("instruction `{id}` lacks `{missing}`"));
        }
        let kwargs = serde_json::from_value(kwargs.into())
            .map_err(|error| format!("instruction `{id}`: {error}"))?;
        Ok(Self { check, kwargs })
    }

    /// Whether a response follows it; an empty one follows none.
    pub fn follows(&self, response: &str) -> bool {
        !response.trim().is_empty() && check(self.check, &self.kwargs, response)
    }
}

/// The forms of a response of which one must pass loosely: as it is, without its first line,
/// without its last, without both, each also without asterisks.
fn loose_forms(response: &str) -> Vec<String> {
    let lines: Vec<&str> = response.split('\n').collect();
    let part = |from: usize, to: usize| {
        lines.get(from..to).unwrap_or_default().join("\n").trim().to_owned()
    };
    let end = lines.len();
    let cut = [response.to_owned(), part(1, end), part(0, end - 1), part(1, end - 1)];
    let bare: Vec<String> = cut.iter().map(|form| form.replace('*', "")).collect();
    cut.into_iter().chain(bare).collect()
}

/// Which instructions of a prompt a response follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Their ids.
    pub instructions: Vec<String>,
    /// Followed by the response as it is.
    pub strict: Vec<bool>,
    /// Followed by at least one loose form.
    pub loose: Vec<bool>,
}

/// The four figures of IFEval: shares in 0 to 1; NaN of no verdicts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Accuracy {
    /// Prompts all of whose instructions are followed.
    pub prompt_strict: f64,
    /// Instructions that are followed.
    pub instruction_strict: f64,
    /// As [`Self::prompt_strict`], loosely.
    pub prompt_loose: f64,
    /// As [`Self::instruction_strict`], loosely.
    pub instruction_loose: f64,
}

impl Accuracy {
    /// Of many responses.
    pub fn of(verdicts: &[Verdict]) -> Self {
        let prompts = |of: fn(&Verdict) -> &Vec<bool>| {
            let right = verdicts.iter().filter(|it| of(it).iter().all(|it| *it)).count();
            right as f64 / verdicts.len() as f64
        };
        let instructions = |of: fn(&Verdict) -> &Vec<bool>| {
            let all: usize = verdicts.iter().map(|it| of(it).len()).sum();
            let right = verdicts.iter().flat_map(of).filter(|it| **it).count();
            right as f64 / all as f64
        };
        Self {
            prompt_strict: prompts(|it| &it.strict),
            instruction_strict: instructions(|it| &it.strict),
            prompt_loose: prompts(|it| &it.loose),
            instruction_loose: instructions(|it| &it.loose),
        }
    }
}

#[cfg(test)]
mod tests;
