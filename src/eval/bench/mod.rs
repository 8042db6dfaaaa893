//! Tasks on models: run whole or in parts, remembered, joined, put beside each other.
//!
//! A [`Selection`] names tasks and data → [`Bench::run`] asks an opened model, and goes on from what
//! its cache remembers → [`TaskReport::judged`] compares with a base and judges gates. Parts
//! ([`Shard`]) are put together by [`merge`], finished runs put beside each other by [`compare`].
mod cache;
mod error;
mod identity;
mod report;
mod runs;
mod select;
mod shard;

pub use error::BenchError;
pub use report::{Base, Candidate, TaskReport};
pub use runs::{Joined, Run, compare, merge};
pub use select::Selection;
pub use shard::Shard;

use crate::{
    eval::task::{
        Counted, Items, ModelAnswerer, Options, Record, RecordKey, Summary, Task, TaskError,
        Warnings, judge_lines, run, summarize,
    },
    forward::{Backend, ForwardError},
    linalg::Team,
    package::{self, Opened},
    progress::Progress,
    runtime::{Counts, Engine, Offers},
};
use std::path::Path;

/// Makes who offers tokens to the model of an engine.
pub type MakeOffers<'a> = dyn for<'e> Fn(&Engine<'e>) -> Result<Offers<'e>, ForwardError> + 'a;

/// What is asked, of whichever model, and how it is run.
#[derive(Clone, Copy)]
pub struct Bench<'a> {
    /// Tasks and their data.
    pub selection: &'a Selection,
    /// Choices that tasks share. The window is at most that of the model.
    pub options: &'a Options,
    /// How weights are held, and its name in keys of remembered records.
    pub backend: (&'a dyn Backend, &'a str),
    /// Prompts that ask for a text go through the model's chat template.
    pub chat_template: bool,
    /// Texts that are written at once; none: as many as fit. Answers do not depend on it.
    pub batch: Option<usize>,
    /// Makes who offers tokens to texts; not asked for a base. Answers do not depend on it.
    pub offers: Option<&'a MakeOffers<'a>>,
    /// Folder of remembered records, which is made; none: nothing is remembered.
    pub cache: Option<&'a Path>,
    /// The part of each task's items that is asked; none: all.
    pub shard: Option<Shard>,
    /// Threads.
    pub team: &'a Team,
    /// Told of the work.
    pub progress: &'a dyn Progress,
    /// Told of each task that is done.
    pub done: &'a dyn Fn(&Asked<'_>),
}

/// A task that is done.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Its name.
    pub task: &'a str,
    /// Items with a record.
    pub items: usize,
    /// Those among them that were remembered.
    pub remembered: usize,
    /// Requests of all items.
    pub requests: usize,
    /// Time that it took, seconds.
    pub seconds: f64,
}

/// What a model did.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// Averages, a task each.
    pub summaries: Vec<Summary>,
    /// A record of each item, task after task.
    pub records: Vec<Record>,
    /// JSON lines for an outside judge, if they were asked for.
    pub for_judge: Option<Vec<String>>,
    /// What came of offers, if there were any.
    pub offers: Option<Counts>,
}

impl Bench<'_> {
    /// The records of a base: of an earlier run that is named by a file, or of a model that is run
    /// now.
    pub fn base(&self, name: &str) -> Result<Vec<Record>, BenchError> {
        if Run::is(name) {
            return Ok(Run::open(Path::new(name))?.records);
        }
        let plain = Self { offers: None, ..*self };
        Ok(plain.run(&package::open(name)?, false)?.records)
    }

    /// Asks a model. With `for_judge`, it also answers what only a judge can score. What can be
    /// wrong with tokenizer, data and tasks is found before the model is loaded.
    pub fn run(&self, opened: &Opened, for_judge: bool) -> Result<Answers, BenchError> {
        let identity = identity::identity(opened, self.progress)?;
        let tokenizer = opened.tokenizer()?;
        let limit = opened.model.spec.max_positions;
        let options = Options { window: self.options.window.min(limit), ..self.options.clone() };
        let data = self.selection.data()?;
        let data = Counted::new(&*data, tokenizer, self.chat_template)?;
        let mut all = Vec::new();
        for task in self.selection.tasks()? {
            match task.items(&data, &options) {
                // Of what the program carries, every task that has something is meant.
                Err(TaskError::NoData { .. } | TaskError::Judge { .. })
                    if self.selection.is_sample() => {}
                other => all.push((task, other?)),
            }
        }
        let (backend, backend_name) = self.backend;
        let key = RecordKey {
            model: identity,
            settings: serde_json::json!({
                "backend": backend_name,
                "kv_cache": opened.model.spec.kv_cache,
                "chat_template": self.chat_template,
                "window": options.window,
            }),
        };
        let engine = Engine::load(&opened.model, backend, self.team, self.progress)?;
        let offers = self.offers.map(|make| make(&engine)).transpose()?;
        let mut answerer = ModelAnswerer::new(engine, tokenizer, self.team, self.chat_template)
            .with_offers(offers)
            .with_window(Some(self.options.window))
            .with_batch(self.batch);
        let mut answers = Answers::default();
        for (task, items) in all {
            let (records, warnings) = self.ask((task, items), &key, &mut answerer)?;
            let mut summary = summarize(task, &options, &records, &warnings);
            summary.data_warnings = self.shard.is_some().then_some(warnings);
            for warning in &summary.warnings {
                tracing::warn!("{}: {warning}", task.name());
            }
            answers.summaries.push(summary);
            answers.records.extend(records);
        }
        if for_judge {
            answers.for_judge = Some(judge_lines(&data, &options, &mut answerer)?);
        }
        answers.offers = answerer.take_counts();
        Ok(answers)
    }

    /// Asks the items of a task, or of the part that is wanted.
    fn ask(
        &self,
        (task, items): (&'static dyn Task, Items),
        key: &RecordKey,
        answerer: &mut ModelAnswerer<'_>,
    ) -> Result<(Vec<Record>, Warnings), BenchError> {
        let count = items.items.len();
        let part = self.shard.map_or(0..count, |shard| shard.items(count));
        let mut recall = cache::Kept::open(self.cache, (task, key))?;
        let begin = std::time::Instant::now();
        let asked = (items.items.as_slice(), part.clone());
        let records = run(task, asked, key, answerer, (&mut recall, self.progress))?;
        let requests = items.items[part].iter().map(|item| item.requests.len()).sum();
        (self.done)(&Asked {
            task: task.name(),
            items: records.len(),
            remembered: recall.found(),
            requests,
            seconds: begin.elapsed().as_secs_f64(),
        });
        Ok((records, items.warnings))
    }
}
