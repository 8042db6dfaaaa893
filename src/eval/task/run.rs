//! Asks a model everything that is not known yet, and keeps each item as soon as it is scored.
use super::{Answered, Item, Record, RecordKey, Request, Response, Task, TaskError};
use crate::progress::{Progress, Unit};
use std::ops::Range;

/// Answers requests: a model that is run.
pub trait Answerer {
    /// Answers the wanted requests in any order; `done` gets the place of each in the list. The
    /// others tell what may be computed together: an answer's last digits do not depend on which
    /// are wanted. When `done` fails, it is not called again and its error is returned.
    fn answer(
        &mut self,
        requests: &[&Request],
        wanted: &[bool],
        done: &mut dyn FnMut(usize, Answered) -> Result<(), TaskError>,
    ) -> Result<(), TaskError>;
}

/// Remembers records of earlier runs.
pub trait Recall {
    /// The record of a [`Record::key`], if there is one.
    fn find(&self, key: &str) -> Option<Record>;

    /// Keeps a record.
    fn keep(&mut self, record: &Record) -> Result<(), TaskError>;
}

/// Remembers nothing.
impl Recall for () {
    fn find(&self, _: &str) -> Option<Record> {
        None
    }

    fn keep(&mut self, _: &Record) -> Result<(), TaskError> {
        Ok(())
    }
}

/// An item whose responses are coming in.
struct Open<'a> {
    place: usize,
    item: &'a Item,
    hashes: [String; 2],
    answers: Vec<Option<Answered>>,
    missing: usize,
}

/// The records of a part of the items, in their order: remembered ones, and those of the model's
/// answers.
pub fn run(
    task: &dyn Task,
    (items, part): (&[Item], Range<usize>),
    key: &RecordKey,
    answerer: &mut dyn Answerer,
    (recall, progress): (&mut dyn Recall, &dyn Progress),
) -> Result<Vec<Record>, TaskError> {
    let mut records: Vec<Option<Record>> = vec![None; part.len()];
    let mut open = Vec::new();
    let mut owner = vec![None; items.len()];
    for (place, item) in items[part.clone()].iter().enumerate() {
        let hashes = key.of(task, item);
        // Words and names can change without the question: the record is that of the item now.
        records[place] = recall.find(&hashes[1]).filter(|it| it.id == item.id);
        if records[place].is_none() {
            let (answers, missing) = (vec![None; item.requests.len()], item.requests.len());
            owner[part.start + place] = Some(open.len());
            open.push(Open { place, item, hashes, answers, missing });
        }
    }
    let (mut owners, mut ids) = (Vec::new(), Vec::new());
    let mut requests = Vec::new();
    for (item, owner) in items.iter().zip(owner) {
        for (r, request) in item.requests.iter().enumerate() {
            owners.push(owner.map(|o| (o, r)));
            ids.push(&item.id);
            requests.push(request);
        }
    }
    let wanted: Vec<bool> = owners.iter().map(Option::is_some).collect();
    let count = wanted.iter().filter(|it| **it).count();
    progress.start(task.name(), count as u64, Unit::Items);
    let asked = answerer.answer(&requests, &wanted, &mut |at, answered| {
        let Some((o, r)) = owners[at] else { return Ok(()) };
        let open = &mut open[o];
        if open.answers[r].replace(answered).is_none() {
            open.missing -= 1;
        }
        progress.advance(1);
        if open.missing == 0 {
            let record = open.close(task)?;
            recall.keep(&record)?;
            records[open.place] = Some(record);
        }
        Ok(())
    });
    asked.map_err(|error| match error {
        TaskError::Request { at, detail } => {
            TaskError::Item { task: task.name(), item: ids[at].clone(), detail }
        }
        other => other,
    })?;
    progress.finish();
    let complete: Option<Vec<Record>> = records.into_iter().collect();
    complete.ok_or_else(|| TaskError::Responses {
        item: task.name().to_owned(),
        detail: "some requests were not answered".into(),
    })
}

impl Open<'_> {
    fn close(&mut self, task: &dyn Task) -> Result<Record, TaskError> {
        let answers: Vec<Answered> = self.answers.iter_mut().filter_map(Option::take).collect();
        let most = |count: fn(&Answered) -> usize| answers.iter().map(count).max().unwrap_or(0);
        let (dropped_shots, cut_tokens) = (most(|it| it.dropped_shots), most(|it| it.cut_tokens));
        let responses: Vec<Response> = answers.into_iter().map(|it| it.response).collect();
        let score = task.score(self.item, &responses)?;
        let [item, key] = std::mem::take(&mut self.hashes);
        Ok(Record {
            task: task.name().to_owned(),
            version: task.version(),
            id: self.item.id.clone(),
            subject: self.item.subject.clone(),
            item,
            key,
            score,
            responses,
            dropped_shots,
            cut_tokens,
        })
    }
}
