//! Several texts written together: each product reads the weights once for a token of every text.
//!
//! A text does not depend on those beside it, to the last bit: products keep its rows apart
//! ([`Engine::step`]), prompts are read alone, and what a prompt takes over from an earlier one are
//! whole parts of [`BATCH`] tokens, which are computed alike in both.
use super::{
    offers::Offers,
    pass::{Lane, Offered, pass, show},
    plain::Plain,
    proposer::Proposer,
    writing::{GenerateError, GenerateSettings, Generated, Writing},
};
use crate::runtime::engine::{BATCH, Engine, Sequence};
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
    let mut none = Offers::new(|| Box::new(Plain), 0);
    generate_all_with((engine, &mut none), tokenizer, jobs, width, done)
}

/// As [`generate_all`], the same texts, with fewer passes where offers are what the model writes.
pub fn generate_all_with<'a, E: From<GenerateError>>(
    (engine, offers): (&mut Engine<'_>, &mut Offers<'a>),
    tokenizer: &Tokenizer,
    jobs: &[Job],
    width: usize,
    done: &mut dyn FnMut(usize, Generated) -> Result<(), E>,
) -> Result<(), E> {
    let mut desks: Vec<Desk<'_, 'a>> = Vec::new();
    let mut waiting = jobs.iter().enumerate();
    loop {
        while desks.iter().filter(|desk| desk.open.is_some()).count() < width.max(1) {
            let Some((place, job)) = waiting.next() else { break };
            let desk = free_desk((engine, offers), &mut desks, job);
            let lane = desk.begin((engine, offers), tokenizer, job)?;
            if lane.is_over() {
                done(place, lane.end()?)?;
            } else {
                desk.open = Some(Open { place, lane });
            }
        }
        let open = desks.iter_mut().filter_map(|desk| {
            let lane = &mut desk.open.as_mut()?.lane;
            Some((&mut desk.sequence, (lane, &mut *desk.proposer as &mut dyn Proposer)))
        });
        let (mut sequences, mut lanes): (Vec<_>, Vec<Offered<'_, '_>>) = open.unzip();
        if lanes.is_empty() {
            return Ok(());
        }
        let seen: Vec<usize> = sequences.iter().map(|it| it.len()).collect();
        let kept = pass(&mut lanes, &mut offers.control, |rows| {
            let texts = sequences.iter_mut().map(|it| &mut **it).zip(rows.iter().copied());
            engine.step(texts.collect())
        })?;
        let ends = seen.into_iter().zip(kept).map(|(seen, kept)| seen + kept);
        for (((_, proposer), sequence), end) in lanes.into_iter().zip(sequences).zip(ends) {
            sequence.truncate(end);
            show(proposer, sequence.take_states());
        }
        for desk in &mut desks {
            if let Some(open) = desk.open.take_if(|open| open.lane.is_over()) {
                done(open.place, open.lane.end()?)?;
            }
        }
    }
}

/// Where one text after the other is written.
struct Desk<'t, 'a> {
    sequence: Sequence,
    proposer: Box<dyn Proposer + 'a>,
    /// The prompt that the sequence begins with.
    read: Vec<u32>,
    open: Option<Open<'t>>,
}

struct Open<'t> {
    place: usize,
    lane: Lane<'t>,
}

/// A desk without a text, whose sequence begins with what other desks have read of the prompt.
fn free_desk<'d, 't, 'a>(
    (engine, offers): (&Engine<'_>, &mut Offers<'a>),
    desks: &'d mut Vec<Desk<'t, 'a>>,
    job: &Job,
) -> &'d mut Desk<'t, 'a> {
    let free = desks.iter().position(|desk| desk.open.is_none()).unwrap_or_else(|| {
        let (sequence, proposer) = (engine.sequence(), offers.proposer());
        desks.push(Desk { sequence, proposer, read: vec![], open: None });
        desks.len() - 1
    });
    let shared = |desk: &Desk<'_, '_>| {
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
        desk.proposer = offers.proposer();
        own = theirs;
    }
    let desk = &mut desks[free];
    desk.sequence.truncate(own);
    desk
}

impl<'t> Desk<'t, '_> {
    /// Reads what is left of a prompt.
    fn begin(
        &mut self,
        (engine, offers): (&mut Engine<'_>, &mut Offers<'_>),
        tokenizer: &'t Tokenizer,
        job: &'t Job,
    ) -> Result<Lane<'t>, GenerateError> {
        let Job { prompt, settings } = job;
        let limit = engine.max_positions();
        let writing = Writing::new(tokenizer, (prompt, limit), settings)?;
        self.sequence.reserve(prompt.len().saturating_add(settings.max_tokens).min(limit));
        let unread = &prompt[self.sequence.len()..];
        offers.control.begin();
        self.proposer.begin(prompt)?;
        self.sequence.keep_states(offers.control.wants(&*self.proposer));
        let logits = engine.feed_to(&mut self.sequence, unread)?;
        self.read.clone_from(prompt);
        let lane = Lane::begin(writing, prompt, logits)?;
        show(&mut *self.proposer, self.sequence.take_states());
        Ok(lane)
    }
}
