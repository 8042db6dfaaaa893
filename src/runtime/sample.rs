//! Choosing the next token from logits.
use crate::linalg::largest;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// How the next token is chosen. Applied in the order of transformers: repetition penalty,
/// temperature, top-k, top-p, min-p.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct SamplingSettings {
    /// Divisor of the logits, 0 and above; 0 takes the best token always.
    pub temperature: f32,
    /// Candidates kept by rank (equal logits share it); 0 keeps all.
    pub top_k: usize,
    /// The best candidates are kept until their probabilities reach this, in (0, 1]; 1 keeps all.
    pub top_p: f32,
    /// Candidates are kept from this share of the best one's probability on, in [0, 1].
    pub min_p: f32,
    /// Positive logits of tokens seen before are divided by it, negative ones multiplied; above 0,
    /// 1 changes nothing. Keskar et al. 2019, arXiv 1909.05858, section 4.1.
    pub repetition_penalty: f32,
    /// Seed of the choice; same seed, same tokens.
    pub seed: u64,
}

impl Default for SamplingSettings {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            seed: 0,
        }
    }
}

/// Settings or logits nothing can be chosen with.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SampleError {
    /// A setting outside its range.
    #[error("{setting}: expected {expected}, found: `{found}`\nhint: leave it out for the default")]
    Setting {
        /// The setting's name.
        setting: &'static str,
        /// Its range.
        expected: &'static str,
        /// What was given.
        found: f32,
    },
    /// Nothing to choose from.
    #[error(
        "the model gave no finite logit for the next token\nhint: `milm-compress verify` or `inspect` shows whether its weights are damaged"
    )]
    NoCandidate,
}

/// Chooses tokens; buffers are kept from token to token.
#[derive(Debug)]
pub struct Sampler {
    settings: SamplingSettings,
    random: ChaCha8Rng,
    /// (logit, then probability; id) of the candidates, best first.
    candidates: Vec<(f32, u32)>,
    /// Whether an id was seen; sized as the vocabulary.
    seen: Vec<bool>,
}

impl Sampler {
    /// Checks the settings.
    pub fn new(settings: SamplingSettings) -> Result<Self, SampleError> {
        let s = &settings;
        let rules = [
            ("temperature", "a number from 0", s.temperature, s.temperature >= 0.0),
            ("top_p", "a number above 0, up to 1", s.top_p, s.top_p > 0.0 && s.top_p <= 1.0),
            ("min_p", "a number from 0 to 1", s.min_p, (0.0..=1.0).contains(&s.min_p)),
            (
                "repetition_penalty",
                "a number above 0",
                s.repetition_penalty,
                s.repetition_penalty > 0.0,
            ),
        ];
        for (setting, expected, found, holds) in rules {
            if !holds || !found.is_finite() {
                return Err(SampleError::Setting { setting, expected, found });
            }
        }
        let random = ChaCha8Rng::seed_from_u64(settings.seed);
        Ok(Self { settings, random, candidates: vec![], seen: vec![] })
    }

    /// Remembers a token for the repetition penalty; prompts count too.
    pub fn saw(&mut self, id: u32) {
        #[expect(clippy::float_cmp, reason = "exactly this value changes nothing")]
        if self.settings.repetition_penalty == 1.0 {
            return;
        }
        let id = id as usize;
        if id >= self.seen.len() {
            self.seen.resize((id + 1).next_power_of_two(), false);
        }
        self.seen[id] = true;
    }

    /// The next token after logits `[vocab]`. Ties go to the lower id; NaN is never chosen.
    pub fn choose(&mut self, logits: &[f32]) -> Result<u32, SampleError> {
        if self.settings.temperature <= 0.0 {
            let logits = logits.iter().enumerate().map(|(id, logit)| self.penalized(*logit, id));
            return largest(logits).ok_or(SampleError::NoCandidate);
        }
        self.gather(logits);
        self.keep_top_k();
        self.probabilities()?;
        self.keep_top_p();
        self.keep_min_p();
        Ok(self.draw())
    }

    fn penalized(&self, logit: f32, id: usize) -> f32 {
        let penalty = self.settings.repetition_penalty;
        match self.seen.get(id) {
            Some(true) if logit > 0.0 => logit / penalty,
            Some(true) => logit * penalty,
            _ => logit,
        }
    }

    fn gather(&mut self, logits: &[f32]) {
        let mut candidates = std::mem::take(&mut self.candidates);
        candidates.clear();
        candidates.extend(logits.iter().enumerate().filter_map(|(id, logit)| {
            let logit = self.penalized(*logit, id) / self.settings.temperature;
            (logit.is_finite()).then_some((logit, id as u32))
        }));
        self.candidates = candidates;
    }

    fn keep_top_k(&mut self) {
        let (k, all) = (self.settings.top_k, &mut self.candidates);
        if k == 0 || k >= all.len() {
            return;
        }
        let (_, last, _) = all.select_nth_unstable_by(k - 1, order);
        let least = last.0;
        all.retain(|(logit, _)| *logit >= least);
    }

    /// Logits become probabilities, best first; sums run in f64 from the smallest on.
    fn probabilities(&mut self) -> Result<(), SampleError> {
        self.candidates.sort_unstable_by(order);
        let most = self.candidates.first().ok_or(SampleError::NoCandidate)?.0;
        for (value, _) in &mut self.candidates {
            *value = (*value - most).exp();
        }
        self.normalize();
        Ok(())
    }

    fn normalize(&mut self) {
        let sum: f64 = self.candidates.iter().rev().map(|(p, _)| f64::from(*p)).sum();
        for (p, _) in &mut self.candidates {
            *p = (f64::from(*p) / sum) as f32;
        }
    }

    /// Drops a candidate when it and all worse ones hold at most `1 - top_p` together.
    fn keep_top_p(&mut self) {
        if self.settings.top_p >= 1.0 {
            return;
        }
        let rest = 1.0 - f64::from(self.settings.top_p);
        let mut sum = 0.0;
        let worse = self.candidates.iter().rev().take_while(|(p, _)| {
            sum += f64::from(*p);
            sum <= rest
        });
        let keep = self.candidates.len() - worse.count();
        self.candidates.truncate(keep.max(1));
        self.normalize();
    }

    fn keep_min_p(&mut self) {
        if self.settings.min_p <= 0.0 {
            return;
        }
        let least = self.settings.min_p * self.candidates[0].0;
        let keep = self.candidates.partition_point(|(p, _)| *p >= least);
        self.candidates.truncate(keep.max(1));
        self.normalize();
    }

    fn draw(&mut self) -> u32 {
        // 53 bits make a number in [0, 1): the same on every machine and crate version.
        let mut rest = (self.random.random::<u64>() >> 11) as f64 / (1_u64 << 53) as f64;
        for (p, id) in &self.candidates {
            rest -= f64::from(*p);
            if rest < 0.0 {
                return *id;
            }
        }
        // Rounding left a little: the last candidate's share.
        self.candidates[self.candidates.len() - 1].1
    }
}

/// Best first, the lower id among equals.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that sorting takes")]
fn order(a: &(f32, u32), b: &(f32, u32)) -> std::cmp::Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logits of the probabilities .5, .25, .125, .125 (ids 2, 0, 1, 3).
    fn logits() -> Vec<f32> {
        [0.25_f32, 0.125, 0.5, 0.125].iter().map(|p| p.ln() + 3.0).collect()
    }

    fn sampler(change: impl FnOnce(&mut SamplingSettings)) -> Sampler {
        let mut settings = SamplingSettings { temperature: 1.0, ..Default::default() };
        change(&mut settings);
        Sampler::new(settings).unwrap()
    }

    /// (id, probability) after all filters.
    fn left(change: impl FnOnce(&mut SamplingSettings)) -> Vec<(u32, f32)> {
        let mut sampler = sampler(change);
        sampler.choose(&logits()).unwrap();
        sampler.candidates.iter().map(|(p, id)| (*id, (p * 1e4).round() / 1e4)).collect()
    }

    #[test]
    fn filters_on_a_hand_computed_distribution() {
        assert_eq!(left(|_| {}), [(2, 0.5), (0, 0.25), (1, 0.125), (3, 0.125)]);
        // Temperature 1/2 squares: 1/4, 1/16, 1/64, 1/64 of 22/64.
        let squared = [(2, 0.7273), (0, 0.1818), (1, 0.0455), (3, 0.0455)];
        assert_eq!(left(|s| s.temperature = 0.5), squared);
        assert_eq!(left(|s| s.top_k = 2), [(2, 0.6667), (0, 0.3333)]);
        // Rank 3 is shared by two tokens: both stay, as in transformers.
        assert_eq!(left(|s| s.top_k = 3).len(), 4);
        // 0.5 + 0.25 reaches 0.7, and not 0.8.
        assert_eq!(left(|s| s.top_p = 0.7).len(), 2);
        assert_eq!(left(|s| s.top_p = 0.8).len(), 3);
        assert_eq!(left(|s| s.top_p = 1e-6), [(2, 1.0)]);
        // From 0.5 · 0.4 = 0.2 on.
        assert_eq!(left(|s| s.min_p = 0.4).len(), 2);
        assert_eq!(left(|s| s.min_p = 0.2).len(), 4);
        assert_eq!(left(|s| s.min_p = 1.0), [(2, 1.0)]);
        // top-k first leaves 2/3, 1/3; of those the first alone reaches 0.6.
        assert_eq!(left(|s| (s.top_k, s.top_p) = (2, 0.6)), [(2, 1.0)]);
        assert_eq!(left(|s| s.top_p = 0.6).len(), 2);
    }

    #[test]
    fn penalties_divide_what_is_positive_and_multiply_what_is_negative() {
        let mut sampler = sampler(|s| (s.temperature, s.repetition_penalty) = (0.0, 2.0));
        assert_eq!(sampler.choose(&[1.0, 1.5, -1.0]).unwrap(), 1);
        sampler.saw(1);
        assert_eq!(sampler.choose(&[1.0, 1.5, -1.0]).unwrap(), 0);
        assert_eq!(sampler.choose(&[-2.0, -1.5, -2.5]).unwrap(), 0);
        assert_eq!(sampler.choose(&[-3.5, -1.5, -3.2]).unwrap(), 1);
    }

    #[test]
    fn greedy_takes_the_first_of_equals_and_never_nan() {
        let mut greedy = sampler(|s| s.temperature = 0.0);
        assert_eq!(greedy.choose(&[f32::NAN, 1.0, 2.0, 2.0]).unwrap(), 2);
        let none = [f32::NAN, f32::NEG_INFINITY];
        assert_eq!(greedy.choose(&none), Err(SampleError::NoCandidate));
        assert_eq!(greedy.choose(&[]), Err(SampleError::NoCandidate));
        assert_eq!(sampler(|_| {}).choose(&none), Err(SampleError::NoCandidate));
    }

    #[test]
    fn draws_follow_the_distribution_and_the_seed() {
        let draw = |seed| {
            let mut sampler = sampler(|s| s.seed = seed);
            (0..4000).map(|_| sampler.choose(&logits()).unwrap()).collect::<Vec<_>>()
        };
        let ids = draw(1);
        assert_eq!(ids, draw(1));
        assert_ne!(ids, draw(2));
        for (id, p) in [(0, 0.25), (1, 0.125), (2, 0.5), (3, 0.125)] {
            let share = ids.iter().filter(|it| **it == id).count() as f64 / 4000.0;
            // Five standard deviations of a share of 4000 draws.
            assert!((share - p).abs() < 5.0 * (p * (1.0 - p) / 4000.0_f64).sqrt(), "{id}: {share}");
        }
    }

    #[test]
    fn settings_out_of_range_are_errors() {
        for change in [
            (|s| s.temperature = -1.0) as fn(&mut SamplingSettings),
            |s| s.temperature = f32::NAN,
            |s| s.top_p = 0.0,
            |s| s.top_p = 1.1,
            |s| s.min_p = -0.1,
            |s| s.repetition_penalty = 0.0,
            |s| s.repetition_penalty = f32::INFINITY,
        ] {
            let mut settings = SamplingSettings::default();
            change(&mut settings);
            assert!(matches!(Sampler::new(settings), Err(SampleError::Setting { .. })));
        }
    }
}
