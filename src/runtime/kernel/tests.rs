//! Every kernel against the plain one, and the plain one against the definition.
use super::{Form, Int8Rows, Isa, MAX_GROUP, PackedLinear, ROWS};
use crate::linalg::Team;
use crate::scheme::{Granularity, IntScheme, Method, QTensor, Rows, ScaleRule, WeightGrid};
use crate::tensor::FloatType;
use ndarray::{Array2, ArrayView2, Axis};
use proptest::prelude::*;

/// A tensor whose codes and zero points take every value of the grid.
fn tensor(scheme: IntScheme, shape: [usize; 2], seed: u64) -> QTensor {
    let mut state = seed;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (state >> 33) as i32
    };
    let groups = scheme.groups(shape[1]).expect("the group size divides the columns");
    let mut code = || (next() & (2 * scheme.max_code() + 1)) as i8;
    let sign = |code: i8| if scheme.bits == 4 { code - 8 } else { code };
    let codes = (0..shape[0] * shape[1]).map(|_| sign(code())).collect();
    let zeros = if scheme.symmetric { 0 } else { shape[0] * groups };
    let zero_points = (0..zeros).map(|_| sign(code())).collect();
    // Half of the tensors have scales that fit in bfloat16.
    let step = if seed % 4 < 2 { 1.0 / 512.0 } else { 0.003 };
    let scales = (0..shape[0] * groups).map(|_| (f32::from(code()) + 0.5) * step).collect();
    QTensor { scheme, shape, codes, scales, zero_points }
}

fn inputs(tokens: usize, columns: usize, seed: usize) -> Array2<f32> {
    Array2::from_shape_fn((tokens, columns), |(t, c)| {
        ((t * 7919 + c * 104_729 + seed) as f32 * 0.618).sin() * (1.0 + t as f32)
    })
}

/// The integers of all groups, panels and blocks.
fn sums(w: &PackedLinear, x: &Int8Rows, isa: Isa) -> Vec<[i32; ROWS]> {
    let mut out = vec![];
    for panel in 0..w.rows().div_ceil(ROWS) {
        for block in 0..x.blocks() {
            isa.sums(&w.panel(panel), x.block(block), &mut out);
        }
    }
    out
}

fn product(w: &PackedLinear, x: ArrayView2<'_, f32>, int8: bool, isa: Isa) -> Vec<u32> {
    let (mut y, team) = (Array2::zeros((x.nrows(), w.rows())), Team::new(2));
    if int8 {
        w.forward_int8(x, y.view_mut(), &team, (isa, None));
    } else {
        w.forward_float(x, y.view_mut(), &team, isa);
    }
    y.into_iter().map(f32::to_bits).collect()
}

/// Whether float32 products with many tokens take the float matrix product, whose bits are its
/// own: those are compared through the dequantized panels instead.
fn assert_all_equal(w: &PackedLinear, x: &Array2<f32>) {
    let rows = Int8Rows::new(x.view(), (w.form(), None), &Team::new(1));
    let few = x.slice(ndarray::s![..x.nrows().min(2), ..]);
    let want = sums(w, &rows, Isa::SCALAR);
    let want_int8 = product(w, x.view(), true, Isa::SCALAR);
    let want_float = product(w, few, false, Isa::SCALAR);
    let want_wide = product(w, x.view(), false, Isa::SCALAR);
    let alone: Vec<u32> = x
        .outer_iter()
        .flat_map(|x| product(w, x.insert_axis(Axis(0)), false, Isa::SCALAR))
        .collect();
    for (name, isa) in Isa::available() {
        assert!(sums(w, &rows, isa) == want, "{name}: integers");
        assert!(product(w, x.view(), true, isa) == want_int8, "{name}: int8 activations");
        assert!(product(w, few, false, isa) == want_float, "{name}: float activations");
        let mut apart = Array2::zeros((x.nrows(), w.rows()));
        w.forward_float_apart(x.view(), apart.view_mut(), &Team::new(2), isa);
        assert!(apart.iter().map(|y| y.to_bits()).eq(alone.iter().copied()), "{name}: rows apart");
        assert!(product(w, x.view(), false, isa) == want_wide, "{name}: many float activations");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_kernel_gives_the_bits_of_the_plain_one(
        eight in any::<bool>(), symmetric in any::<bool>(), out in 1_usize..70,
        groups in 1_usize..5, size in 1_usize..40, tokens in 1_usize..30, seed in any::<u64>(),
    ) {
        // Sizes that are multiples of 8, of 4, and of nothing.
        let size = if seed % 2 == 0 { size * 8 } else { size };
        let scheme = IntScheme {
            bits: if eight { 8 } else { 4 },
            symmetric,
            granularity: if seed % 3 == 0 { Granularity::Channel } else { Granularity::Group(size) },
        };
        let columns = groups * size;
        let parts = [tensor(scheme, [out, columns], seed), tensor(scheme, [3, columns], !seed)];
        let packed = PackedLinear::new(&parts).unwrap();
        assert_all_equal(&packed, &inputs(tokens, columns, out));
    }

    #[test]
    fn the_plain_kernel_follows_the_definition(
        eight in any::<bool>(), symmetric in any::<bool>(), out in 1_usize..40,
        groups in 1_usize..4, size in 1_usize..40, tokens in 1_usize..15, seed in any::<u64>(),
    ) {
        let bits = if eight { 8 } else { 4 };
        let scheme = IntScheme { bits, symmetric, granularity: Granularity::Group(size) };
        let columns = groups * size;
        let w = tensor(scheme, [out, columns], seed);
        let packed = PackedLinear::new(std::slice::from_ref(&w)).unwrap();
        // The largest magnitude is 127, so the scale is 1 and the codes are the values.
        let x = Array2::from_shape_fn((tokens, columns), |(t, c)| match c {
            0 => 127.0,
            _ => ((t * 31 + c * 17) % 255) as f32 - 127.0,
        });
        let sums = sums(&packed, &Int8Rows::new(x.view(), (packed.form(), None), &Team::new(1)), Isa::SCALAR);
        let value = |row: usize, token: usize, group: usize| -> i32 {
            let zero = i32::from(w.qparams(row, group).zero_point);
            (group * size..(group + 1) * size)
                .map(|c| (i32::from(w.codes[row * columns + c]) - zero) * x[[token, c]] as i32)
                .sum()
        };
        // [panel, block, group, token, lane]
        let mut found = sums.iter();
        for panel in 0..out.div_ceil(ROWS) {
            for block in (0..tokens).step_by(super::TOKENS) {
                for group in 0..groups {
                    for token in block..(block + super::TOKENS).min(tokens) {
                        let lanes = found.next().unwrap();
                        for row in panel * ROWS..((panel + 1) * ROWS).min(out) {
                            prop_assert_eq!(lanes[row % ROWS], value(row, token, group));
                        }
                    }
                }
            }
        }
    }
}

/// What a grid holds is what kernels multiply: packed, every grid gives the products of its
/// definition.
#[test]
fn every_grid_is_multiplied_by_every_kernel() {
    let (shape, tokens) = ([37, 96], 3);
    let weights = inputs(shape[0], shape[1], 5);
    let x = inputs(tokens, shape[1], 11);
    for grid in WeightGrid::ALL {
        let grid = grid.with(Granularity::Group(32), true).unwrap();
        let mut tensor = tensor(grid.integers(), shape, 0);
        let rule = ScaleRule { method: Method::Mse, scale_type: FloatType::F32 };
        let QTensor { codes, scales, zero_points, .. } = &mut tensor;
        let rows = Rows { codes, scales, zero_points };
        grid.round(weights.as_slice().unwrap(), shape[1], rule, rows);
        let values = tensor.dequantize();
        let packed = PackedLinear::new(std::slice::from_ref(&tensor)).unwrap();
        for (name, isa) in Isa::available() {
            let found = product(&packed, x.view(), false, isa);
            for (at, found) in found.into_iter().map(f32::from_bits).enumerate() {
                let (token, row) = (at / shape[0], at % shape[0]);
                let x = x.row(token);
                let wanted = tensor.dot(row, x.as_slice().unwrap());
                // 96 terms in float32, each with a rounded product and as many sums.
                let size: f32 =
                    values[row * 96..][..96].iter().zip(x).map(|(w, x)| (w * x).abs()).sum();
                let bound = 98.0 * f64::from(f32::EPSILON) * f64::from(size);
                let far = (f64::from(found) - wanted).abs();
                assert!(far <= bound, "{name} {grid}: {far} of {size}");
            }
        }
        assert_all_equal(&packed, &x);
    }
}

#[test]
fn the_largest_sums_do_not_overflow() {
    // Codes 127 with zero point -128 and activations -128: |sum| = 255 · 128 · group.
    for columns in [MAX_GROUP, 3 * MAX_GROUP + 20] {
        let scheme = IntScheme { bits: 8, symmetric: false, granularity: Granularity::Channel };
        let w = QTensor {
            scheme,
            shape: [1, columns],
            codes: vec![127; columns],
            scales: vec![1.0],
            zero_points: vec![-128],
        };
        let packed = PackedLinear::new(&[w]).unwrap();
        let x = Array2::from_elem((13, columns), -200.0);
        let rows = Int8Rows::new(x.view(), (packed.form(), Some(1.0)), &Team::new(1));
        for (name, isa) in Isa::available() {
            let total: i64 =
                sums(&packed, &rows, isa).iter().map(|lanes| i64::from(lanes[0])).sum();
            assert_eq!(total, -255 * 128 * 13 * columns as i64, "{name}");
        }
    }
}

#[test]
fn a_long_group_is_divided_into_spans_that_cover_it() {
    let scheme = IntScheme { bits: 4, symmetric: true, granularity: Granularity::Channel };
    for columns in [1, 8, MAX_GROUP, MAX_GROUP + 1, 5 * MAX_GROUP + 3] {
        let form = Form::new(scheme, columns).unwrap();
        let covered: Vec<usize> = (0..form.groups).flat_map(|group| form.span(group)).collect();
        assert!(covered.into_iter().eq(0..columns), "{columns}");
        assert!((0..form.groups).all(|group| form.span(group).len() <= MAX_GROUP));
    }
}

#[test]
fn weights_of_different_forms_are_not_stacked() {
    let scheme = IntScheme { bits: 4, symmetric: true, granularity: Granularity::Group(8) };
    let other = IntScheme { bits: 8, ..scheme };
    let parts = [tensor(scheme, [2, 16], 1), tensor(other, [2, 16], 1)];
    assert!(PackedLinear::new(&parts).is_none());
    assert!(PackedLinear::new(&[tensor(scheme, [2, 16], 1), tensor(scheme, [2, 24], 1)]).is_none());
    assert!(PackedLinear::new(&[]).is_none());
}
