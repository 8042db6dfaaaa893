//! Capability suites as tasks.
use super::{answer, ask, damaged, limited};
use crate::eval::{
    suite::{SAMPLE, Scorer, Suite},
    task::{
        Data, Group, Item, Items, Options, Record, Response, Score, Task, TaskError, Warnings,
        data::utf8,
    },
};

/// A suite of prompts by category.
pub struct Capability {
    name: &'static str,
    version: u32,
    suite: Source,
}

enum Source {
    /// In the data folder.
    File(&'static str),
    /// Read already.
    Text { file: String, text: String },
}

impl Capability {
    /// The suite that the data folder holds.
    pub const DATA: Self =
        Self { name: "capability", version: 1, suite: Source::File("capability/suite.toml") };

    /// The suite that the program carries.
    pub const SAMPLE: Self =
        Self { name: "capability-sample", version: 1, suite: Source::File("") };

    fn read(&self, data: &dyn Data) -> Result<Suite, TaskError> {
        match &self.suite {
            Source::File("") => Ok(Suite::read("capability-sample", SAMPLE)?),
            Source::Text { file, text } => Ok(Suite::read(file, text)?),
            Source::File(file) => {
                let (_, bytes) = data.first(self.name, &[file])?;
                let shown = data.shown(file);
                Ok(Suite::read(&shown, utf8(&shown, &bytes)?)?)
            }
        }
    }
}

/// A task of a suite's text, under the suite's own name and version. Names of tasks live as long as
/// the program: each call keeps some bytes for good.
pub fn suite_task(file: &str, text: &str) -> Result<&'static dyn Task, TaskError> {
    let suite = Suite::read(file, text)?;
    let source = Source::Text { file: file.to_owned(), text: text.to_owned() };
    let name: &'static str = Box::leak(suite.name.into_boxed_str());
    Ok(Box::leak(Box::new(Capability { name, version: suite.version, suite: source })))
}

impl Task for Capability {
    fn name(&self) -> &'static str {
        self.name
    }

    fn version(&self) -> u32 {
        self.version
    }

    fn about(&self) -> &'static str {
        "a suite of prompts by category: generation, dialogue, extraction, code, safety, …"
    }

    fn main_metric(&self) -> &'static str {
        "score"
    }

    fn items(&self, data: &dyn Data, options: &Options) -> Result<Items, TaskError> {
        let suite = self.read(data)?;
        let items = suite.items.iter().map(|item| Item {
            id: format!("{}/{}", item.language, item.id),
            subject: format!("{}/{}", item.category.name(), item.sub),
            requests: ask(&item.message(), item.max_tokens),
            answer: serde_json::to_value(&item.scorer).expect("plain data"),
        });
        Ok(Items { items: limited(items.collect(), options), warnings: Warnings::default() })
    }

    fn score(&self, item: &Item, responses: &[Response]) -> Result<Score, TaskError> {
        let text = answer(item, responses)?;
        let scorer: Scorer =
            serde_json::from_value(item.answer.clone()).map_err(|error| damaged(item, error))?;
        let mut score = Score::new([("score", scorer.score(text))]);
        text.clone_into(&mut score.answer);
        score.right = item.answer.to_string();
        Ok(score)
    }

    /// The mean over categories, each counting alike, then categories, then sub-items, languages.
    fn aggregate(&self, records: &[Record]) -> Vec<Group> {
        let by = |of: fn(&Record) -> &str| {
            let mut names: Vec<&str> = records.iter().map(of).collect();
            names.sort_unstable();
            names.dedup();
            let group = |name| Group::mean(name, records.iter().filter(|it| of(it) == name));
            names.into_iter().map(group).collect::<Vec<_>>()
        };
        let categories = by(|it| it.subject.split('/').next().unwrap_or_default());
        let all = Group::macro_mean("all", &categories.iter().collect::<Vec<_>>());
        let subs = by(|it| &it.subject);
        let languages = by(|it| it.id.split('/').next().unwrap_or_default());
        [vec![all], categories, subs, languages].concat()
    }
}
