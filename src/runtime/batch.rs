//! Several texts written together: each product reads the weights once for a token of every text.
//!
//! A text does not depend on those beside it, to the last bit: products keep its rows apart
//! ([`Engine::step`]), prompts are read alone, and what a prompt takes over from an earlier one are
//! whole parts of [`BATCH`](super::engine::BATCH) tokens, which are computed alike in both.
use super::engine::{BATCH, Engine, Sequence};
use super::generate::{GenerateError, GenerateSettings, Generated, Writing};
use crate::text::Tokenizer;

/// Bytes of keys and values that [`width`] allows all texts together.
pub const KV_BUDGET: usize = 1 << 30;

/// Texts at once at most, unless more are asked for: beyond, a step reads more of keys and values
/// than of weights.
const MOST: usize = 16;

/// How many texts of up to `tokens` tokens, prompts included, are written at once so that keys and
/// values stay within `budget` bytes: at least one, at most 16.
pub fn width(engine: &Engine<'_>, tokens: usize, budget: usize) -> usize {
    (budget / engine.bytes_of(tokens).max(1)).clamp(1, MOST)
}

/// A text to write.
#[derive(Clone, Debug)]
pub struct Job {
    /// The prompt; at least one token.
    pub prompt: Vec<u32>,
    /// When it ends.
    pub settings: GenerateSettings,
}

/// Writes the texts of `jobs`, up to `width` at once; where one ends the next begins. `done` gets
/// each as soon as it has ended, with its place in `jobs`.
pub fn generate_all<E: From<GenerateError>>(
    engine: &mut Engine<'_>,
    tokenizer: &Tokenizer,
    jobs: &[Job],
    width: usize,
    done: &mut dyn FnMut(usize, Generated) -> Result<(), E>,
) -> Result<(), E> {
    let mut desks: Vec<Desk<'_>> = Vec::new();
    let mut waiting = jobs.iter().enumerate();
    loop {
        while desks.iter().filter(|desk| desk.open.is_some()).count() < width.max(1) {
            let Some((place, job)) = waiting.next() else { break };
            let desk = free_desk(engine, &mut desks, job);
            let mut writing = desk.begin(engine, tokenizer, job)?;
            match writing.choose(&desk.first).map_err(E::from)? {
                Some(next) => desk.open = Some(Open { place, writing, next }),
                None => done(place, ended(writing)?)?,
            }
        }
        let open =
            desks.iter_mut().filter_map(|desk| Some((&mut desk.sequence, desk.open.as_mut()?)));
        let (sequences, mut texts): (Vec<_>, Vec<_>) = open.unzip();
        if texts.is_empty() {
            return Ok(());
        }
        let ids: Vec<u32> = texts.iter().map(|open| open.next).collect();
        let logits = engine.step(sequences, &ids).map_err(GenerateError::from)?;
        let mut over = Vec::new();
        for (open, logits) in texts.iter_mut().zip(logits.outer_iter()) {
            let logits = logits.to_slice().expect("rows are contiguous");
            match open.writing.choose(logits)? {
                Some(next) => open.next = next,
                None => over.push(open.place),
            }
        }
        for desk in &mut desks {
            if let Some(open) = desk.open.take_if(|open| over.contains(&open.place)) {
                done(open.place, ended(open.writing)?)?;
            }
        }
    }
}

/// Where one text after the other is written.
struct Desk<'a> {
    sequence: Sequence,
    /// The prompt that the sequence begins with.
    read: Vec<u32>,
    open: Option<Open<'a>>,
    /// Logits behind the prompt.
    first: Vec<f32>,
}

struct Open<'a> {
    place: usize,
    writing: Writing<'a>,
    /// Chosen, and not read by the model.
    next: u32,
}

fn ended(mut writing: Writing<'_>) -> Result<Generated, GenerateError> {
    writing.close()?;
    Ok(writing.generated())
}

/// A desk without a text, whose sequence begins with what other desks have read of the prompt.
fn free_desk<'d, 'a>(
    engine: &Engine<'_>,
    desks: &'d mut Vec<Desk<'a>>,
    job: &Job,
) -> &'d mut Desk<'a> {
    let free = desks.iter().position(|desk| desk.open.is_none()).unwrap_or_else(|| {
        desks.push(Desk { sequence: engine.sequence(), read: vec![], open: None, first: vec![] });
        desks.len() - 1
    });
    let shared = |desk: &Desk<'_>| {
        let same = desk.read.iter().zip(&job.prompt).take_while(|(a, b)| a == b).count();
        // Something must be left to read.
        same.min(job.prompt.len().saturating_sub(1)) / BATCH * BATCH
    };
    let mut own = shared(&desks[free]);
    let best = (0..desks.len()).max_by_key(|at| shared(&desks[*at])).unwrap_or(free);
    let theirs = shared(&desks[best]);
    if engine.depends_on_length() {
        // Keys were turned for another length.
        own = 0;
    } else if theirs > own {
        let [desk, other] = desks.get_disjoint_mut([free, best]).expect("two of them");
        desk.sequence.copy_from(&other.sequence, theirs);
        own = theirs;
    }
    let desk = &mut desks[free];
    desk.sequence.truncate(own);
    desk
}

impl<'a> Desk<'a> {
    /// Reads what is left of a prompt.
    fn begin(
        &mut self,
        engine: &mut Engine<'_>,
        tokenizer: &'a Tokenizer,
        job: &'a Job,
    ) -> Result<Writing<'a>, GenerateError> {
        let Job { prompt, settings } = job;
        let limit = engine.max_positions();
        let writing = Writing::new(tokenizer, (prompt, limit), settings)?;
        self.sequence.reserve(prompt.len().saturating_add(settings.max_tokens).min(limit));
        let unread = &prompt[self.sequence.len()..];
        self.first = engine.feed_to(&mut self.sequence, unread)?.to_vec();
        self.read.clone_from(prompt);
        Ok(writing)
    }
}
