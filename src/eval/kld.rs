//! Stored logits of llama.cpp's `llama-perplexity --kl-divergence-base`, as a reference.
//!
//! Little-endian: `_logits_`, int32 tokens per window, int32 vocabulary, int32 windows, int32
//! tokens of all windows; then per window and scored position (the second half, as protocol
//! `llama`) a float32 scale, a float32 least log-probability, and a uint16 code per entry of the
//! vocabulary, padded to an even number: log p = least + scale · code. Whatever lies more than 16
//! below the largest logit has code 0; entries with log p ≤ −16 do not count towards the
//! divergence, as in that program.
use super::{EvalError, LogitSource, Rows, Window, metric::Exact};
use crate::{linalg::top5, tensor::Bytes};
use ndarray::Array2;
use std::ops::Range;

const MAGIC: &[u8; 8] = b"_logits_";
const HEADER: usize = 8 + 3 * 4;
/// Entries at or below do not count.
const LEAST: f32 = -16.0;
/// Stands for them: its exponential is 0.
const NOTHING: f32 = -1e4;

/// A file of stored logits, memory-mapped.
#[derive(Debug)]
pub struct KldReference {
    file: String,
    bytes: Bytes,
    ctx: usize,
    vocab: usize,
    windows: usize,
}

impl KldReference {
    /// Whether a file begins as such a file.
    pub fn is(bytes: &[u8]) -> bool {
        bytes.starts_with(MAGIC)
    }

    /// Reads and checks the header; `file` is the file's name in errors.
    pub fn open(file: &str, bytes: Bytes) -> Result<Self, EvalError> {
        let wrong = |detail: String| EvalError::StoredForm { file: file.to_owned(), detail };
        let number = |at: usize| {
            let bytes = bytes.get(8 + 4 * at..).and_then(|it| it.first_chunk::<4>());
            bytes.and_then(|it| usize::try_from(i32::from_le_bytes(*it)).ok()).filter(|it| *it > 0)
        };
        let (Some(ctx), Some(vocab), Some(windows)) = (number(0), number(1), number(2)) else {
            return Err(wrong("no header of stored logits".into()));
        };
        let found = Self { file: file.to_owned(), bytes: bytes.clone(), ctx, vocab, windows };
        let expected = found.row_length().checked_mul(found.scored()).and_then(|it| {
            let rows = it.checked_mul(windows)?;
            found.tokens_length()?.checked_add(rows)?.checked_add(HEADER)
        });
        if expected != Some(bytes.len()) {
            return Err(wrong(format!(
                "{} bytes, expected {} for {windows} windows of {ctx} tokens and {vocab} entries",
                bytes.len(),
                expected.map_or_else(|| "more than there can be".into(), |it| it.to_string()),
            )));
        }
        Ok(found)
    }

    /// Scored positions of a window.
    fn scored(&self) -> usize {
        self.ctx.saturating_sub(1 + self.ctx / 2)
    }

    fn row_length(&self) -> usize {
        8 + 2 * self.vocab.next_multiple_of(2)
    }

    fn tokens_length(&self) -> Option<usize> {
        self.ctx.checked_mul(self.windows)?.checked_mul(4)
    }

    /// Whether this evaluation scores what the file holds; to be asked before it is used. Each
    /// window's first token may differ: a BOS may stand in its place.
    pub fn check(&self, vocab: usize, windows: &[Window]) -> Result<(), EvalError> {
        let differs = |what, stored: usize, here: usize| {
            let (file, stored, here) = (self.file.clone(), stored.to_string(), here.to_string());
            Err(EvalError::StoredDiffers { file, what, stored, here })
        };
        if vocab != self.vocab {
            return differs("vocabulary size", self.vocab, vocab);
        }
        if windows.len() > self.windows {
            return differs("number of windows", self.windows, windows.len());
        }
        let scored = self.ctx / 2 + 1..self.ctx;
        for (at, window) in windows.iter().enumerate() {
            if window.ids.len() != self.ctx {
                return differs("tokens of a window", self.ctx, window.ids.len());
            }
            if window.scored != scored {
                return differs(
                    "first scored token (protocol llama)",
                    scored.start,
                    window.scored.start,
                );
            }
            let stored = &self.bytes[HEADER + 4 * at * self.ctx..][..4 * self.ctx];
            let stored = stored.as_chunks::<4>().0.iter().map(|it| u32::from_le_bytes(*it));
            let mut both = stored.zip(&window.ids).skip(1);
            if let Some((theirs, ours)) = both.find(|(theirs, ours)| theirs != *ours) {
                return differs("a token", theirs as usize, *ours as usize);
            }
        }
        Ok(())
    }

    fn read(&self, window: usize, positions: Range<usize>) -> Option<Rows> {
        let first = (positions.start + 1).checked_sub(self.ctx / 2 + 1)?;
        let start = HEADER + self.tokens_length()? + window * self.scored() * self.row_length();
        let mut logits = Array2::zeros((positions.len(), self.vocab));
        let mut exact = Vec::with_capacity(positions.len());
        for (at, mut row) in logits.outer_iter_mut().enumerate() {
            let stored = self.bytes.get(start + (first + at) * self.row_length()..)?;
            let (head, codes) = stored.get(..self.row_length())?.split_at(8);
            let float = |at: usize| head[at..].first_chunk().map(|it| f32::from_le_bytes(*it));
            let (scale, least) = (float(0)?, float(4)?);
            let log_prob = |code: &[u8; 2]| least + scale * f32::from(u16::from_le_bytes(*code));
            let codes = codes.as_chunks::<2>().0;
            for (value, code) in row.iter_mut().zip(codes) {
                *value = Some(log_prob(code)).filter(|it| *it > LEAST).unwrap_or(NOTHING);
            }
            let token = HEADER + 4 * (window * self.ctx + positions.start + at + 1);
            let token = self.bytes.get(token..)?.first_chunk().map(|it| u32::from_le_bytes(*it))?;
            let target = f64::from(log_prob(codes.get(token as usize)?));
            exact.push(Exact { target, top: top5(row.as_slice()?) });
        }
        Some(Rows { logits, exact: Some(exact) })
    }
}

impl LogitSource for KldReference {
    fn vocab(&self) -> usize {
        self.vocab
    }

    fn rows(&mut self, window: usize, positions: Range<usize>) -> Result<Rows, EvalError> {
        self.read(window, positions).ok_or_else(|| EvalError::StoredForm {
            file: self.file.clone(),
            detail: format!("no rows for window {window}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        eval::{StoredWriter, measure},
        linalg::{Team, log_sum_exp},
        progress::Silent,
    };

    const VOCAB: usize = 5;
    const CTX: usize = 6;

    /// Logits of a window and position by hand.
    fn logit(window: usize, position: usize, entry: usize) -> f32 {
        [1.0, 3.0, -0.5, 2.0, -40.0][(entry + position + window) % VOCAB]
    }

    /// As the other program writes it.
    fn file(windows: usize) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        for number in [CTX, VOCAB, windows] {
            out.extend((number as i32).to_le_bytes());
        }
        let tokens = (0..windows).flat_map(|w| (0..CTX).map(move |at| ((w + at) % VOCAB) as i32));
        out.extend(tokens.flat_map(i32::to_le_bytes));
        for window in 0..windows {
            for position in CTX / 2..CTX - 1 {
                let row: Vec<f32> = (0..VOCAB).map(|v| logit(window, position, v)).collect();
                let most = row.iter().copied().fold(f32::MIN, f32::max);
                let least = row.iter().copied().fold(f32::MAX, f32::min).max(most - 16.0);
                let scale = (most - least) / 65535.0;
                out.extend(scale.to_le_bytes());
                out.extend((least - log_sum_exp(&row) as f32).to_le_bytes());
                let code = |x: &f32| ((x.max(least) - least) / scale).round() as u16;
                out.extend(row.iter().map(code).chain([0]).flat_map(u16::to_le_bytes));
            }
        }
        out
    }

    fn windows(count: usize) -> Vec<Window> {
        let ids = |w: usize| (0..CTX).map(|at| ((w + at) % VOCAB) as u32).collect();
        (0..count).map(|w| Window { ids: ids(w), scored: CTX / 2 + 1..CTX }).collect()
    }

    /// The logits themselves, a little off.
    struct Model(f32);

    impl LogitSource for Model {
        fn vocab(&self) -> usize {
            VOCAB
        }
        fn bytes_per_token(&self) -> usize {
            4
        }
        fn prepare(&mut self, _: usize, _: &[Window]) -> Result<(), EvalError> {
            Ok(())
        }
        fn rows(&mut self, window: usize, positions: Range<usize>) -> Result<Rows, EvalError> {
            let logits = Array2::from_shape_fn((positions.len(), VOCAB), |(i, v)| {
                logit(window, positions.start + i, v) * self.0
            });
            Ok(Rows { logits, exact: None })
        }
    }

    #[test]
    fn stored_logits_compare_as_the_model_does() {
        let mut stored = KldReference::open("a.kld", Bytes::owned(file(2))).unwrap();
        stored.check(VOCAB, &windows(2)).unwrap();
        let against = |reference: &mut dyn LogitSource| {
            let none: Option<&mut StoredWriter<Vec<u8>>> = None;
            let aids = (&Team::new(1), &Silent as &dyn crate::progress::Progress);
            let (figures, _) =
                measure(&windows(2), &mut Model(0.8), Some(reference), none, aids).unwrap();
            figures.divergence.unwrap()
        };
        let (file, model) = (against(&mut stored), against(&mut Model(1.0)));
        // Codes are 16/65535 apart: log-probabilities are off by half of that at most, and so is
        // the divergence, but for the entry of 1e-19 that is left out.
        let half = 8.0 / 65535.0;
        assert!(model.kl_mean.value > 0.005, "{}", model.kl_mean.value);
        assert!((file.kl_mean.value - model.kl_mean.value).abs() < half);
        for (window, position) in [(0, 3), (0, 4), (1, 3), (1, 4)] {
            let rows = stored.rows(window, position..position + 1).unwrap();
            let row: Vec<f32> = (0..VOCAB).map(|v| logit(window, position, v)).collect();
            let least = row.iter().copied().fold(f32::MIN, f32::max) - 16.0;
            let right = row[(window + position + 1) % VOCAB].max(least);
            let exact = rows.exact.unwrap()[0].target;
            assert!((exact - (f64::from(right) - log_sum_exp(&row))).abs() < half);
        }
        assert!((file.top1_agreement - 1.0).abs() < f64::EPSILON);
    }

    #[test]
    fn other_texts_and_damaged_files_are_refused() {
        let stored = KldReference::open("a.kld", Bytes::owned(file(2))).unwrap();
        let told =
            |vocab, windows: &[Window]| stored.check(vocab, windows).unwrap_err().to_string();
        assert!(told(VOCAB + 1, &windows(2)).contains("vocabulary size"));
        assert!(told(VOCAB, &windows(3)).contains("number of windows"));
        let changed = |change: fn(&mut Window)| {
            let mut all = windows(2);
            change(&mut all[1]);
            all
        };
        assert!(told(VOCAB, &changed(|it| it.ids[3] += 1)).contains("a token"));
        assert!(told(VOCAB, &changed(|it| it.scored.start = 1)).contains("protocol llama"));
        assert!(stored.check(VOCAB, &changed(|it| it.ids[0] = 99)).is_ok(), "a BOS");
        let bytes = file(2);
        for cut in 8..bytes.len() {
            assert!(KldReference::open("a.kld", Bytes::owned(bytes[..cut].to_vec())).is_err());
        }
        let mut huge = bytes;
        huge[8..20].fill(0x7f);
        assert!(KldReference::open("a.kld", Bytes::owned(huge)).is_err());
    }
}
