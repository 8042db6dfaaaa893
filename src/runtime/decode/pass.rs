//! One pass over a model, for all texts that are being written.
use super::{
    control::Control,
    proposer::Proposer,
    writing::{GenerateError, Generated, Writing},
};
use crate::{forward::ForwardError, runtime::states::States};
use ndarray::{Array2, ArrayView2, s};
use std::time::Instant;

/// A text that the model has read up to its last token.
pub(super) struct Lane<'a> {
    writing: Writing<'a>,
    /// The prompt and what was written.
    text: Vec<u32>,
    /// What the next pass reads: the last token and what is offered behind it.
    rows: Vec<u32>,
}

impl<'a> Lane<'a> {
    /// Behind a prompt, by the logits `[vocab]` of what follows it.
    pub(super) fn begin(
        writing: Writing<'a>,
        prompt: &[u32],
        logits: &[f32],
    ) -> Result<Self, GenerateError> {
        let mut lane = Self { writing, text: prompt.to_vec(), rows: vec![] };
        lane.write(logits)?;
        Ok(lane)
    }

    /// Whether nothing more is written.
    pub(super) fn is_over(&self) -> bool {
        self.writing.is_over()
    }

    /// What was written; the whole prompt counts as read.
    pub(super) fn end(mut self) -> Result<Generated, GenerateError> {
        self.writing.close()?;
        Ok(self.writing.generated())
    }

    /// Writes a token; gives it if there is more to write behind it.
    fn write(&mut self, logits: &[f32]) -> Result<Option<u32>, GenerateError> {
        let Some(id) = self.writing.choose(logits)? else { return Ok(None) };
        self.text.push(id);
        self.writing.hand_on();
        Ok((!self.is_over()).then_some(id))
    }

    /// Asks for up to `most` tokens.
    fn offer(&mut self, proposer: &mut dyn Proposer, most: usize) -> Result<(), GenerateError> {
        self.rows.clear();
        self.rows.extend(self.text.last());
        let most = most.min(self.writing.room());
        if most > 0 {
            self.rows.extend(proposer.offer(&self.text, most)?.into_iter().take(most));
        }
        Ok(())
    }

    /// Writes what the model says, `[rows, vocab]`, as long as it says what was offered; gives the rows
    /// that belong to the text.
    fn follow(&mut self, logits: ArrayView2<'_, f32>) -> Result<usize, GenerateError> {
        let mut kept = 0;
        for logits in logits.outer_iter() {
            kept += 1;
            let written = self.write(logits.to_slice().expect("rows are contiguous"))?;
            if written.is_none() || written.as_ref() != self.rows.get(kept) {
                break;
            }
        }
        Ok(kept)
    }
}

/// A text and who offers it tokens.
pub(super) type Offered<'t, 'a> = (&'t mut Lane<'a>, &'t mut (dyn Proposer + 't));

/// Lets a model read the next rows of each text, by `read`: of the rows of each the logits
/// `[rows, vocab]` of all, one after the other. Gives how many rows of each belong to its text; the
/// memory is to forget those behind.
pub(super) fn pass(
    lanes: &mut [Offered<'_, '_>],
    control: &mut Control,
    read: impl FnOnce(&[&[u32]]) -> Result<Array2<f32>, ForwardError>,
) -> Result<Vec<usize>, GenerateError> {
    let began = Instant::now();
    let room = lanes.iter().map(|(lane, _)| lane.writing.room()).max();
    let most = control.choose(room.unwrap_or(0));
    for (lane, proposer) in &mut *lanes {
        lane.offer(*proposer, most)?;
    }
    let rows: Vec<&[u32]> = lanes.iter().map(|(lane, _)| lane.rows.as_slice()).collect();
    let offered = Instant::now();
    let logits = read(&rows)?;
    let seconds = ((offered - began).as_secs_f64(), offered.elapsed().as_secs_f64());
    let (mut first, mut kept, mut texts) = (0, Vec::new(), Vec::new());
    for (lane, _) in &mut *lanes {
        let own = first..first + lane.rows.len();
        first = own.end;
        let offered = own.len() - 1;
        let stay = lane.follow(logits.slice(s![own, ..]))?;
        texts.push((offered, stay - 1));
        kept.push(stay);
    }
    control.learn(&texts, seconds);
    Ok(kept)
}

/// Shows states to a proposer, if there are any.
pub(super) fn show(proposer: &mut dyn Proposer, states: States) {
    if !states.is_empty() {
        proposer.see(states);
    }
}
