//! How many tokens are worth offering, by what passes take and what becomes of offers.

/// The share of plain decoding's speed that trials of offers may cost.
const TRIALS: f64 = 0.02;

/// Passes of one token that may be lost in trials before anything is known; also the most that is saved
/// up for them.
const CREDIT: f64 = 2.0;

/// How far lost time is remembered, as passes.
const DEBT: f64 = -8.0;

/// Passes of one row that are measured before anything is offered.
const FIRST: usize = 3;

/// Passes after which one of a single row is measured again: what all is compared with must be known.
const AGAIN: usize = 24;

/// What an offer of a pass ago counts beside a new one.
const DECAY: f64 = 0.95;

/// What a pass with an offer is taken to cost beside what it was measured at: gains within the noise of
/// clocks are none.
const DOUBT: f64 = 1.03;

/// What a further row is thought to cost beside a single one before it was measured.
const ROW: f64 = 0.25;

/// Chooses how many tokens are offered. Times are in seconds, costs in passes of one row.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    /// Seconds of passes by their rows, from one on.
    passes: Vec<Recent>,
    /// Seconds of offering a token.
    offering: Recent,
    /// Offered tokens that were accepted, and those that were tried: up to the first that was not.
    /// Older ones count less.
    accepted: f64,
    tried: f64,
    /// Passes that trials may lose.
    credit: f64,
    /// Passes since the last of one row.
    since: usize,
    /// The next pass is the first behind a prompt, which finds caches of the processor cold.
    cold: bool,
}

impl Pace {
    /// Up to `most` tokens at once.
    pub(super) fn new(most: usize) -> Self {
        Self {
            passes: vec![Recent::default(); most + 1],
            offering: Recent::default(),
            accepted: 0.0,
            tried: 0.0,
            credit: CREDIT,
            since: 0,
            cold: true,
        }
    }

    /// A prompt is read before the next pass.
    pub(super) fn begin(&mut self) {
        self.cold = true;
    }

    /// How many tokens to offer, up to `room`.
    pub(super) fn choose(&self, room: usize) -> usize {
        if self.passes[0].count < FIRST || self.since >= AGAIN {
            return 0;
        }
        let most = room.min(self.passes.len() - 1);
        let gain = |offered: &usize| self.tokens(*offered) / self.cost(*offered);
        let Some(best) = (1..=most).max_by(|a, b| gain(a).total_cmp(&gain(b))) else { return 0 };
        let lost = (self.cost(best) - self.tokens(best)).max(0.0);
        if self.credit >= lost { best } else { 0 }
    }

    /// What became of a pass: tokens offered to each text and those among them that were accepted; all
    /// offering took `offering` seconds, reading all `reading`. Of several texts the mean counts, and one
    /// without an offer as one whose first token was not accepted.
    pub(super) fn learn(&mut self, texts: &[(usize, usize)], (offering, reading): (f64, f64)) {
        let mean = |of: fn(&(usize, usize)) -> usize| {
            texts.iter().map(of).sum::<usize>() as f64 / texts.len().max(1) as f64
        };
        let offered = texts.iter().map(|it| it.0).max().unwrap_or(0);
        let accepted = mean(|it| it.1);
        let tried = mean(|(offered, accepted)| (accepted + 1).min(*offered).max(1));
        self.since = if offered == 0 { 0 } else { self.since + 1 };
        if std::mem::take(&mut self.cold) {
            return;
        }
        if let Some(recent) = self.passes.get_mut(offered) {
            recent.push(reading);
        }
        self.credit += TRIALS * (accepted + 1.0);
        if offered > 0 {
            self.offering.push(offering / offered as f64);
            self.accepted = DECAY * self.accepted + accepted;
            self.tried = DECAY * self.tried + tried;
            let plain = self.passes[0].median().unwrap_or(reading);
            self.credit += accepted + 1.0 - DOUBT * (offering + reading) / plain;
        }
        self.credit = self.credit.clamp(DEBT, CREDIT);
    }

    /// Tokens written by a pass that offers so many.
    fn tokens(&self, offered: usize) -> f64 {
        // One of two was accepted before the first was tried.
        let share = (self.accepted + 0.5) / (self.tried + 1.0);
        (0..=offered as i32).map(|at| share.powi(at)).sum()
    }

    /// What a pass that offers so many takes, the offering included.
    fn cost(&self, offered: usize) -> f64 {
        let plain = self.passes[0].median().unwrap_or(1.0);
        let known = (0..=offered).rev().find_map(|at| Some((at, self.passes[at].median()?)));
        let (at, seconds) = known.unwrap_or((0, plain));
        let row = if at == 0 { ROW * plain } else { ((seconds - plain) / at as f64).max(0.0) };
        let offering = self.offering.median().unwrap_or(0.0) * offered as f64;
        DOUBT * (seconds + row * (offered - at) as f64 + offering) / plain
    }
}

/// The last few measurements.
#[derive(Clone, Debug, Default)]
struct Recent {
    last: [f64; 15],
    count: usize,
}

impl Recent {
    fn push(&mut self, value: f64) {
        self.last[self.count % self.last.len()] = value;
        self.count += 1;
    }

    fn median(&self) -> Option<f64> {
        let mut known = self.last[..self.count.min(self.last.len())].to_vec();
        known.sort_by(f64::total_cmp);
        known.get(known.len() / 2).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine and a text: seconds of rows beyond the first, of offering a token, and the share of
    /// offered tokens that are accepted.
    struct World {
        row: f64,
        offering: f64,
        share: f64,
    }

    /// Tokens per second over `tokens`, where a plain one takes a second.
    fn speed(world: &World, most: usize, tokens: usize) -> f64 {
        let (mut pace, mut state) = (Pace::new(most), 1_u64);
        let mut random = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1_u64 << 53) as f64
        };
        let (mut written, mut seconds) = (0, 0.0);
        while written < tokens {
            let offered = pace.choose(most);
            let accepted = (0..offered).take_while(|_| random() < world.share).count();
            // A tenth up or down, as clocks have it.
            let noise = 0.9 + 0.2 * random();
            // The first pass is slow, and says nothing of the others.
            let first = if written == 0 { 2.0 } else { 1.0 };
            let reading = first * noise * (1.0 + world.row * offered as f64);
            let offering = world.offering * offered as f64;
            pace.learn(&[(offered, accepted)], (offering, reading));
            written += accepted + 1;
            seconds += offering + reading;
        }
        written as f64 / seconds
    }

    #[test]
    fn what_does_not_pay_costs_little() {
        for share in [0.0, 0.1, 0.3] {
            for (row, offering) in [(0.1, 0.0), (0.5, 0.0), (1.0, 0.0), (0.2, 0.3), (1.0, 2.0)] {
                let got = speed(&World { row, offering, share }, 5, 2000);
                assert!(got > 0.97, "{row} {offering} {share}: {got}");
            }
        }
    }

    #[test]
    fn what_pays_is_done() {
        // All accepted: six tokens in 1.5 seconds; of 0.7, four offered: 2.77 tokens in 1.4.
        let all = speed(&World { row: 0.1, offering: 0.0, share: 1.0 }, 5, 2000);
        assert!(all > 0.9 * 6.0 / 1.5, "{all}");
        let some = speed(&World { row: 0.1, offering: 0.0, share: 0.7 }, 5, 2000);
        assert!(some > 0.9 * 2.77 / 1.4, "{some}");
        let draft = speed(&World { row: 0.1, offering: 0.1, share: 0.9 }, 5, 2000);
        assert!(draft > 1.8, "{draft}");
    }

    #[test]
    fn a_text_that_begins_to_repeat_is_noticed() {
        let mut pace = Pace::new(5);
        for _ in 0..200 {
            let offered = pace.choose(5);
            pace.learn(&[(offered, 0)], (0.0, 1.0 + 0.2 * offered as f64));
        }
        let mut accepted = 0;
        for _ in 0..200 {
            let offered = pace.choose(5);
            accepted += offered;
            pace.learn(&[(offered, offered)], (0.0, 1.0 + 0.2 * offered as f64));
        }
        assert!(accepted > 400, "{accepted}");
    }
}
