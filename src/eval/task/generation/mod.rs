//! Tasks whose answers are texts: IFEval, FollowBench, capability suites, needles in haystacks.
//!
//! What is asked and how it is checked stands in the modules of those names; here they are put to
//! a model. Add one: one file, one line in the registry.
mod capability;
mod followbench;
mod ifeval;
mod needle;

pub use capability::{Capability, suite_task};
pub use followbench::{FollowBench, Judged, judge_lines};
pub use ifeval::IfEval;
pub use needle::NeedleTask;

use super::{Item, Options, Prompt, Request, Response, TaskError};
use std::collections::BTreeMap;

/// A request for a text after a message.
fn ask(message: &str, max_tokens: usize) -> Vec<Request> {
    let prompt = Prompt::plain(message);
    vec![Request::Generate { prompt, stop: vec![], max_tokens }]
}

/// The text that answers an item's only request.
fn answer<'a>(item: &Item, responses: &'a [Response]) -> Result<&'a str, TaskError> {
    let text = responses.first().and_then(Response::text);
    text.ok_or_else(|| TaskError::Responses {
        item: item.id.clone(),
        detail: "a text is expected".into(),
    })
}

/// The first items of each subject, as many as asked for.
fn limited(items: Vec<Item>, options: &Options) -> Vec<Item> {
    let Some(most) = options.limit else { return items };
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut kept = items;
    kept.retain(|item| {
        let count = counts.entry(item.subject.clone()).or_default();
        *count += 1;
        *count <= most
    });
    kept
}

/// Data that an item carries was written by this program: it can only be damaged in memory.
fn damaged(item: &Item, error: impl std::fmt::Display) -> TaskError {
    TaskError::Responses { item: item.id.clone(), detail: error.to_string() }
}

#[cfg(test)]
mod tests;
