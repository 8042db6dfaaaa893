use super::*;
use crate::linalg::{Cholesky, factor_damped};
use ndarray::{Array2, array};

struct Case {
    weight: Array2<f32>,
    moments: Moments,
    covariance: Array2<f32>,
}

impl Case {
    fn new(weight: Array2<f32>, x: &Array2<f32>) -> Self {
        let mut moments = Moments::new(x.ncols());
        moments.add(x.view());
        Self { weight, moments, covariance: x.t().dot(x) / x.nrows() as f32 }
    }

    /// Correlated inputs of `channels` channels, different in strength.
    fn waves(channels: usize) -> Self {
        let x = activations(3 * channels, channels);
        let weight =
            Array2::from_shape_fn((7, channels), |(i, j)| ((i * 29 + j * 13) as f32).cos());
        Self::new(weight, &x)
    }

    fn site(&self) -> Site<'_> {
        Site {
            weight: self.weight.view(),
            moments: &self.moments,
            covariance: Some(self.covariance.view()),
            seed: 7,
        }
    }

    /// Channel i of the result is channel `order[i]` of this.
    fn permuted(&self, order: &[usize]) -> Self {
        let m = &self.moments;
        let pick = |v: &Vec<f64>| order.iter().map(|i| v[*i]).collect();
        Self {
            weight: self.weight.select(Axis(1), order),
            moments: Moments {
                tokens: m.tokens,
                sum: pick(&m.sum),
                sum_squares: pick(&m.sum_squares),
                abs_max: order.iter().map(|i| m.abs_max[*i]).collect(),
            },
            covariance: self.covariance.select(Axis(0), order).select(Axis(1), order),
        }
    }
}

fn activations(tokens: usize, channels: usize) -> Array2<f32> {
    Array2::from_shape_fn((tokens, channels), |(t, j)| {
        let wave = ((t * 37 + j * 11 + t * j) as f32).sin();
        (wave + 0.5 * (t as f32).cos()) * (1.0 + (j % 5) as f32)
    })
}

fn scored(name: &str, case: &Case, width: usize, keep: usize) -> Vec<f64> {
    find(name).unwrap().units(&case.site(), width, keep).unwrap()
}

/// Whether both agree to within float32 sums over few channels: 1e-4, times the largest.
fn close(a: &[f64], b: &[f64]) -> bool {
    let largest = a.iter().fold(0.0, |max: f64, x| max.max(x.abs()));
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-4 * largest)
}

#[test]
fn every_score_gives_finite_numbers_that_move_with_their_units() {
    let case = Case::waves(24);
    for score in SCORES {
        for (width, units) in [(1, 24), (4, 6), (8, 3)] {
            let scores = score.units(&case.site(), width, units / 2).unwrap();
            assert_eq!(scores.len(), units, "{}", score.name());
            assert!(scores.iter().all(|s| s.is_finite() && *s >= 0.0), "{}", score.name());
            assert!(scores.iter().any(|s| (s - scores[0]).abs() > 0.0), "{}", score.name());

            let moved: Vec<usize> = (0..units).map(|u| (u * 5 + 1) % units).collect();
            let channels: Vec<usize> =
                moved.iter().flat_map(|u| u * width..(u + 1) * width).collect();
            let permuted = case.permuted(&channels);
            let got = score.units(&permuted.site(), width, units / 2).unwrap();
            let want: Vec<f64> = moved.iter().map(|u| scores[*u]).collect();
            // A draw belongs to a place, not to a channel: the twin that must not move along.
            assert_eq!(close(&got, &want), score.name() != "random", "{} {width}", score.name());
        }
        assert!(score.about().len() > 30 && !score.about().ends_with('.'));
    }
}

#[test]
fn every_score_of_pairs_moves_with_its_pairs() {
    // Two KV heads of three pairs, eight channels: the last two do not rotate.
    let (pairs, head_dim) = (3, 8);
    let wave = |len: usize, step: f64| -> Vec<f64> {
        (0..len).map(|i| 1.1 + (i as f64 * step).sin()).collect()
    };
    let parts = [wave(6, 1.3), wave(6, 2.1), wave(16, 0.7), wave(6, 1.9), wave(6, 2.9)];
    let site = |parts: &'_ [Vec<f64>; 5], score: &dyn Score| {
        let [queries, keys, values, query_rows, key_rows] = parts;
        score.pairs(&PairSite { queries, keys, values, query_rows, key_rows, pairs, seed: 3 })
    };
    let order = [2, 0, 1, 4, 5, 3]; // pairs stay in their head
    let channels: Vec<usize> = (0..16)
        .map(|c| match (c / head_dim, c % head_dim) {
            (head, c) if c < 2 * pairs => {
                head * head_dim + c / pairs * pairs + order[head * pairs + c % pairs] % pairs
            }
            (head, c) => head * head_dim + c,
        })
        .collect();
    let pick = |v: &Vec<f64>, order: &[usize]| order.iter().map(|i| v[*i]).collect::<Vec<_>>();
    let mut moved =
        parts.clone().map(|part| if part.len() == 6 { pick(&part, &order) } else { part });
    moved[2] = pick(&parts[2], &channels);
    for score in SCORES {
        let scores = site(&parts, *score);
        assert!(scores.len() == 6 && scores.iter().all(|s| s.is_finite()), "{}", score.name());
        let same = close(&site(&moved, *score), &pick(&scores, &order));
        assert_eq!(same, score.name() != "random", "{}", score.name());
    }
    let product = site(&parts, find("wanda").unwrap());
    assert!((product[4] - parts[0][4] * parts[1][4]).abs() <= 0.0);
    let values = site(&parts, find("transact").unwrap());
    let want = f64::midpoint(parts[2][9].sqrt(), parts[2][12].sqrt());
    assert!((values[4] - want).abs() < 1e-15, "channels 1 and 1 + 3 of the second head");
}

#[test]
fn scores_of_a_hand_computed_site() {
    // x_0 is 1 and 3, x_1 is -2 and 2; W = [[1, 2], [-2, 0]]
    let case = Case::new(array![[1.0, 2.0], [-2.0, 0.0]], &array![[1.0, -2.0], [3.0, 2.0]]);
    let (r10, r8) = (10.0_f64.sqrt(), 8.0_f64.sqrt());
    let expect = |name, width, want: &[f64]| {
        let got = scored(name, &case, width, 1);
        assert!(
            got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-12),
            "{name} {got:?} {want:?}"
        );
        assert_eq!(got.len(), want.len());
    };
    expect("transact", 1, &[r10, r8]);
    expect("transact", 2, &[f64::midpoint(r10, r8) + 5.0 * r10]);
    expect("transact-product", 2, &[f64::midpoint(r10, r8) + 5.0 * r10]);
    expect("wanda", 1, &[3.0 * r10, 2.0 * r8]);
    expect("wanda", 2, &[3.0 * r10 + 2.0 * r8]);
    expect("flap", 1, &[5.0, 16.0]); // variances 1 and 4
    expect("flap", 2, &[f64::midpoint(25.0, 256.0)]);
    expect("magnitude", 1, &[5.0_f64.sqrt(), 2.0]);
    expect("magnitude", 2, &[3.0]);
}

#[test]
fn optimal_brain_surgeon_of_a_hand_solved_case() {
    let mut case = Case::new(array![[1.0, 2.0, 0.1]], &Array2::ones((1, 3)));
    case.covariance = array![[2.0, 1.0, 0.0], [1.0, 2.0, 0.0], [0.0, 0.0, 1.0]];
    // With λ on the diagonal, a = 2 + λ and D = a² - 1: P = [[a, -1], [-1, a]] / D, P_33 =
    // 1 / (1 + λ). Channel 2 costs w²(1 + λ), then channel 0 costs D / a; that leaves channel 1
    // with the weight 2 + 1 / a and P = 1 / a.
    let lambda = 0.01 * 5.0 / 3.0;
    let a = 2.0 + lambda;
    let first = 0.01 * (1.0 + lambda);
    let second = first + (a * a - 1.0) / a;
    let last = second + (2.0 + 1.0 / a) * (2.0 + 1.0 / a) * a;
    let got = scored("obs", &case, 1, 1);
    // The weights are float32: 0.1 has a relative error of 1e-8.
    let want = [second, last, first];
    assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() < 4e-7 * w), "{got:?} {want:?}");
    // Nothing removed: each cost by itself.
    let got = scored("obs", &case, 1, 3);
    let alone = (a * a - 1.0) / a;
    assert!((got[0] - alone).abs() < 1e-6 && (got[1] - 4.0 * alone).abs() < 1e-6, "{got:?}");
}

#[test]
fn of_two_channels_that_carry_the_same_one_goes_first_and_one_stays() {
    // All channels of one strength, so that damping, 0.01 of it, is small against each.
    let mut x = activations(60, 12);
    for (j, mut column) in x.axis_iter_mut(Axis(1)).enumerate() {
        column /= 1.0 + (j % 5) as f32;
    }
    let twin = x.column(3).to_owned();
    x.column_mut(9).assign(&twin);
    let mut weight = Array2::from_elem((4, 12), 1.0);
    weight.column_mut(3).fill(3.0); // the two that matter most
    weight.column_mut(9).fill(3.0);
    let case = Case::new(weight, &x);
    let lowest = |scores: &[f64]| (0..12).min_by(|a, b| scores[*a].total_cmp(&scores[*b])).unwrap();
    let scores = scored("obs", &case, 1, 6);
    assert!([3, 9].contains(&lowest(&scores)), "{scores:?}");
    let kept = scores[3].max(scores[9]);
    assert!(scores.iter().filter(|s| **s > kept).count() < 6, "the other one stays: {scores:?}");
    // Scores that look at one channel at a time keep both.
    assert!(![3, 9].contains(&lowest(&scored("wanda", &case, 1, 6))));
}

/// The costs of a sequence of removals add up to the cost of removing all at once,
/// `tr(W_R · P_RR⁻¹ · W_Rᵀ)`.
#[test]
fn costs_add_up_to_that_of_the_whole_set_across_rounds() {
    for (channels, width, keep) in [(210, 1, 60), (48, 4, 5), (48, 8, 2)] {
        let case = Case::waves(channels);
        let scores = scored("obs", &case, width, keep);
        let mut order: Vec<usize> = (0..channels / width).collect();
        order.sort_by(|a, b| scores[*a].total_cmp(&scores[*b]));
        let removed = &order[..channels / width - keep];
        let set: Vec<usize> = removed.iter().flat_map(|u| u * width..(u + 1) * width).collect();
        let damped = factor_damped(case.covariance.mapv(f64::from).view(), 0.01).unwrap();
        let own = damped.cholesky.inverse().select(Axis(0), &set).select(Axis(1), &set);
        let weights = case.weight.select(Axis(1), &set).mapv(f64::from);
        let solved = Cholesky::new(own).unwrap().solve_rows(weights.clone());
        let want = (solved * weights).sum();
        let got = scores[*removed.last().unwrap()];
        // float32 products of weights, once per removal
        assert!((got - want).abs() < 1e-5 * want, "{channels} {width}: {got} {want}");
    }
}

#[test]
fn bad_sites_and_names_are_told_apart() {
    let case = Case::waves(24);
    let units = |name: &str, site: Site<'_>, width| find(name).unwrap().units(&site, width, 1);
    for width in [0, 5, 25] {
        let refused = units("transact", case.site(), width).unwrap_err();
        assert!(matches!(refused, ScoreError::Shape { what: "channels in units", .. }));
    }
    let short = Moments::new(23);
    let refused = units("wanda", Site { moments: &short, ..case.site() }, 1).unwrap_err();
    assert_eq!(refused.to_string(), "channels with moments: expected `24`, found `23`");
    let refused = units("obs", Site { covariance: None, ..case.site() }, 1).unwrap_err();
    assert_eq!(refused, ScoreError::Covariance { score: "obs" });
    let zeros = Array2::zeros((24, 24));
    let refused = units("obs", Site { covariance: Some(zeros.view()), ..case.site() }, 1);
    assert!(
        refused.unwrap_err().to_string().starts_with("score `obs`: the matrix is not positive")
    );

    let error = |name| find(name).err().unwrap().to_string();
    assert_eq!(error("Transakt"), "unknown score `Transakt`\nhint: did you mean `transact`?");
    assert!(error("xyz").ends_with("`magnitude`, `random`"));
}
