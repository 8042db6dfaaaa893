//! Needles in haystacks as a task.
use super::{answer, ask, damaged, limited};
use crate::eval::{
    EvalError,
    followbench::Tongue,
    needle::{ANSWER, Needle, NeedleSettings, cells},
    task::{Data, Group, Item, Items, Options, Record, Response, Score, Task, TaskError, Warnings},
};

/// A number hidden in a long text, from 512 tokens to the whole window, at five depths.
pub struct NeedleTask {
    name: &'static str,
    tongue: Tongue,
}

/// Window when nothing is known of the model.
const WINDOW: usize = 2048;

impl NeedleTask {
    /// In English.
    pub const EN: Self = Self { name: "needle", tongue: Tongue::En };
    /// In Chinese.
    pub const ZH: Self = Self { name: "needle-zh", tongue: Tongue::Zh };
}

impl Task for NeedleTask {
    fn name(&self) -> &'static str {
        self.name
    }

    fn version(&self) -> u32 {
        2
    }

    fn about(&self) -> &'static str {
        "a number hidden in a long text, by length and depth, to the model's window"
    }

    fn main_metric(&self) -> &'static str {
        "found"
    }

    fn items(&self, data: &dyn Data, options: &Options) -> Result<Items, TaskError> {
        let window = if options.window == usize::MAX { WINDOW } else { options.window };
        let base = NeedleSettings::for_window(window);
        let settings = NeedleSettings { seed: options.seed, tongue: self.tongue, ..base };
        settings.check(window)?;
        let mut warnings = Warnings::default();
        if data.tokens("")?.is_none() {
            let what = "haystacks whose tokens are estimated, three bytes each";
            warnings.add(what, self.name);
        }
        let count = |text: &str| -> Result<usize, EvalError> {
            let counted = data.tokens(text);
            let counted =
                counted.map_err(|error| EvalError::Encode { detail: error.to_string() })?;
            Ok(counted.unwrap_or(32 + text.len() / 3))
        };
        let mut items = vec![];
        for cell in cells(&settings) {
            let needle = Needle::build(&settings, cell, &count)?;
            items.push(Item {
                id: format!("{}/{}/{}", needle.length, needle.depth, needle.sample),
                subject: format!("{} tokens, depth {}", needle.length, needle.depth),
                requests: ask(&needle.prompt, ANSWER),
                answer: needle.answer.into(),
            });
        }
        Ok(Items { items: limited(items, options), warnings })
    }

    fn score(&self, item: &Item, responses: &[Response]) -> Result<Score, TaskError> {
        let text = answer(item, responses)?;
        let right = item.answer.as_str().ok_or_else(|| damaged(item, "no number"))?;
        let found = Needle::is_found(right, text);
        let mut score = Score::new([("found", f64::from(u8::from(found)))]);
        text.clone_into(&mut score.answer);
        right.clone_into(&mut score.right);
        Ok(score)
    }

    fn aggregate(&self, records: &[Record]) -> Vec<Group> {
        let all = Group::mean("all", records.iter());
        std::iter::once(all).chain(Group::by_subject(records)).collect()
    }
}
