//! Drawn text has the distribution of the model, whatever is offered.
use crate::decode;
use milm_compress::{
    forward::ForwardError,
    runtime::{
        GenerateSettings, NextToken, Proposer, Sampler, SamplingSettings, Speculation,
        generate_with,
    },
    text::Tokenizer,
};
use ndarray::Array2;

const VOCAB: usize = 5;
const WRITTEN: usize = 3;
const SEEDS: u64 = 6000;

/// What follows a token, by a table.
struct Table {
    text: Vec<u32>,
    logits: Vec<f32>,
}

fn logits(last: u32) -> Vec<f32> {
    (0..VOCAB).map(|id| ((last as usize * 7 + id * id * 3 + 2) % 11) as f32 * 0.35).collect()
}

/// The probabilities behind a token at temperature 1.
fn probabilities(last: u32) -> Vec<f64> {
    let weights: Vec<f64> = logits(last).iter().map(|it| f64::from(*it).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|it| it / sum).collect()
}

impl NextToken for Table {
    fn feed(&mut self, ids: &[u32]) -> Result<&[f32], ForwardError> {
        self.text.extend(ids);
        self.logits = logits(*self.text.last().unwrap());
        Ok(&self.logits)
    }

    fn verify(&mut self, ids: &[u32]) -> Result<Array2<f32>, ForwardError> {
        self.text.extend(ids);
        let rows = ids.iter().flat_map(|id| logits(*id)).collect();
        Ok(Array2::from_shape_vec((ids.len(), VOCAB), rows).unwrap())
    }

    fn truncate(&mut self, len: usize) {
        self.text.truncate(len);
    }

    fn seen(&self) -> usize {
        self.text.len()
    }

    fn limit(&self) -> usize {
        64
    }
}

/// Offers the best token, or the one after it, in turn.
struct Guess(usize);

fn guess(last: u32, turn: usize) -> u32 {
    let logits = logits(last);
    let best = (0..VOCAB).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap();
    ((best + turn % 2) % VOCAB) as u32
}

impl Proposer for Guess {
    fn offer(&mut self, text: &[u32], most: usize) -> Result<Vec<u32>, ForwardError> {
        self.0 += 1;
        let mut last = *text.last().unwrap();
        let mut next = |_| {
            last = guess(last, self.0);
            last
        };
        Ok((0..most).map(&mut next).collect())
    }
}

fn settings(seed: u64) -> SamplingSettings {
    SamplingSettings { temperature: 1.0, seed, ..SamplingSettings::default() }
}

/// Three tokens behind token 0, as written with offers.
fn written(seed: u64, guess: &mut Speculation<'_>, tokenizer: &Tokenizer) -> Vec<u32> {
    let settings = GenerateSettings {
        max_tokens: WRITTEN,
        ignore_eos: true,
        sampling: settings(seed),
        ..GenerateSettings::default()
    };
    let mut table = Table { text: vec![], logits: vec![] };
    let model = (&mut table as _, guess);
    generate_with(model, tokenizer, &[0], &settings, &mut |_| true).unwrap().ids
}

/// By a wrong rule: an offered token is kept with its probability, and behind one that is not kept the
/// model draws from all tokens, that one among them.
fn wrong(seed: u64) -> Vec<u32> {
    let mut sampler = Sampler::new(settings(seed)).unwrap();
    let mut last = 0;
    let mut draw = |at: usize| {
        let offered = guess(last, at);
        let first = sampler.choose(&logits(last)).unwrap();
        last = if first == offered { first } else { sampler.choose(&logits(last)).unwrap() };
        last
    };
    (0..WRITTEN).map(&mut draw).collect()
}

/// Pearson's statistic of all texts, in standard deviations from its mean, where each text has the
/// probability that the table gives it.
fn deviation(texts: impl Iterator<Item = Vec<u32>>) -> f64 {
    let cells = VOCAB.pow(WRITTEN as u32);
    let place = |text: &[u32]| text.iter().fold(0, |at, id| at * VOCAB + *id as usize);
    let (mut counts, mut all) = (vec![0.0; cells], 0.0);
    for text in texts {
        counts[place(&text)] += 1.0;
        all += 1.0;
    }
    let expected = |cell: usize| {
        let ids = (0..WRITTEN).rev().map(|at| (cell / VOCAB.pow(at as u32) % VOCAB) as u32);
        let mut last = 0;
        let mut chance = |id: u32| {
            let of = probabilities(last)[id as usize];
            last = id;
            of
        };
        all * ids.map(&mut chance).product::<f64>()
    };
    let terms = (0..cells).map(|cell| (counts[cell] - expected(cell)).powi(2) / expected(cell));
    let freedom = (cells - 1) as f64;
    // Cube root of Wilson and Hilferty: near a normal distribution.
    let spread = 2.0 / (9.0 * freedom);
    ((terms.sum::<f64>() / freedom).cbrt() - (1.0 - spread)) / spread.sqrt()
}

/// Six deviations: by chance once in a billion.
const BOUND: f64 = 6.0;

#[test]
fn drawn_text_has_the_distribution_of_the_model() {
    let tokenizer = decode::tokenizer(4000);
    for most in [0, 1, 3] {
        let mut guess = Speculation::new(Guess(0), most);
        let found = deviation((0..SEEDS).map(|seed| written(seed, &mut guess, &tokenizer)));
        assert!(found.abs() < BOUND, "{most}: {found}");
        assert!(most == 0 || guess.take_counts().accepted > 1000);
    }
    let found = deviation((0..SEEDS).map(wrong));
    assert!(found > 2.0 * BOUND, "the twin: {found}");
}
