//! The weights of a model as this processor multiplies them fastest.
use super::integer::IntLinear;
use super::kernel::{Isa, half};
use super::split::SplitLinear;
use crate::forward::{Backend, Dense, Linear, SideBySide};
use crate::linalg::Team;
use crate::model::{Input, Weight};
use crate::scheme::{IntScheme, OutlierColumns, QTensor, SplitTensor};
use crate::tensor::{FloatType, RawTensor};
use ndarray::{ArrayView2, ArrayViewMut2};

/// Integer weights packed for the kernels, 16-bit floats as they are stored, float32 as in the
/// reference.
#[derive(Clone, Copy, Debug)]
pub struct Kernels(Isa);

impl Kernels {
    /// The kernels of this processor, see [`Isa::active`].
    pub fn new() -> Self {
        Self(Isa::active())
    }

    /// The kernels of one instruction set.
    pub fn with(isa: Isa) -> Self {
        Self(isa)
    }
}

impl Default for Kernels {
    fn default() -> Self {
        Self::new()
    }
}

/// Weights of one form can be stacked.
#[derive(Clone, Debug, PartialEq)]
enum Form {
    Float(Option<FloatType>),
    Integer(IntScheme, Input),
    Split(IntScheme, Input, OutlierColumns),
}

fn form(weight: &Weight) -> Form {
    match weight {
        Weight::Dense(raw) => Form::Float(raw.float_type()),
        Weight::Quantized { tensor, activations } => Form::Integer(tensor.scheme, *activations),
        Weight::Split { tensor, activations } => {
            Form::Split(tensor.base.scheme, *activations, tensor.columns.clone())
        }
    }
}

impl Backend for Kernels {
    fn linear(&self, parts: Vec<Weight>) -> Box<dyn Linear> {
        let mut stacks: Vec<Vec<Weight>> = Vec::new();
        for part in parts {
            match stacks.last_mut() {
                Some(stack) if form(&stack[0]) == form(&part) => stack.push(part),
                _ => stacks.push(vec![part]),
            }
        }
        let mut linears: Vec<_> = stacks.into_iter().map(|stack| stacked(stack, self.0)).collect();
        match linears.len() {
            1 => linears.swap_remove(0),
            _ => Box::new(SideBySide(linears)),
        }
    }
}

/// One layer from weights of one form.
fn stacked(stack: Vec<Weight>, isa: Isa) -> Box<dyn Linear> {
    let (mut integers, mut floats) = (Vec::<QTensor>::new(), Vec::<RawTensor>::new());
    let mut outliers = Vec::new();
    let form = form(&stack[0]);
    match form {
        Form::Float(Some(FloatType::F32) | None) => return Box::new(Dense::new(&stack)),
        Form::Float(_) | Form::Integer(..) | Form::Split(..) => {}
    }
    for weight in stack {
        match weight {
            Weight::Dense(raw) => floats.push(raw),
            Weight::Quantized { tensor, .. } => integers.push(tensor),
            Weight::Split { tensor: SplitTensor { base, outliers: fine, .. }, .. } => {
                integers.push(base);
                outliers.push(fine);
            }
        }
    }
    match form {
        Form::Float(_) => Box::new(HalfLinear(floats)),
        Form::Integer(_, activations) => Box::new(IntLinear::new(&integers, activations, isa)),
        Form::Split(_, activations, columns) => {
            let part = |parts: &[QTensor]| IntLinear::new(parts, activations, isa);
            Box::new(SplitLinear::new(columns, part(&integers), part(&outliers)))
        }
    }
}

/// Matrices of 16-bit floats, on top of each other, as they are stored.
struct HalfLinear(Vec<RawTensor>);

impl Linear for HalfLinear {
    fn in_features(&self) -> usize {
        self.0.first().map_or(0, |part| part.shape[1])
    }

    fn out_features(&self) -> usize {
        self.0.iter().map(|part| part.shape[0]).sum()
    }

    fn forward(&self, x: ArrayView2<'_, f32>, y: ArrayViewMut2<'_, f32>, team: &Team) {
        self.each(y, |rows, y| half::forward(rows, x, y, team));
    }

    fn forward_apart(&self, x: ArrayView2<'_, f32>, y: ArrayViewMut2<'_, f32>, team: &Team) {
        self.each(y, |rows, y| half::forward_apart(rows, x, y, team));
    }
}

impl HalfLinear {
    /// Calls `f` for each matrix with its columns of `y`.
    fn each(
        &self,
        mut y: ArrayViewMut2<'_, f32>,
        f: impl Fn(&half::HalfRows<'_>, ArrayViewMut2<'_, f32>),
    ) {
        for part in &self.0 {
            let (left, right) = y.split_at(ndarray::Axis(1), part.shape[0]);
            let float = part.float_type().expect("float weights");
            f(&half::HalfRows { float, bytes: &part.bytes }, left);
            y = right;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheme::{Granularity, OUTLIER_GRID};
    use crate::tensor::{Bytes, Dtype};
    use ndarray::{Array2, Axis};

    fn random(seed: u64) -> impl FnMut() -> f32 {
        let mut state = seed;
        move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_041);
            ((state >> 40) as f32) / 8_388_608.0 - 1.0
        }
    }

    fn dense(rows: usize, columns: usize, float: FloatType, seed: u64) -> Weight {
        let mut next = random(seed);
        let values: Vec<f32> = (0..rows * columns).map(|_| next()).collect();
        let mut bytes = vec![];
        float.encode(&values, &mut bytes);
        let dtype: Dtype = float.dtype();
        Weight::Dense(RawTensor { dtype, shape: vec![rows, columns], bytes: Bytes::owned(bytes) })
    }

    fn quantized(rows: usize, columns: usize, activations: Input, seed: u64) -> Weight {
        let mut next = random(seed);
        let scheme =
            IntScheme { bits: 4, symmetric: false, granularity: Granularity::Group(columns / 2) };
        let mut code = || (next() * 8.0).floor() as i8;
        let tensor = QTensor {
            scheme,
            shape: [rows, columns],
            codes: (0..rows * columns).map(|_| code()).collect(),
            zero_points: (0..rows * 2).map(|_| code()).collect(),
            scales: (0..rows * 2).map(|i| 0.01 + i as f32 * 1e-4).collect(),
        };
        Weight::Quantized { tensor, activations }
    }

    /// `y` and, for each entry, a bound of the rounding errors of any order of summation:
    /// (columns + 8) · 2^-23 · Σ|w·x|.
    fn definition(parts: &[Weight], x: &Array2<f32>) -> (Array2<f64>, Array2<f64>) {
        let rows = parts.iter().map(|part| part.shape()[0]).sum();
        let values: Vec<f32> = parts.iter().flat_map(Weight::to_f32).collect();
        let w = Array2::from_shape_vec((rows, x.ncols()), values).unwrap();
        let (x, w) = (x.mapv(f64::from), w.mapv(f64::from));
        let bound = x.mapv(f64::abs).dot(&w.mapv(f64::abs).t());
        let units = (x.ncols() + 8) as f64 / 8_388_608.0;
        (x.dot(&w.t()), bound.mapv(|sum| sum * units))
    }

    /// Rows that are apart are as alone.
    fn assert_apart(linear: &dyn Linear, x: &Array2<f32>) {
        let mut apart = Array2::zeros((x.nrows(), linear.out_features()));
        linear.forward_apart(x.view(), apart.view_mut(), &Team::new(2));
        for (x, apart) in x.axis_chunks_iter(Axis(0), 1).zip(apart.axis_chunks_iter(Axis(0), 1)) {
            let mut alone = Array2::zeros(apart.dim());
            linear.forward(x, alone.view_mut(), &Team::new(1));
            assert_eq!(alone, apart);
        }
    }

    #[test]
    fn mixed_weights_lie_side_by_side_and_agree_with_the_definition() {
        let columns = 52;
        let parts = vec![
            quantized(5, columns, Input::Float, 1),
            quantized(40, columns, Input::Float, 2),
            dense(7, columns, FloatType::Bf16, 3),
            dense(101, columns, FloatType::F16, 4),
            dense(3, columns, FloatType::F32, 5),
        ];
        for tokens in [1, 3, 17] {
            let mut next = random(tokens as u64);
            let x = Array2::from_shape_simple_fn((tokens, columns), &mut next);
            let (want, bound) = definition(&parts, &x);
            for (name, isa) in Isa::available() {
                let linear = Kernels::with(isa).linear(parts.clone());
                assert_eq!((linear.in_features(), linear.out_features()), (columns, want.ncols()));
                let run = |threads| {
                    let mut y = Array2::zeros(want.dim());
                    linear.forward(x.view(), y.view_mut(), &Team::new(threads));
                    y
                };
                let y = run(1);
                assert_eq!(y, run(3), "threads change no bit");
                assert_apart(&*linear, &x);
                for ((at, y), want) in y.indexed_iter().zip(&want) {
                    let error = (f64::from(*y) - want).abs();
                    assert!(error <= bound[at], "{name} {at:?}: {y} {want}");
                }
            }
        }
    }

    /// A weight of `columns`, of which `places` are outliers.
    fn split(rows: usize, columns: usize, places: &[u32], activations: Input) -> Weight {
        let columns = OutlierColumns::new(columns, places.to_vec()).unwrap();
        let Weight::Quantized { tensor: base, .. } =
            quantized(rows, columns.base(), activations, rows as u64)
        else {
            unreachable!()
        };
        let mut next = random(places.len() as u64);
        let outliers = QTensor {
            scheme: OUTLIER_GRID,
            shape: [rows, places.len()],
            codes: (0..rows * places.len()).map(|_| (next() * 127.0) as i8).collect(),
            scales: (0..rows).map(|row| 1e-3 + row as f32 * 1e-5).collect(),
            zero_points: Vec::new(),
        };
        Weight::Split { tensor: SplitTensor::new(columns, base, outliers), activations }
    }

    #[test]
    fn split_weights_agree_with_the_definition() {
        let columns = 60;
        for places in [&[52, 53, 54, 55, 56, 57, 58, 59][..], &[0, 3, 4, 17, 30, 31, 58, 59]] {
            let parts: Vec<Weight> =
                [5, 40].iter().map(|it| split(*it, columns, places, Input::Float)).collect();
            for tokens in [1, 3, 17] {
                let mut next = random(tokens as u64);
                let x = Array2::from_shape_simple_fn((tokens, columns), &mut next);
                let (want, bound) = definition(&parts, &x);
                let linear = Kernels::new().linear(parts.clone());
                assert_eq!((linear.in_features(), linear.out_features()), (columns, 45));
                let run = |threads| {
                    let mut y = Array2::zeros(want.dim());
                    linear.forward(x.view(), y.view_mut(), &Team::new(threads));
                    y
                };
                let y = run(1);
                assert_eq!(y, run(3), "threads change no bit");
                assert_apart(&*linear, &x);
                for ((at, y), want) in y.indexed_iter().zip(&want) {
                    assert!((f64::from(*y) - want).abs() <= bound[at], "{places:?} {at:?}");
                }
            }
        }
    }

    #[test]
    fn strong_outliers_leave_the_other_int8_activations_their_steps() {
        let (columns, places) = (60, [52, 53, 54, 55, 56, 57, 58, 59]);
        let part = split(33, columns, &places, Input::Int8PerToken);
        let mut next = random(3);
        let x = Array2::from_shape_fn((9, columns), |(_, column)| {
            next() * if column >= 52 { 100.0 } else { 1.0 }
        });
        let (want, rounding) = definition(std::slice::from_ref(&part), &x);
        let w = Array2::from_shape_vec((33, columns), part.to_f32()).unwrap();
        let mut y = Array2::zeros(want.dim());
        Kernels::new().linear(vec![part]).forward(x.view(), y.view_mut(), &Team::new(2));
        let mut whole = 0;
        for ((token, row), y) in y.indexed_iter() {
            // Half a step of each part times the weights that it meets.
            let half = |of: std::ops::Range<usize>| {
                let x = x.slice(ndarray::s![token, of.clone()]);
                let step = x.iter().fold(0.0_f32, |max, x| max.max(x.abs())) / 127.0;
                let reach: f32 = w.slice(ndarray::s![row, of]).iter().map(|w| w.abs()).sum();
                f64::from(0.5 * step * reach)
            };
            let bound = half(0..52) + half(52..60) + 2.0 * rounding[(token, row)];
            assert!((f64::from(*y) - want[(token, row)]).abs() <= bound);
            whole += usize::from(half(0..60) > 2.0 * bound);
        }
        assert!(whole > 100, "one scale for all would allow more: {whole}");
    }

    #[test]
    fn static_activations_are_rounded_to_their_scale() {
        // On the grid of the scale nothing is rounded; beyond its ends values count as the ends.
        let (columns, scale) = (48, 0.25_f32);
        let mut next = random(11);
        let mut codes = Array2::from_shape_simple_fn((5, columns), || (next() * 127.0).round());
        let run = |x: &Array2<f32>| {
            let part = quantized(33, columns, Input::Int8Static(scale), 4);
            let mut y = Array2::zeros((5, 33));
            Kernels::new().linear(vec![part]).forward(x.view(), y.view_mut(), &Team::new(2));
            y
        };
        codes[[2, 7]] = 127.0;
        let x = codes.mapv(|code| code * scale);
        let y = run(&x);
        let (want, bound) = definition(&[quantized(33, columns, Input::Float, 4)], &x);
        for ((at, y), want) in y.indexed_iter().zip(&want) {
            assert!((f64::from(*y) - want).abs() <= bound[at], "{at:?}: {y} {want}");
        }
        let mut beyond = x.clone();
        beyond[[2, 7]] = 1e4;
        assert_eq!(run(&beyond), y, "127 is the last code");
        let mut less = x;
        less[[2, 7]] -= 2.0 * scale;
        assert_ne!(run(&less), y, "the twin: another code is seen");
    }

    #[test]
    fn int8_activations_err_by_at_most_half_a_step_per_column() {
        let columns = 48;
        let parts = vec![quantized(70, columns, Input::Int8PerToken, 9)];
        let mut next = random(7);
        let x = Array2::from_shape_simple_fn((13, columns), &mut next);
        let (want, rounding) = definition(&parts, &x);
        let mut y = Array2::zeros(want.dim());
        Kernels::new().linear(parts.clone()).forward(x.view(), y.view_mut(), &Team::new(2));
        let w = Array2::from_shape_vec((70, columns), parts[0].to_f32()).unwrap();
        let mut largest = 0.0_f64;
        for ((token, row), y) in y.indexed_iter() {
            let step = x.row(token).iter().fold(0.0_f32, |max, x| max.max(x.abs())) / 127.0;
            let reach: f32 = w.row(row).iter().map(|w| w.abs()).sum();
            let bound = f64::from(step) * 0.5 * f64::from(reach) + 2.0 * rounding[(token, row)];
            let error = (f64::from(*y) - want[(token, row)]).abs();
            assert!(error <= bound, "{error} {bound}");
            largest = largest.max(error);
        }
        assert!(largest > 1e-4, "8 bits are not exact, or this tests nothing: {largest}");
    }
}
