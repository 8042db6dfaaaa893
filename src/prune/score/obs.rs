//! Group optimal brain surgeon: what removing a unit costs after all others have adapted.
use super::{Score, ScoreError, Site};
use crate::linalg::{
    Cholesky, LinalgError, factor_damped, matmul_add, matmul_add_f64, scaled_dots,
};
use ndarray::{Array1, Array2, ArrayView1, Axis, s};
use rayon::prelude::*;

/// Added to the covariance, relative to its mean diagonal; as the published code of OSSCAR.
const DAMPING: f64 = 0.01;
/// Channels that are removed between two updates of the whole inverse. Any number gives the same
/// scores up to rounding; this one keeps the waiting columns in the cache.
const ROUND: usize = 128;
/// Rows that one task of a parallel loop takes.
const PANEL: usize = 128;

/// With `P = (H + λ·I)⁻¹` and `W_g` the weights that read unit g, removing g and refitting the
/// others costs `tr(W_g · P_gg⁻¹ · W_gᵀ)` of `E‖Δy‖²`. The cheapest unit is removed, `W` and `P`
/// are updated as in the papers, and the costs of all others counted again: after every single
/// unit, so that of two channels that carry the same only one goes.
///
/// The score of a removed unit is the sum of the costs up to and including its own, of a kept one
/// that sum plus its own cost. Optimal brain surgeon for groups: ZipLM, arXiv 2302.04089; OSSCAR,
/// arXiv 2403.12983; SlimGPT, arXiv 2412.18110.
///
/// Single channels wait: a removed channel updates the diagonal of P and the norms of W at once,
/// all of P and W only every [`ROUND`] channels, in one matrix product. For n channels, m outputs
/// and r removals that is `n³ + 2r·n·(n + m)` multiplications and 3 matrices `[n, n]` of float64.
pub(super) struct Obs;

impl Score for Obs {
    fn name(&self) -> &'static str {
        "obs"
    }

    fn about(&self) -> &'static str {
        "output error after removing a unit and refitting the others, greedily (optimal brain surgeon: arXiv 2302.04089, 2403.12983)"
    }

    fn needs_covariance(&self) -> bool {
        true
    }

    fn units(&self, site: &Site<'_>, width: usize, keep: usize) -> Result<Vec<f64>, ScoreError> {
        let units = site.units(width)?;
        let score = self.name();
        let covariance = site.covariance.ok_or(ScoreError::Covariance { score })?;
        let named = |source| ScoreError::Matrix { score, source };
        let factor = {
            let wide = covariance.mapv(f64::from);
            factor_damped(wide.view(), DAMPING).map_err(named)?
        };
        let weight = site.weight.t().as_standard_layout().into_owned();
        let inverse = factor.cholesky.inverse();
        let surgeon = Surgeon { inverse, weight, removed: vec![], costs: vec![0.0; units] };
        let removals = units.saturating_sub(keep);
        match width {
            1 => Ok(surgeon.channels(removals)),
            _ => surgeon.groups(width, removals).map_err(named),
        }
    }
}

struct Surgeon {
    /// P, `[n, n]`: after removals, of the channels that are left.
    inverse: Array2<f64>,
    /// Wᵀ, `[n, out]`, refitted.
    weight: Array2<f32>,
    /// In this order, with the sum of costs.
    removed: Vec<(usize, f64)>,
    /// Of each unit, with the present P and W.
    costs: Vec<f64>,
}

impl Surgeon {
    fn channels(mut self, removals: usize) -> Vec<f64> {
        let mut left = removals;
        loop {
            let round = left.min(ROUND);
            let mut waiting = Waiting::new(&self, round);
            self.costs = waiting.costs();
            for _ in 0..round {
                let cheapest = self.remove_cheapest();
                waiting.remove(&self, cheapest);
                self.costs = waiting.costs();
            }
            left -= round;
            if left == 0 {
                return self.scores();
            }
            let Waiting { columns, weights, .. } = waiting;
            self.update(&columns, &columns, &weights);
        }
    }

    fn groups(mut self, width: usize, removals: usize) -> Result<Vec<f64>, LinalgError> {
        self.count_groups(width)?;
        for _ in 0..removals {
            let first = self.remove_cheapest() * width;
            let group = first..first + width;
            let rows = self.inverse.slice(s![group.clone(), ..]).to_owned();
            let weights = self.weight.slice(s![group.clone(), ..]).mapv(f64::from);
            let own = Cholesky::new(rows.slice(s![.., group]).to_owned())?;
            // P_:g · P_gg⁻¹, a row for each channel of the model
            let factors = own.solve_rows(rows.t().as_standard_layout().into_owned());
            self.update(&factors.t().to_owned(), &rows, &weights);
            self.count_groups(width)?;
        }
        Ok(self.scores())
    }

    fn count_groups(&mut self, width: usize) -> Result<(), LinalgError> {
        for unit in 0..self.costs.len() {
            if self.is_removed(unit) {
                continue;
            }
            let group = unit * width..(unit + 1) * width;
            let own = self.inverse.slice(s![group.clone(), group.clone()]).to_owned();
            let weights = self.weight.slice(s![group, ..]).t().mapv(f64::from);
            let solved = Cholesky::new(own)?.solve_rows(weights.clone());
            self.costs[unit] = (&solved * &weights).sum().max(0.0);
        }
        Ok(())
    }

    fn is_removed(&self, unit: usize) -> bool {
        self.removed.iter().any(|(removed, _)| *removed == unit)
    }

    /// Notes the removal of the unit of the least cost, the first of several.
    fn remove_cheapest(&mut self) -> usize {
        let mut open = vec![true; self.costs.len()];
        self.removed.iter().for_each(|(unit, _)| open[*unit] = false);
        let candidates = (0..self.costs.len()).filter(|unit| open[*unit]);
        let cheapest = candidates.min_by(|a, b| self.costs[*a].total_cmp(&self.costs[*b]));
        let cheapest = cheapest.expect("fewer removals than units");
        self.removed.push((cheapest, self.total() + self.costs[cheapest]));
        cheapest
    }

    fn total(&self) -> f64 {
        self.removed.last().map_or(0.0, |(_, total)| *total)
    }

    fn scores(self) -> Vec<f64> {
        let total = self.total();
        let mut scores: Vec<f64> = self.costs.iter().map(|cost| total + cost).collect();
        self.removed.iter().for_each(|(unit, total)| scores[*unit] = *total);
        scores
    }

    /// `P ← P − AᵀB`, `Wᵀ ← Wᵀ − AᵀY`: `a` and `b` are `[k, n]`, `y` is `[k, out]`.
    fn update(&mut self, a: &Array2<f64>, b: &Array2<f64>, y: &Array2<f64>) {
        let narrow = a.mapv(|a| -a as f32);
        let y = y.mapv(|y| y as f32);
        let inverse = self.inverse.axis_chunks_iter_mut(Axis(0), PANEL).into_par_iter();
        let weight = self.weight.axis_chunks_iter_mut(Axis(0), PANEL).into_par_iter();
        inverse.zip(weight).enumerate().for_each(|(i, (inverse, weight))| {
            let rows = s![.., i * PANEL..i * PANEL + inverse.nrows()];
            matmul_add_f64(-1.0, a.slice(rows).t(), b.view(), inverse);
            matmul_add(narrow.slice(rows).t(), y.view(), weight);
        });
    }
}

/// Removals that P and W do not know of yet: a Cholesky factorization of P, row by row in the
/// order of removal, which carries W along.
struct Waiting {
    /// Row t: `P_p: / √P_pp` as it was when channel p was removed at step t, `[round, n]`.
    columns: Array2<f64>,
    /// Row t: `w_p / √P_pp` likewise, `[round, out]`.
    weights: Array2<f64>,
    /// Rows filled.
    len: usize,
    /// The diagonal of P, up to date, `[n]`.
    diagonal: Array1<f64>,
    /// `‖w_j‖²`, up to date, `[n]`.
    energies: Array1<f64>,
}

impl Waiting {
    fn new(surgeon: &Surgeon, round: usize) -> Self {
        let (n, out) = surgeon.weight.dim();
        let energy = |row: ArrayView1<'_, f32>| row.iter().map(|w| f64::from(*w).powi(2)).sum();
        Self {
            columns: Array2::zeros((round, n)),
            weights: Array2::zeros((round, out)),
            len: 0,
            diagonal: surgeon.inverse.diag().to_owned(),
            energies: surgeon.weight.outer_iter().map(energy).collect(),
        }
    }

    fn costs(&self) -> Vec<f64> {
        let each = self.energies.iter().zip(&self.diagonal);
        // Of a removed channel nothing but rounding is left: its cost is not read.
        each.map(|(energy, d)| energy.max(0.0) / d.max(f64::MIN_POSITIVE)).collect()
    }

    fn remove(&mut self, surgeon: &Surgeon, p: usize) {
        let (before, step) = (s![..self.len, ..], self.len);
        let shares = self.columns.slice(s![..step, p]).to_owned();
        let mut column = surgeon.inverse.row(p).to_owned();
        let mut weight = surgeon.weight.row(p).mapv(f64::from);
        subtract(&mut column, &shares, &self.columns);
        subtract(&mut weight, &shares, &self.weights);
        let pivot = column[p].max(f64::MIN_POSITIVE).sqrt();

        // wᵀ·w_j of the present weights
        let mut products = dots(&surgeon.weight, &weight);
        let overlaps = self.weights.slice(before).dot(&weight);
        subtract(&mut products, &overlaps, &self.columns);

        column /= pivot;
        weight /= pivot;
        let energy = weight.dot(&weight);
        let each = self.energies.iter_mut().zip(&mut self.diagonal).zip(&column).zip(&products);
        for (((energies, diagonal), c), product) in each {
            *energies += c * (c * energy - 2.0 * product / pivot);
            *diagonal -= c * c;
        }
        self.columns.row_mut(step).assign(&column);
        self.weights.row_mut(step).assign(&weight);
        self.len += 1;
    }
}

/// `x ← x − Σ_t shares_t · rows_t`
fn subtract(x: &mut Array1<f64>, shares: &Array1<f64>, rows: &Array2<f64>) {
    for (share, row) in shares.iter().zip(rows.outer_iter()) {
        x.scaled_add(-share, &row);
    }
}

/// `W · x` in float32, `[n]`: `w` is `[n, out]`.
fn dots(w: &Array2<f32>, x: &Array1<f64>) -> Array1<f64> {
    let x: Vec<f32> = x.iter().map(|x| *x as f32).collect();
    let mut y = vec![0.0; w.nrows()];
    let rows = w.as_slice().expect("made in standard layout");
    if !x.is_empty() {
        let panels = y.par_chunks_mut(PANEL).zip(rows.par_chunks(PANEL * x.len()));
        panels.for_each(|(y, rows)| scaled_dots(&x, rows, 1.0, y));
    }
    y.into_iter().map(f64::from).collect()
}
