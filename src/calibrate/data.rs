//! The tokens that a model is calibrated on.
use super::{CalibrateError, Settings, bundled, settings::Source};
use crate::{
    number,
    tensor::{Bytes, sha256},
    text::{Document, Form, Render, Text, Tokenizer},
};
use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Encodes a document, with the special tokens that belong around it.
pub type Encode<'a> = &'a dyn Fn(&Document) -> Result<Vec<u32>, String>;

/// Continues a prompt by so many tokens with a seed.
pub type Generate<'a> = &'a mut dyn FnMut(&[u32], usize, u64) -> Result<Vec<u32>, String>;

/// Windows of tokens and where they come from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CalibrationSet {
    /// Windows of equal length; they do not see each other.
    pub windows: Vec<Vec<u32>>,
    /// Windows of the same text that are not calibrated on, to measure on.
    pub held_out: Vec<Vec<u32>>,
    /// Others of it, that a model learns from behind its calibration; mostly none.
    pub learnt: Vec<Vec<u32>>,
    /// What identifies the windows.
    pub fingerprint: DataFingerprint,
    /// What a reader of the result should know, e.g. that there was less text than asked for.
    pub notes: Vec<String>,
}

/// What identifies calibration data.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataFingerprint {
    /// Where windows come from, in order.
    pub sources: Vec<SourceFingerprint>,
    /// SHA-256 of the ids of all windows, 32 bits each in little-endian order.
    pub ids_sha256: String,
    /// Windows.
    pub samples: usize,
    /// Tokens of a window.
    pub tokens: usize,
    /// Seed of the draw.
    pub seed: u64,
    /// The model wrote the windows itself.
    pub self_generated: bool,
}

/// One source of windows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceFingerprint {
    /// As it was named.
    pub name: String,
    /// Its weight.
    pub weight: f64,
    /// SHA-256 of its bytes.
    pub sha256: String,
    /// Windows taken from it.
    pub samples: usize,
}

/// A source cut into windows, in the order of the draw.
struct Cut<'a> {
    source: &'a Source,
    sha256: String,
    windows: Vec<Vec<u32>>,
}

impl CalibrationSet {
    /// Tokens of all windows to calibrate on.
    pub fn tokens(&self) -> usize {
        self.windows.iter().map(Vec::len).sum()
    }

    /// Of the windows that are held out `measured` remain, spread over all sources; the others are to be
    /// learnt from.
    pub fn learn_from_held_out(&mut self, measured: usize) {
        let every = self.held_out.len().div_ceil(measured.max(1)).max(1);
        for (i, window) in std::mem::take(&mut self.held_out).into_iter().enumerate() {
            let part = if i % every == 0 { &mut self.held_out } else { &mut self.learnt };
            part.push(window);
        }
    }

    /// Reads the texts that the settings name, or those that the program carries, and draws windows
    /// from them as [`Self::draw`] does.
    pub fn read(
        settings: &Settings,
        tokenizer: &Tokenizer,
        (held_out, seed): (usize, u64),
    ) -> Result<Self, CalibrateError> {
        let read = |source: Source| {
            let bytes = match bundled(&source.name) {
                Some(text) => Bytes::fixed(text.as_bytes()),
                None => Bytes::map(Path::new(&source.name))?,
            };
            Ok((source, bytes))
        };
        let texts: Vec<(Source, Bytes)> =
            settings.sources().into_iter().map(read).collect::<Result<_, CalibrateError>>()?;
        let texts: Vec<(Source, &[u8])> =
            texts.iter().map(|(source, bytes)| (source.clone(), &**bytes)).collect();
        let encode = |document: &Document| {
            tokenizer.encode_document(document).map_err(|error| error.to_string())
        };
        let render = |record: &serde_json::Value| {
            tokenizer.render_record(record).map_err(|error| error.to_string())
        };
        Self::draw(settings, &texts, (&encode, &render), (held_out, seed))
    }

    /// Draws windows from texts, given with their bytes: each text is tokenized, its documents one
    /// after another, and cut into disjoint windows; windows are drawn without replacement in
    /// proportion to the weights. A text that has too few leaves its share to the others.
    /// `held_out` further windows (at most half of all) are set aside.
    pub fn draw(
        settings: &Settings,
        texts: &[(Source, &[u8])],
        (encode, render): (Encode<'_>, Render<'_>),
        (held_out, seed): (usize, u64),
    ) -> Result<Self, CalibrateError> {
        number::check(settings)?;
        let (mut cuts, mut longest) = (Vec::new(), 0);
        for (i, (source, bytes)) in texts.iter().enumerate() {
            let text = Text::read(&[(&source.name, bytes)], Form::Auto, render)?;
            let (tokens, mut windows) = cut(&text, settings.tokens(), encode)?;
            longest = longest.max(tokens);
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            random.set_stream(i as u64);
            windows.shuffle(&mut random);
            cuts.push(Cut { source, sha256: text.sha256, windows });
        }
        let available: Vec<usize> = cuts.iter().map(|cut| cut.windows.len()).collect();
        let all: usize = available.iter().sum();
        if all == 0 {
            return Err(CalibrateError::TooShort { needed: settings.tokens(), longest });
        }
        let weights: Vec<f64> = cuts.iter().map(|cut| cut.source.weight).collect();
        let held_out = held_out.min(all / 2);
        let wanted = settings.calibration_samples;
        let taken = allot(wanted.min(all - held_out), &weights, &available);
        let rest: Vec<usize> = available.iter().zip(&taken).map(|(all, it)| all - it).collect();
        let spared = allot(held_out, &weights, &rest);
        let notes = notes(&cuts, &taken, settings);
        let part = |from: &[usize], count: &[usize]| {
            let each = cuts.iter().zip(from).zip(count);
            each.flat_map(|((cut, from), count)| cut.windows[*from..from + count].to_vec())
                .collect::<Vec<_>>()
        };
        let windows = part(&vec![0; cuts.len()], &taken);
        let held_out = part(&taken, &spared);
        let sources = cuts.iter().zip(&taken).map(|(cut, samples)| SourceFingerprint {
            name: cut.source.name.clone(),
            weight: cut.source.weight,
            sha256: cut.sha256.clone(),
            samples: *samples,
        });
        let fingerprint = fingerprint(sources.collect(), &windows, settings, seed);
        Ok(Self { windows, held_out, learnt: Vec::new(), fingerprint, notes })
    }

    /// Lets a model write its own calibration text: prompt after prompt is continued until a
    /// window is full, each with a seed of its own (docs/calibration.md). `prompts` is the text
    /// that they come from, one a line.
    pub fn generate(
        settings: &Settings,
        (name, prompts): (&str, &str),
        (encode, generate): (Encode<'_>, Generate<'_>),
        (held_out, seed): (usize, u64),
    ) -> Result<Self, CalibrateError> {
        number::check(settings)?;
        let length = settings.tokens();
        let lines: Vec<&str> = prompts.lines().filter(|line| !line.trim().is_empty()).collect();
        let failed = |detail| CalibrateError::Generate { detail };
        let mut windows = Vec::new();
        for sample in 0..settings.calibration_samples + held_out {
            let line = lines.get(sample % lines.len().max(1)).copied().unwrap_or_default();
            let prompt = Document::plain(line);
            let mut ids = encode(&prompt).map_err(|detail| CalibrateError::Encode { detail })?;
            ids.truncate(length.saturating_sub(1));
            if ids.is_empty() {
                return Err(failed(format!("the prompt `{line}` has no tokens")));
            }
            let seed = seed.wrapping_add((sample as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            ids.extend(generate(&ids, length - ids.len(), seed).map_err(failed)?);
            if ids.len() != length {
                return Err(failed(format!("{} tokens of {length}", ids.len())));
            }
            windows.push(ids);
        }
        let held_out = windows.split_off(settings.calibration_samples);
        let source = SourceFingerprint {
            name: name.to_owned(),
            weight: 1.0,
            sha256: sha256(prompts.as_bytes()),
            samples: windows.len(),
        };
        let fingerprint = fingerprint(vec![source], &windows, settings, seed);
        Ok(Self { windows, held_out, learnt: Vec::new(), fingerprint, notes: Vec::new() })
    }
}

/// How many tokens a text has, and disjoint windows of `length`; what is left at the end is dropped.
fn cut(
    text: &Text,
    length: usize,
    encode: Encode<'_>,
) -> Result<(usize, Vec<Vec<u32>>), CalibrateError> {
    let mut ids = Vec::new();
    for document in &text.documents {
        ids.extend(encode(document).map_err(|detail| CalibrateError::Encode { detail })?);
    }
    Ok((ids.len(), ids.chunks_exact(length).map(<[u32]>::to_vec).collect()))
}

fn notes(cuts: &[Cut<'_>], taken: &[usize], settings: &Settings) -> Vec<String> {
    let (wanted, length) = (settings.calibration_samples, settings.tokens());
    let got: usize = taken.iter().sum();
    let unlimited = vec![usize::MAX; cuts.len()];
    let weights: Vec<f64> = cuts.iter().map(|cut| cut.source.weight).collect();
    let shares = allot(wanted, &weights, &unlimited);
    let short = cuts.iter().zip(&shares).filter(|(cut, share)| cut.windows.len() < **share);
    let mut notes: Vec<String> = short
        .map(|(cut, share)| {
            let (name, has) = (&cut.source.name, cut.windows.len());
            format!("`{name}` has {has} windows of {length} tokens, its share is {share}")
        })
        .collect();
    if got < wanted {
        notes.push(format!("{got} samples instead of {wanted}: the text has no more"));
    }
    notes
}

fn fingerprint(
    sources: Vec<SourceFingerprint>,
    windows: &[Vec<u32>],
    settings: &Settings,
    seed: u64,
) -> DataFingerprint {
    let ids: Vec<u8> = windows.iter().flatten().flat_map(|id| id.to_le_bytes()).collect();
    DataFingerprint {
        sources,
        ids_sha256: sha256(&ids),
        samples: windows.len(),
        tokens: settings.tokens(),
        seed,
        self_generated: settings.self_generate,
    }
}

/// Splits `total` in proportion to `weights` (> 0), by largest remainders, the first on ties; no
/// part is larger than `limits` allows, what it cannot take goes to the others.
fn allot(total: usize, weights: &[f64], limits: &[usize]) -> Vec<usize> {
    let mut parts = vec![0_usize; weights.len()];
    loop {
        let left = total - parts.iter().sum::<usize>();
        let open: Vec<usize> = (0..parts.len()).filter(|i| parts[*i] < limits[*i]).collect();
        if left == 0 || open.is_empty() {
            return parts;
        }
        let sum: f64 = open.iter().map(|i| weights[*i]).sum();
        let shares: Vec<f64> = open.iter().map(|i| left as f64 * weights[*i] / sum).collect();
        let mut given = 0;
        for (i, share) in open.iter().zip(&shares) {
            let add = (share.floor() as usize).min(limits[*i] - parts[*i]).min(left - given);
            parts[*i] += add;
            given += add;
        }
        if given == 0 {
            let mut order: Vec<usize> = (0..open.len()).collect();
            order.sort_by(|a, b| shares[*b].total_cmp(&shares[*a]));
            for at in order.into_iter().take(left) {
                parts[open[at]] += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(samples: usize, tokens: usize) -> Settings {
        Settings {
            calibration_samples: samples,
            calibration_tokens: Some(tokens),
            ..Settings::default()
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "as tokenizers are called")]
    fn bytes_as_ids(document: &Document) -> Result<Vec<u32>, String> {
        Ok(document.text.bytes().map(u32::from).collect())
    }

    fn draw(
        settings: &Settings,
        texts: &[(&str, f64, &[u8])],
        held_out: usize,
        seed: u64,
    ) -> Result<CalibrationSet, CalibrateError> {
        let texts: Vec<(Source, &[u8])> = texts
            .iter()
            .map(|(name, weight, bytes)| {
                (Source { name: (*name).to_owned(), weight: *weight }, *bytes)
            })
            .collect();
        let render = |_: &serde_json::Value| Ok("chat".to_owned());
        CalibrationSet::draw(settings, &texts, (&bytes_as_ids, &render), (held_out, seed))
    }

    fn letters(first: u8, count: usize) -> Vec<u8> {
        (0..count).map(|i| first + (i % 13) as u8).collect()
    }

    #[test]
    fn parts_follow_weights_and_limits() {
        assert_eq!(allot(10, &[1.0, 1.0], &[99, 99]), [5, 5]);
        assert_eq!(allot(10, &[3.0, 1.0], &[99, 99]), [8, 2], "7.5 and 2.5: the first on ties");
        assert_eq!(allot(10, &[1.0, 1.0], &[2, 99]), [2, 8]);
        assert_eq!(allot(10, &[1.0, 1.0, 2.0], &[1, 1, 1]), [1, 1, 1]);
        assert_eq!(allot(0, &[1.0], &[9]), [0]);
    }

    #[test]
    fn windows_are_disjoint_parts_of_the_texts_in_proportion() {
        let (a, b) = (letters(b'a', 80), letters(b'A', 80));
        let texts: [(&str, f64, &[u8]); 2] = [("a.txt", 1.0, &a), ("b.txt", 3.0, &b)];
        let set = draw(&settings(8, 8), &texts, 0, 7).unwrap();
        let samples: Vec<usize> = set.fingerprint.sources.iter().map(|it| it.samples).collect();
        assert_eq!(samples, [2, 6]);
        assert!(set.windows[..2].iter().flatten().all(|id| *id >= u32::from(b'a')));
        let mut starts: Vec<&Vec<u32>> = set.windows.iter().collect();
        starts.sort();
        starts.dedup();
        assert_eq!(starts.len(), 8, "13 does not divide 8: disjoint windows differ");
        assert!(set.notes.is_empty(), "{:?}", set.notes);
        assert_eq!(set, draw(&settings(8, 8), &texts, 0, 7).unwrap());
        let other = draw(&settings(8, 8), &texts, 0, 8).unwrap();
        assert_ne!(set.fingerprint.ids_sha256, other.fingerprint.ids_sha256);
    }

    #[test]
    fn windows_that_are_held_out_are_others_and_leave_the_set_as_it_is() {
        let text = letters(b'a', 12 * 8);
        let texts: [(&str, f64, &[u8]); 1] = [("a.txt", 1.0, &text)];
        let plain = draw(&settings(6, 8), &texts, 0, 1).unwrap();
        let set = draw(&settings(6, 8), &texts, 3, 1).unwrap();
        assert_eq!(set.windows, plain.windows);
        assert_eq!(set.held_out.len(), 3);
        assert!(set.held_out.iter().all(|it| !set.windows.contains(it)));
        let all = set.held_out.clone();
        let mut set = set;
        set.learn_from_held_out(2);
        assert_eq!(
            (set.held_out.as_slice(), set.learnt.as_slice()),
            (&[all[0].clone(), all[2].clone()][..], &all[1..2])
        );
        let scarce = draw(&settings(99, 8), &texts, 99, 1).unwrap();
        assert_eq!((scarce.windows.len(), scarce.held_out.len()), (6, 6));
    }

    #[test]
    fn too_little_text_is_told_or_refused() {
        let (a, b) = (letters(b'a', 17), letters(b'A', 800));
        let set = draw(&settings(8, 8), &[("a.txt", 1.0, &a), ("b.txt", 1.0, &b)], 0, 0).unwrap();
        assert_eq!(set.windows.len(), 8);
        assert_eq!(set.notes, ["`a.txt` has 2 windows of 8 tokens, its share is 4"]);
        let set = draw(&settings(8, 8), &[("a.txt", 1.0, &a)], 0, 0).unwrap();
        assert_eq!(set.notes[1], "2 samples instead of 8: the text has no more");
        let refused = draw(&settings(8, 32), &[("a.txt", 1.0, &a)], 0, 0).unwrap_err();
        assert!(refused.to_string().contains("fewer than 32 tokens, the longest 17"), "{refused}");
        let refused = draw(&settings(8, 8), &[("a.txt", 1.0, b"abc\xff")], 0, 0).unwrap_err();
        assert!(refused.to_string().contains("not UTF-8"), "{refused}");
        for none in [settings(0, 8), settings(8, 0)] {
            let refused = draw(&none, &[("a.txt", 1.0, &a)], 0, 0).unwrap_err().to_string();
            assert!(refused.contains("expected a whole number"), "{refused}");
        }
    }

    #[test]
    fn short_records_are_packed_one_after_another() {
        let lines = b"{\"text\":\"abc\"}\n{\"messages\":[]}\n{\"text\":\"de\"}\n";
        let set = draw(&settings(9, 3), &[("a.jsonl", 1.0, lines)], 0, 0).unwrap();
        let mut windows = set.windows;
        windows.sort();
        let expected: Vec<Vec<u32>> = ["abc", "cha", "tde"]
            .iter()
            .map(|it| bytes_as_ids(&Document::plain(*it)).unwrap())
            .collect();
        assert_eq!(windows, expected);
    }

    #[test]
    fn a_model_fills_windows_from_prompts_with_seeds_of_their_own() {
        let mut seeds = Vec::new();
        let mut generate = |prompt: &[u32], tokens: usize, seed: u64| {
            seeds.push(seed);
            Ok(vec![prompt[0]; tokens])
        };
        let set = CalibrationSet::generate(
            &Settings { self_generate: true, ..settings(3, 6) },
            ("prompts", "xy\n\nzw\n"),
            (&bytes_as_ids, &mut generate),
            (1, 5),
        )
        .unwrap();
        assert_eq!(set.windows[0], [120, 121, 120, 120, 120, 120]);
        assert_eq!(set.windows[1][..2], [122, 119]);
        assert_eq!((set.windows.len(), set.held_out.len()), (3, 1));
        seeds.sort_unstable();
        seeds.dedup();
        assert_eq!(seeds.len(), 4);
        let mut short = |_: &[u32], _: usize, _: u64| Ok(vec![1]);
        let refused = CalibrationSet::generate(
            &settings(3, 6),
            ("prompts", "xy"),
            (&bytes_as_ids, &mut short),
            (0, 5),
        );
        assert!(matches!(refused, Err(CalibrateError::Generate { .. })));
    }
}
