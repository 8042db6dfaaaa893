//! A reference's log-probabilities in a file: made once, compared with often.
//!
//! A safetensors file (docs/evaluation.md): `log_probs` float16 `[scored, vocab]`,
//! `target_log_probs` float64 `[scored]`, `top` uint32 `[scored, 5]`, `tokens` uint32 `[tokens]`,
//! `windows` uint32 `[windows, 3]` (tokens, first and end of the scored positions), and a
//! [`StoredKey`] as JSON in the metadata under `milm_reference`.
use super::{EvalError, LogitSource, Rows, Window, metric::Exact};
use crate::{
    checkpoint::{TensorPlan, parse_safetensors, safetensors_header, safetensors_metadata},
    linalg::{Team, log_sum_exp, top5},
    tensor::{Bytes, FloatType, RawTensor},
};
use ndarray::Array2;
use safetensors::Dtype;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, io::Write, ops::Range};

/// Name of the metadata entry.
const KEY: &str = "milm_reference";
/// Version of the form.
const SCHEMA: u32 = 1;
/// Likely tokens that are kept exactly.
const TOP: usize = 5;

/// What a stored reference was made on: an evaluation that uses it must agree in every field but
/// the model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredKey {
    /// Version of the form.
    pub schema: u32,
    /// The model, as it was named.
    pub model: String,
    /// SHA-256 of the text's bytes.
    pub data_sha256: String,
    /// SHA-256 of tokenizer.json.
    pub tokenizer_sha256: String,
    /// Protocol.
    pub protocol: String,
    /// Tokens of a window.
    pub ctx: usize,
    /// Number of windows.
    pub windows: usize,
    /// Size of the vocabulary.
    pub vocab: usize,
}

impl StoredKey {
    /// A key of this version.
    pub fn new(model: &str, data_sha256: &str, tokenizer_sha256: &str) -> Self {
        Self {
            schema: SCHEMA,
            model: model.to_owned(),
            data_sha256: data_sha256.to_owned(),
            tokenizer_sha256: tokenizer_sha256.to_owned(),
            protocol: String::new(),
            ctx: 0,
            windows: 0,
            vocab: 0,
        }
    }

    /// The first field in which two evaluations differ, with both values.
    fn difference(&self, here: &Self) -> Option<(&'static str, String, String)> {
        let n = |number: usize| number.to_string();
        [
            ("schema", n(self.schema as usize), n(here.schema as usize)),
            ("protocol", self.protocol.clone(), here.protocol.clone()),
            ("ctx", n(self.ctx), n(here.ctx)),
            ("windows", n(self.windows), n(here.windows)),
            ("vocabulary size", n(self.vocab), n(here.vocab)),
            ("text hash", self.data_sha256.clone(), here.data_sha256.clone()),
            ("tokenizer hash", self.tokenizer_sha256.clone(), here.tokenizer_sha256.clone()),
        ]
        .into_iter()
        .find(|(_, stored, here)| stored != here)
    }
}

/// Writes a stored reference row by row.
pub struct StoredWriter<W: Write> {
    out: W,
    vocab: usize,
    exact: Vec<Exact>,
    tokens: Vec<u8>,
    windows: Vec<u8>,
}

impl<W: Write> StoredWriter<W> {
    /// Starts with the header; `windows` are those that will be scored, all of them in order.
    pub fn new(mut out: W, key: &StoredKey, windows: &[Window]) -> Result<Self, EvalError> {
        let scored: usize = windows.iter().map(|window| window.scored.len()).sum();
        let tokens: usize = windows.iter().map(|window| window.ids.len()).sum();
        let header = header(key, scored, tokens);
        let failed = |source| EvalError::StoredWrite { source };
        out.write_all(&header).map_err(failed)?;
        let numbers = |all: &mut dyn Iterator<Item = u32>| all.flat_map(u32::to_le_bytes).collect();
        let spans = |it: &Window| [it.ids.len(), it.scored.start, it.scored.end].map(|n| n as u32);
        Ok(Self {
            out,
            vocab: key.vocab,
            exact: Vec::with_capacity(scored),
            tokens: numbers(&mut windows.iter().flat_map(|window| window.ids.iter().copied())),
            windows: numbers(&mut windows.iter().flat_map(spans)),
        })
    }

    /// Appends rows; row i predicts `targets[i]`.
    pub(super) fn rows(
        &mut self,
        rows: &Rows,
        targets: &[u32],
        team: &Team,
    ) -> Result<(), EvalError> {
        let nothing = Exact { target: f64::NAN, top: [0; TOP] };
        let mut encoded = vec![(Vec::new(), nothing); targets.len()];
        team.each(encoded.iter_mut().collect(), |i, (bytes, exact)| {
            let row = rows.row(i);
            let lse = log_sum_exp(row);
            let log_probs: Vec<f32> = row.iter().map(|x| (f64::from(*x) - lse) as f32).collect();
            FloatType::F16.encode(&log_probs, bytes);
            let target = row.get(targets[i] as usize).map_or(f64::NAN, |x| f64::from(*x) - lse);
            *exact = Exact { target, top: top5(row) };
        });
        for (bytes, exact) in encoded {
            debug_assert_eq!(bytes.len(), 2 * self.vocab);
            self.out.write_all(&bytes).map_err(|source| EvalError::StoredWrite { source })?;
            self.exact.push(exact);
        }
        Ok(())
    }

    /// Writes what follows the rows, and gives the output back.
    pub fn finish(mut self) -> Result<W, EvalError> {
        let targets = self.exact.iter().flat_map(|exact| exact.target.to_le_bytes());
        let tops = self.exact.iter().flat_map(|exact| exact.top).flat_map(u32::to_le_bytes);
        let mut tail: Vec<u8> = targets.chain(tops).collect();
        tail.extend(&self.tokens);
        tail.extend(&self.windows);
        let written = self.out.write_all(&tail).and_then(|()| self.out.flush());
        written.map_err(|source| EvalError::StoredWrite { source })?;
        Ok(self.out)
    }
}

/// Names, types and shapes in the order of the data.
fn layout(
    scored: usize,
    vocab: usize,
    tokens: usize,
    windows: usize,
) -> [(&'static str, Dtype, Vec<usize>); 5] {
    [
        ("log_probs", Dtype::F16, vec![scored, vocab]),
        ("target_log_probs", Dtype::F64, vec![scored]),
        ("top", Dtype::U32, vec![scored, TOP]),
        ("tokens", Dtype::U32, vec![tokens]),
        ("windows", Dtype::U32, vec![windows, 3]),
    ]
}

fn header(key: &StoredKey, scored: usize, tokens: usize) -> Vec<u8> {
    let key_text = serde_json::to_string(key).expect("plain data");
    let plan = layout(scored, key.vocab, tokens, key.windows);
    let plan: Vec<TensorPlan> = plan
        .into_iter()
        .map(|(name, dtype, shape)| TensorPlan { name: name.into(), dtype, shape })
        .collect();
    safetensors_header(&plan, &serde_json::json!({ KEY: key_text }))
}

/// A stored reference, memory-mapped.
#[derive(Debug)]
pub struct StoredReference {
    file: String,
    key: StoredKey,
    tensors: BTreeMap<String, RawTensor>,
    /// Row of the first scored position of each window, and that position.
    starts: Vec<(usize, usize)>,
}

impl StoredReference {
    /// Reads and checks a file's header; `file` is its name in errors.
    pub fn open(file: &str, bytes: &Bytes) -> Result<Self, EvalError> {
        let wrong = |detail: String| EvalError::StoredForm { file: file.to_owned(), detail };
        let tensors = parse_safetensors(bytes).map_err(|source| EvalError::StoredHeader {
            file: file.to_owned(),
            source: Box::new(source),
        })?;
        let key = safetensors_metadata(bytes, KEY)
            .ok_or_else(|| wrong(format!("no metadata `{KEY}`")))?;
        let key: StoredKey =
            serde_json::from_str(&key).map_err(|error| wrong(format!("metadata: {error}")))?;
        if key.schema != SCHEMA {
            return Err(wrong(format!("schema {}, known is {SCHEMA}", key.schema)));
        }
        let axis = |name: &str, axis: usize| {
            tensors.get(name).and_then(|tensor| tensor.shape.get(axis)).copied().unwrap_or(0)
        };
        for (name, dtype, shape) in
            layout(axis("log_probs", 0), key.vocab, axis("tokens", 0), key.windows)
        {
            let tensor = tensors.get(name).ok_or_else(|| wrong(format!("no tensor `{name}`")))?;
            if (tensor.dtype, &tensor.shape) != (dtype, &shape) {
                return Err(wrong(format!(
                    "`{name}` is {:?} {:?}, expected {dtype:?} {shape:?}",
                    tensor.dtype, tensor.shape
                )));
            }
        }
        Ok(Self { file: file.to_owned(), key, tensors, starts: Vec::new() })
    }

    /// What it was made on.
    pub fn key(&self) -> &StoredKey {
        &self.key
    }

    /// Whether this evaluation is the one that it was made on; to be asked before it is used.
    pub fn check(&mut self, here: &StoredKey, windows: &[Window]) -> Result<(), EvalError> {
        let differs = |what, stored: String, here: String| {
            Err(EvalError::StoredDiffers { file: self.file.clone(), what, stored, here })
        };
        if let Some((what, stored, here)) = self.key.difference(here) {
            return differs(what, stored, here);
        }
        let mine = windows.iter().flat_map(|window| window.ids.iter().copied());
        if !self.numbers("tokens").eq(mine) {
            return differs("tokens", "others".into(), "those of this text".into());
        }
        let spans = |it: &Window| [it.ids.len(), it.scored.start, it.scored.end].map(|n| n as u32);
        if !self.numbers("windows").eq(windows.iter().flat_map(spans)) {
            return differs("scored positions", "others".into(), "those of the protocol".into());
        }
        let scored: usize = windows.iter().map(|window| window.scored.len()).sum();
        let rows = self.tensors["log_probs"].shape[0];
        if scored != rows {
            return differs("number of rows", rows.to_string(), scored.to_string());
        }
        let mut row = 0;
        self.starts = windows
            .iter()
            .map(|window| {
                let start = (row, window.scored.start);
                row += window.scored.len();
                start
            })
            .collect();
        Ok(())
    }

    fn numbers(&self, name: &str) -> impl Iterator<Item = u32> + '_ {
        self.tensors[name].bytes.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes))
    }

    fn part(&self, name: &str, range: Range<usize>) -> Option<Bytes> {
        self.tensors.get(name)?.bytes.slice(range)
    }

    fn read(&self, window: usize, positions: Range<usize>) -> Option<Rows> {
        let (row, start) = *self.starts.get(window)?;
        let first = row + (positions.start + 1).checked_sub(start)?;
        let (count, vocab) = (positions.len(), self.key.vocab);
        let range = |width: usize| first * width..(first + count) * width;
        let encoded = self.part("log_probs", range(2 * vocab))?;
        let mut values = vec![0.0; count * vocab];
        FloatType::F16.decode(&encoded, &mut values);
        encoded.release();
        let targets = self.part("target_log_probs", range(8))?;
        let tops = self.part("top", range(4 * TOP))?;
        let exact = targets
            .as_chunks::<8>()
            .0
            .iter()
            .zip(tops.as_chunks::<{ 4 * TOP }>().0)
            .map(|(target, top)| Exact {
                target: f64::from_le_bytes(*target),
                top: std::array::from_fn(|i| {
                    u32::from_le_bytes(std::array::from_fn(|byte| top[4 * i + byte]))
                }),
            })
            .collect();
        Some(Rows {
            logits: Array2::from_shape_vec((count, vocab), values).ok()?,
            exact: Some(exact),
        })
    }
}

impl LogitSource for StoredReference {
    fn vocab(&self) -> usize {
        self.key.vocab
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
    use crate::eval::{Divergence, measure};
    use crate::progress::Silent;
    use proptest::prelude::*;

    const VOCAB: usize = 50;

    /// Logits from a formula.
    pub(crate) struct Formula(f32);

    impl LogitSource for Formula {
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
                let at = (window * 1000 + positions.start + i) as f32;
                ((at * 1.3 + v as f32 * 0.77).sin() + (v as f32 * self.0).cos()) * 4.0
            });
            Ok(Rows { logits, exact: None })
        }
    }

    fn windows() -> Vec<Window> {
        (0..3).map(|w| Window { ids: (w..w + 20).collect(), scored: 3 + w as usize..20 }).collect()
    }

    fn key() -> StoredKey {
        let key = StoredKey::new("model", "data", "tokenizer");
        StoredKey { protocol: "gptq".into(), ctx: 20, windows: 3, vocab: VOCAB, ..key }
    }

    fn stored() -> Vec<u8> {
        let team = Team::new(2);
        let mut writer = StoredWriter::new(Vec::new(), &key(), &windows()).unwrap();
        let (mut model, windows) = (Formula(0.3), windows());
        measure(&windows, &mut model, None, Some(&mut writer), (&team, &Silent)).unwrap();
        writer.finish().unwrap()
    }

    fn against(reference: &mut dyn LogitSource, model: f32) -> Divergence {
        let team = Team::new(1);
        let mut model = Formula(model);
        let none: Option<&mut StoredWriter<Vec<u8>>> = None;
        let (figures, _) =
            measure(&windows(), &mut model, Some(reference), none, (&team, &Silent)).unwrap();
        figures.divergence.unwrap()
    }

    #[test]
    fn a_stored_reference_compares_as_the_model_does() {
        let mut file = StoredReference::open("ref", &Bytes::owned(stored())).unwrap();
        file.check(&key(), &windows()).unwrap();
        let (from_file, from_model) = (against(&mut file, 0.31), against(&mut Formula(0.3), 0.31));
        assert!(from_model.kl_mean.value > 1e-3);
        // Log-probabilities down to -16 are rounded by 2^-8 at most (half a unit of 2^-7 at 8 to
        // 16), those that carry weight by 2^-11 of their size; see docs/evaluation.md.
        let bound = 2.0_f64.powi(-8) * from_model.kl_mean.value.sqrt();
        let off = (from_file.kl_mean.value - from_model.kl_mean.value).abs();
        assert!(off < bound, "{off} {bound}");
        let ratio = from_file.ppl_ratio.value / from_model.ppl_ratio.value - 1.0;
        assert!(ratio.abs() < 1e-12, "the right token's probability is stored exactly");
        let agreements = |it: Divergence| [it.top1_agreement, it.top5_agreement].map(f64::to_bits);
        assert_eq!(agreements(from_file), agreements(from_model));
        // Against itself only the rounding is left: at most (2^-8)²/2.
        let own = against(&mut file, 0.3);
        assert!(own.kl_mean.value < 2.0_f64.powi(-17), "{}", own.kl_mean.value);
        assert!((own.top1_agreement - 1.0).abs() < f64::EPSILON);
    }

    #[test]
    fn what_differs_is_named() {
        let mut file = StoredReference::open("ref", &Bytes::owned(stored())).unwrap();
        let mut told =
            |key: StoredKey, windows: &[Window]| file.check(&key, windows).unwrap_err().to_string();
        assert!(told(StoredKey { ctx: 30, ..key() }, &windows()).contains("ctx `20`"));
        let other = StoredKey { data_sha256: "x".into(), ..key() };
        assert!(told(other, &windows()).contains("text hash `data`, this evaluation has `x`"));
        let mut shifted = windows();
        shifted[1].scored.start += 1;
        assert!(told(key(), &shifted).contains("scored positions"));
        shifted[1].ids[0] = 9;
        assert!(told(key(), &shifted).contains("tokens"));
        assert!(file.check(&StoredKey { model: "other".into(), ..key() }, &windows()).is_ok());
    }

    #[test]
    fn foreign_files_are_refused() {
        let told = |bytes: Vec<u8>| {
            StoredReference::open("ref", &Bytes::owned(bytes)).unwrap_err().to_string()
        };
        assert!(told(vec![]).contains("`ref`"));
        let plain = safetensors::serialize(
            Vec::<(String, safetensors::tensor::TensorView<'_>)>::new(),
            None,
        );
        assert!(told(plain.unwrap()).contains("no metadata"));
        let change = |from: &str, to: &str| {
            let bytes = stored();
            let at = bytes.windows(from.len()).position(|it| it == from.as_bytes()).unwrap();
            let mut bytes = bytes;
            bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
            bytes
        };
        assert!(told(change("\"top\"", "\"tip\"")).contains("no tensor `top`"));
        assert!(told(change("schema\\\":1", "schema\\\":2")).contains("schema 2"));
        assert!(told(change("vocab\\\":50", "vocab\\\":51")).contains("expected F16 [48, 51]"));
        assert!(told(change("windows\\\":3", "windows\\\":4")).contains("expected U32 [4, 3]"));
    }

    proptest! {
        #[test]
        fn damaged_files_never_panic(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in 0_usize..64) {
            let mut bytes = stored();
            let at = at.index(bytes.len().min(1200));
            bytes[at] = byte;
            bytes.truncate(bytes.len() - cut);
            if let Ok(mut file) = StoredReference::open("ref", &Bytes::owned(bytes)) {
                let windows = windows();
                if file.check(&key(), &windows).is_ok() {
                    prop_assert!(file.rows(0, 2..19).is_ok());
                    prop_assert!(file.rows(9, 0..1).is_err());
                }
            }
        }
    }
}
