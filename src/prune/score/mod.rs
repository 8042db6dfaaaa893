//! How much a unit is worth: numbers by which pruning ranks, higher = keep.
//!
//! A score sees one consumer (the projection that reads the units) and statistics of its input.
//! Add a score: one file here and one line in [`SCORES`].
use crate::{calibrate::Moments, linalg::LinalgError};
use ndarray::{ArrayView2, Axis};

mod flap;
mod magnitude;
mod obs;
mod random;
mod transact;
mod transact_product;
mod wanda;

/// A consumer and what is known of its input; `in` counts the channels of that input.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    /// The weight that reads the units, `[out, in]`: the output projection of attention or the
    /// down projection of an MLP.
    pub weight: ArrayView2<'a, f32>,
    /// Moments of its input, `[in]`.
    pub moments: &'a Moments,
    /// `E[x·xᵀ]` of its input, `[in, in]`; the upper triangle is enough.
    pub covariance: Option<ArrayView2<'a, f32>>,
    /// For scores that draw; different for each site.
    pub seed: u64,
}

/// What is known of the rotary pairs of a block, summed over tokens and, where a KV head serves
/// several query heads, over these. Pair p of a head stands for its channels p and p + `pairs`.
#[derive(Clone, Copy, Debug)]
pub struct PairSite<'a> {
    /// `Σ q_p²` after rotation, `[kv_heads · pairs]`.
    pub queries: &'a [f64],
    /// `Σ k_p²` after rotation, `[kv_heads · pairs]`.
    pub keys: &'a [f64],
    /// `Σ a²` of the input of the output projection, `[kv_heads · head_dim]`.
    pub values: &'a [f64],
    /// `Σ ‖row‖²` of the query rows of the pair, `[kv_heads · pairs]`.
    pub query_rows: &'a [f64],
    /// `Σ ‖row‖²` of the key rows of the pair, `[kv_heads · pairs]`.
    pub key_rows: &'a [f64],
    /// Pairs per head, at least 1.
    pub pairs: usize,
    /// For scores that draw; different for each block.
    pub seed: u64,
}

/// A way to rank units.
pub trait Score: Sync {
    /// As written after `--score`.
    fn name(&self) -> &'static str;

    /// One sentence: formula and source.
    fn about(&self) -> &'static str;

    /// Whether [`Self::units`] reads [`Site::covariance`].
    fn needs_covariance(&self) -> bool {
        false
    }

    /// A finite score for each run of `width` consecutive input channels, `[in / width]`; higher =
    /// keep. `width` 1 is an MLP channel, `head_dim` a head, `kv_repeat · head_dim` a KV head with
    /// its query heads. `keep` is how many units will stay; a greedy score removes the others one
    /// after the other.
    ///
    /// # Errors
    /// [`ScoreError::Shape`] when parts of the site do not fit; [`ScoreError::Covariance`] and
    /// [`ScoreError::Matrix`] where the covariance is needed and missing or no covariance.
    fn units(&self, site: &Site<'_>, width: usize, keep: usize) -> Result<Vec<f64>, ScoreError>;

    /// A score for each rotary pair, `[kv_heads · pairs]`; higher = keep.
    ///
    /// Unless a score says otherwise: `Σ q_p² · Σ k_p²`. The pair adds `q_p·k_p` to a logit, whose
    /// square is at most that product on average over independent queries and keys.
    fn pairs(&self, site: &PairSite<'_>) -> Vec<f64> {
        site.queries.iter().zip(site.keys).map(|(q, k)| q * k).collect()
    }
}

/// All scores.
pub const SCORES: &[&dyn Score] = &[
    &transact::TransAct,
    &transact_product::TransActProduct,
    &wanda::Wanda,
    &flap::Flap,
    &obs::Obs,
    &magnitude::Magnitude,
    &random::Random,
];

/// The score of this name.
///
/// # Errors
/// [`ScoreError::Unknown`] with the name that was probably meant.
pub fn find(name: &str) -> Result<&'static dyn Score, ScoreError> {
    SCORES.iter().copied().find(|score| score.name() == name).ok_or_else(|| {
        let names: Vec<&str> = SCORES.iter().map(|score| score.name()).collect();
        let alike = |other: &&str| strsim::jaro_winkler(&name.to_lowercase(), other);
        let near = names.iter().max_by(|a, b| alike(a).total_cmp(&alike(b)));
        let meant = near.filter(|near| alike(near) > 0.7);
        let hint = match meant {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("there are `{}`", names.join("`, `")),
        };
        ScoreError::Unknown { found: name.to_owned(), hint }
    })
}

/// Why units have no score.
#[derive(Clone, Debug, thiserror::Error, PartialEq)]
pub enum ScoreError {
    /// No score of this name.
    #[error("unknown score `{found}`\nhint: {hint}")]
    Unknown {
        /// As it was given.
        found: String,
        /// The nearest name, or all.
        hint: String,
    },
    /// Parts of a site that do not fit.
    #[error("{what}: expected `{expected}`, found `{found}`")]
    Shape {
        /// Which part.
        what: &'static str,
        /// What fits.
        expected: usize,
        /// What is there.
        found: usize,
    },
    /// A covariance that was not collected.
    #[error("score `{score}` needs the covariance of the input\nhint: calibrate with covariances")]
    Covariance {
        /// The score.
        score: &'static str,
    },
    /// A covariance that cannot be inverted.
    #[error("score `{score}`: {source}")]
    Matrix {
        /// The score.
        score: &'static str,
        /// What is wrong with the matrix.
        source: LinalgError,
    },
}

impl Site<'_> {
    /// How many units of `width` channels there are, after a look at all shapes.
    fn units(&self, width: usize) -> Result<usize, ScoreError> {
        let channels = self.weight.ncols();
        let fits = |what, expected, found| {
            if expected == found {
                Ok(())
            } else {
                Err(ScoreError::Shape { what, expected, found })
            }
        };
        fits("channels with moments", channels, self.moments.sum_squares.len())?;
        fits("channels with moments", channels, self.moments.sum.len())?;
        if let Some(covariance) = self.covariance {
            fits("rows of the covariance", channels, covariance.nrows())?;
            fits("columns of the covariance", channels, covariance.ncols())?;
        }
        if width == 0 || !channels.is_multiple_of(width) {
            let expected = channels.checked_div(width).unwrap_or(1) * width;
            return Err(ScoreError::Shape { what: "channels in units", expected, found: channels });
        }
        Ok(channels / width)
    }

    /// `‖x_j‖` over the tokens, `[in]`.
    fn norms(&self) -> Vec<f64> {
        self.moments.sum_squares.iter().map(|sum| sum.sqrt()).collect()
    }

    /// `‖W_:j‖²`, `[in]`, summed in float64.
    fn column_energies(&self) -> Vec<f64> {
        self.columns(|w| w * w)
    }

    /// `Σ_i term(W_ij)`, `[in]`; row by row, in the order of memory.
    fn columns(&self, term: impl Fn(f64) -> f64) -> Vec<f64> {
        let mut sums = vec![0.0; self.weight.ncols()];
        for row in self.weight.axis_iter(Axis(0)) {
            sums.iter_mut().zip(row).for_each(|(sum, w)| *sum += term(f64::from(*w)));
        }
        sums
    }
}

/// `Σ` over each run of `width` channels.
fn sum_runs(channels: &[f64], width: usize) -> Vec<f64> {
    channels.chunks(width).map(|run| run.iter().sum()).collect()
}

#[cfg(test)]
mod tests;
