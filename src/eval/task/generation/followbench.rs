//! FollowBench as a task: what a program can check. The rest is exported for a judge.
use super::{answer, ask, damaged, limited};
use crate::eval::{
    followbench::{Item as Constrained, KINDS, Set, Tongue, satisfaction},
    task::{
        Answerer, Data, Group, Item, Items, Metric, Options, Record, Request, Response, Score,
        Task, TaskError, Warnings, data::utf8,
    },
};

/// Answers under one to five constraints that a program can check.
pub struct FollowBench;

/// Answers under constraints that only a model can judge: exported by [`judge_lines`], never
/// scored here.
pub struct Judged;

const MAX_TOKENS: usize = 1024;

fn read(task: &'static str, data: &dyn Data) -> Result<Set, TaskError> {
    let mut set = Set::default();
    for (folder, tongue) in [("data", Tongue::En), ("data_zh", Tongue::Zh)] {
        for kind in KINDS {
            let file = format!("followbench/{folder}/{kind}_constraints.json");
            let (_, bytes) = data.first(task, &[&file])?;
            let shown = data.shown(&file);
            set.add(&shown, utf8(&shown, &bytes)?, kind, tongue)?;
        }
    }
    Ok(set)
}

impl Task for FollowBench {
    fn name(&self) -> &'static str {
        "followbench"
    }

    fn version(&self) -> u32 {
        1
    }

    fn about(&self) -> &'static str {
        "answers under one to five constraints, the part that rules check, arXiv 2310.20410"
    }

    fn main_metric(&self) -> &'static str {
        "satisfied"
    }

    fn items(&self, data: &dyn Data, options: &Options) -> Result<Items, TaskError> {
        let set = read(self.name(), data)?;
        let mut warnings = Warnings::default();
        let mut items = vec![];
        for item in &set.items {
            if !item.is_checkable() {
                warnings.add("items that take a judge, left out: see followbench-judge", item.id());
                continue;
            }
            items.push(Item {
                id: item.id(),
                subject: subject(&item.id()),
                requests: ask(&item.instruction, MAX_TOKENS),
                answer: serde_json::to_value(item.entry()).expect("plain data"),
            });
        }
        Ok(Items { items: limited(items, options), warnings })
    }

    fn score(&self, item: &Item, responses: &[Response]) -> Result<Score, TaskError> {
        let text = answer(item, responses)?;
        let entry = serde_json::from_value(item.answer.clone()).map_err(|it| damaged(item, it))?;
        let constrained = Constrained::from_entry(entry, &item.id);
        let constrained = constrained.ok_or_else(|| damaged(item, "an id of another form"))?;
        let kept = constrained.judge(text)?;
        let mut score = Score::new([("satisfied", f64::from(u8::from(kept)))]);
        text.clone_into(&mut score.answer);
        constrained.target().clone_into(&mut score.right);
        Ok(score)
    }

    fn aggregate(&self, records: &[Record]) -> Vec<Group> {
        let kept =
            |record: &Record| record.score.metrics.get("satisfied").is_some_and(|it| *it > 0.5);
        let judged: Vec<(&str, bool)> =
            records.iter().map(|it| (it.id.as_str(), kept(it))).collect();
        let parts = satisfaction(&judged).into_iter().map(|part| {
            let of = |it: &&Record| it.subject == part.subject;
            let mut group = Group::mean(&part.subject, records.iter().filter(of));
            let plain = |value| Metric { value, standard_error: None };
            for (level, rate) in part.rate.iter().enumerate() {
                group.metrics.insert(format!("hsr_level_{}", level + 1), plain(*rate));
            }
            group.metrics.insert("csl".into(), plain(part.consistent_levels));
            group
        });
        std::iter::once(Group::mean("all", records.iter())).chain(parts).collect()
    }
}

/// Kind and language of an id: `style/en`.
fn subject(id: &str) -> String {
    id.splitn(3, '/').take(2).collect::<Vec<_>>().join("/")
}

impl Task for Judged {
    fn name(&self) -> &'static str {
        "followbench-judge"
    }

    fn version(&self) -> u32 {
        1
    }

    fn about(&self) -> &'static str {
        "the part of FollowBench that takes a model as its judge: exported only"
    }

    fn main_metric(&self) -> &'static str {
        "satisfied"
    }

    fn items(&self, _: &dyn Data, _: &Options) -> Result<Items, TaskError> {
        Err(TaskError::Judge { task: self.name() })
    }

    fn score(&self, _: &Item, _: &[Response]) -> Result<Score, TaskError> {
        Err(TaskError::Judge { task: self.name() })
    }
}

/// Prompts and answers for an outside judge, a JSON line each, in the order of the data.
pub fn judge_lines(
    data: &dyn Data,
    options: &Options,
    answerer: &mut dyn Answerer,
) -> Result<Vec<String>, TaskError> {
    let set = read(Judged.name(), data)?;
    let mut items: Vec<&Constrained> = set.items.iter().filter(|it| !it.is_checkable()).collect();
    if let Some(most) = options.limit {
        let mut counts = std::collections::BTreeMap::<String, usize>::new();
        items.retain(|item| {
            let count = counts.entry(subject(&item.id())).or_default();
            *count += 1;
            *count <= most
        });
    }
    let requests: Vec<Request> =
        items.iter().flat_map(|it| ask(&it.instruction, MAX_TOKENS)).collect();
    let mut texts = vec![None; items.len()];
    let asked: Vec<&Request> = requests.iter().collect();
    answerer.answer(&asked, &vec![true; asked.len()], &mut |at, answered| {
        texts[at] = answered.response.text().map(str::to_owned);
        Ok(())
    })?;
    items
        .iter()
        .zip(texts)
        .map(|(item, text)| {
            let unanswered = || TaskError::Responses {
                item: item.id(),
                detail: "the request was not answered".into(),
            };
            let text = text.ok_or_else(unanswered)?;
            Ok(serde_json::to_string(&set.judge_line(item, &text)).expect("plain data"))
        })
        .collect()
}
