//! IFEval as a task.
use super::{answer, ask, damaged, limited};
use crate::eval::{
    ifeval::Prompt,
    task::{
        Data, Group, Item, Items, Metric, Options, Record, Response, Score, Task, TaskError,
        Warnings, data::utf8,
    },
};
use std::collections::BTreeMap;

/// 541 prompts with instructions that a program can check.
pub struct IfEval;

const FILE: &str = "ifeval/input_data.jsonl";

/// As lm-evaluation-harness asks for.
const MAX_TOKENS: usize = 1280;

/// Metrics of a record that hold the verdict on one instruction begin so.
const INSTRUCTION: &str = "strict:";

impl Task for IfEval {
    fn name(&self) -> &'static str {
        "ifeval"
    }

    fn version(&self) -> u32 {
        1
    }

    fn about(&self) -> &'static str {
        "instructions that a program can check, arXiv 2311.07911"
    }

    fn main_metric(&self) -> &'static str {
        "prompt_level_strict_acc"
    }

    fn items(&self, data: &dyn Data, options: &Options) -> Result<Items, TaskError> {
        let (file, bytes) = data.first(self.name(), &[FILE])?;
        let shown = data.shown(&file);
        let text = utf8(&shown, &bytes)?;
        let prompts = Prompt::read(&shown, text)?;
        let mut warnings = Warnings::default();
        // The line itself is what scoring reads again: blank lines were left out by reading, too.
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        let items = prompts.iter().zip(lines).map(|(prompt, line)| {
            for language in prompt.unknown_languages() {
                let place = format!("{shown}, key {}: {language}", prompt.key);
                warnings.add(
                    "instructions in languages that are not detected, counted as not followed",
                    place,
                );
            }
            Item {
                id: prompt.key.to_string(),
                subject: String::new(),
                requests: ask(&prompt.prompt, MAX_TOKENS),
                answer: line.into(),
            }
        });
        let items = limited(items.collect(), options);
        if items.is_empty() {
            return Err(TaskError::Empty { file: shown });
        }
        Ok(Items { items, warnings })
    }

    fn score(&self, item: &Item, responses: &[Response]) -> Result<Score, TaskError> {
        let text = answer(item, responses)?;
        let line = item.answer.as_str().unwrap_or_default();
        let prompts = Prompt::read("item", line).map_err(|error| damaged(item, error))?;
        let prompt = prompts.first().ok_or_else(|| damaged(item, "no instructions"))?;
        let verdict = prompt.judge(text);
        let whole = |kept: &[bool]| f64::from(u8::from(kept.iter().all(|it| *it)));
        let count = |kept: &[bool]| kept.iter().filter(|it| **it).count() as f64;
        let mut score = Score::new([
            ("prompt_level_strict_acc", whole(&verdict.strict)),
            ("prompt_level_loose_acc", whole(&verdict.loose)),
            ("instructions", verdict.strict.len() as f64),
            ("instructions_strict", count(&verdict.strict)),
            ("instructions_loose", count(&verdict.loose)),
        ]);
        // A prompt may hold a kind twice: its metric is the mean.
        let mut kinds: BTreeMap<&str, Vec<bool>> = BTreeMap::new();
        for (id, kept) in verdict.instructions.iter().zip(&verdict.strict) {
            kinds.entry(id).or_default().push(*kept);
        }
        score.metrics.extend(
            kinds
                .iter()
                .map(|(id, kept)| (format!("{INSTRUCTION}{id}"), count(kept) / kept.len() as f64)),
        );
        text.clone_into(&mut score.answer);
        score.right = verdict.instructions.join(", ");
        Ok(score)
    }

    fn aggregate(&self, records: &[Record]) -> Vec<Group> {
        let mut all = Group::mean("all", records.iter());
        let sum = |name: &str| -> f64 {
            records.iter().filter_map(|it| it.score.metrics.get(name)).sum()
        };
        let total = sum("instructions");
        let share = |name| Metric { value: sum(name) / total, standard_error: None };
        let kinds: Vec<(String, Metric)> = all
            .metrics
            .iter()
            .filter_map(|(name, metric)| {
                Some((name.strip_prefix(INSTRUCTION)?.to_owned(), *metric))
            })
            .collect();
        all.metrics.retain(|name, _| name.starts_with("prompt_level"));
        all.metrics.insert("inst_level_strict_acc".into(), share("instructions_strict"));
        all.metrics.insert("inst_level_loose_acc".into(), share("instructions_loose"));
        let of_kind = |(kind, metric): (String, Metric)| {
            let key = format!("{INSTRUCTION}{kind}");
            let items = records.iter().filter(|it| it.score.metrics.contains_key(&key)).count();
            Group { name: kind, items, metrics: [("inst_level_strict_acc".into(), metric)].into() }
        };
        std::iter::once(all).chain(kinds.into_iter().map(of_kind)).collect()
    }
}
