//! Residual streams between two blocks.
use super::CalibrateError;
use crate::{
    forward::{Embedding, ForwardError},
    model::Model,
    tensor::{Bytes, Dtype, FloatType, RawTensor},
};
use ndarray::{Array2, ArrayView2};

/// The residual stream of many windows, `[tokens, hidden]` each, held in bfloat16.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HiddenStates {
    hidden: usize,
    lengths: Vec<usize>,
    windows: Vec<Vec<u8>>,
}

impl HiddenStates {
    /// The streams before the first block.
    pub fn embed(model: &Model, windows: &[Vec<u32>]) -> Result<Self, ForwardError> {
        let embedding = Embedding::load(model)?;
        let mut states = Self { hidden: model.spec.hidden, ..Self::default() };
        for ids in windows {
            states.push(embedding.rows(ids)?.view());
        }
        Ok(states)
    }

    /// No windows yet, of any width instead of the residual stream's.
    pub fn of_width(width: usize) -> Self {
        Self { hidden: width, ..Self::default() }
    }

    /// Adds a window, rounded to bfloat16.
    ///
    /// # Panics
    /// When it has another width.
    pub fn push(&mut self, x: ArrayView2<'_, f32>) {
        assert_eq!(x.ncols(), self.hidden, "width of a window");
        self.lengths.push(x.nrows());
        self.windows.push(encode(x));
    }

    /// Takes the streams of the windows from `first` on away.
    pub fn split_off(&mut self, first: usize) -> Self {
        let (lengths, windows) = (self.lengths.split_off(first), self.windows.split_off(first));
        Self { hidden: self.hidden, lengths, windows }
    }

    /// Number of windows.
    pub fn len(&self) -> usize {
        self.windows.len()
    }

    /// Whether there is no window.
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    /// Tokens of all windows.
    pub fn tokens(&self) -> usize {
        self.lengths.iter().sum()
    }

    /// The stream of a window, `[tokens, hidden]`.
    ///
    /// # Panics
    /// When there is no such window.
    pub fn load(&self, window: usize) -> Array2<f32> {
        let mut values = vec![0.0; self.lengths[window] * self.hidden];
        FloatType::Bf16.decode(&self.windows[window], &mut values);
        Array2::from_shape_vec((self.lengths[window], self.hidden), values).expect("its size")
    }

    /// Replaces the stream of a window, rounded to bfloat16.
    ///
    /// # Panics
    /// When the shape is another than before.
    pub fn store(&mut self, window: usize, x: ArrayView2<'_, f32>) {
        assert_eq!(x.dim(), (self.lengths[window], self.hidden), "shape of a window");
        self.windows[window] = encode(x);
    }

    /// All windows as one tensor of bytes: their number, the width, their lengths (64 bits each),
    /// the values.
    pub fn to_raw(&self) -> RawTensor {
        let head = [self.len(), self.hidden].into_iter().chain(self.lengths.iter().copied());
        let mut bytes: Vec<u8> = head.flat_map(|n| (n as u64).to_le_bytes()).collect();
        bytes.extend(self.windows.iter().flatten());
        RawTensor { dtype: Dtype::U8, shape: vec![bytes.len()], bytes: Bytes::owned(bytes) }
    }

    /// The windows that [`Self::to_raw`] was called on.
    pub fn from_raw(raw: &RawTensor) -> Result<Self, CalibrateError> {
        let damaged = || CalibrateError::States { bytes: raw.bytes.len() };
        let number = |at: usize| {
            let bytes = raw.bytes.get(8 * at..8 * at + 8)?;
            usize::try_from(u64::from_le_bytes(bytes.try_into().ok()?)).ok()
        };
        let (count, hidden) = number(0).zip(number(1)).ok_or_else(damaged)?;
        if count > raw.bytes.len() / 8 {
            return Err(damaged());
        }
        let lengths: Option<Vec<usize>> = (0..count).map(|i| number(2 + i)).collect();
        let mut states = Self { hidden, lengths: lengths.ok_or_else(damaged)?, windows: vec![] };
        let mut at = 8 * (2 + count);
        for tokens in &states.lengths {
            let size = tokens.checked_mul(hidden).and_then(|n| n.checked_mul(2));
            let end = size.and_then(|size| at.checked_add(size)).ok_or_else(damaged)?;
            states.windows.push(raw.bytes.get(at..end).ok_or_else(damaged)?.to_vec());
            at = end;
        }
        if at == raw.bytes.len() { Ok(states) } else { Err(damaged()) }
    }
}

fn encode(x: ArrayView2<'_, f32>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(2 * x.len());
    let x = x.as_standard_layout();
    FloatType::Bf16.encode(x.as_slice().expect("standard layout"), &mut bytes);
    bytes
}
