//! Sums over the tokens of an activation, per channel.
use ndarray::ArrayView2;

/// First and second moments and the largest magnitude of each channel, summed in float64 in the
/// order of the tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moments {
    /// Tokens seen.
    pub tokens: u64,
    /// Σ x, `[channels]`.
    pub sum: Vec<f64>,
    /// Σ x², `[channels]`.
    pub sum_squares: Vec<f64>,
    /// Largest |x|, `[channels]`.
    pub abs_max: Vec<f32>,
}

impl Moments {
    /// Of nothing yet, over `channels` channels.
    pub fn new(channels: usize) -> Self {
        Self {
            tokens: 0,
            sum: vec![0.0; channels],
            sum_squares: vec![0.0; channels],
            abs_max: vec![0.0; channels],
        }
    }

    /// Takes in activations `[tokens, channels]`. How the tokens are split into calls does not
    /// change the result.
    ///
    /// # Panics
    /// When `x` has another number of channels.
    pub fn add(&mut self, x: ArrayView2<'_, f32>) {
        assert_eq!(x.ncols(), self.sum.len(), "channels");
        self.tokens += x.nrows() as u64;
        for row in x.outer_iter() {
            let sums = self.sum.iter_mut().zip(&mut self.sum_squares).zip(&mut self.abs_max);
            for (x, ((sum, squares), max)) in row.iter().zip(sums) {
                let wide = f64::from(*x);
                *sum += wide;
                *squares += wide * wide;
                *max = max.max(x.abs());
            }
        }
    }

    /// Var x, `[channels]`, over the population.
    pub fn variances(&self) -> Vec<f64> {
        let tokens = self.tokens.max(1) as f64;
        let each = self.sum.iter().zip(&self.sum_squares);
        each.map(|(sum, squares)| (squares / tokens - (sum / tokens).powi(2)).max(0.0)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array2, array, s};

    #[test]
    fn sums_of_a_small_case() {
        let mut moments = Moments::new(2);
        moments.add(array![[1.0, -2.0], [3.0, 0.0]].view());
        assert_eq!(moments.sum, [4.0, -2.0]);
        assert_eq!(moments.sum_squares, [10.0, 4.0]);
        assert_eq!(moments.abs_max, [3.0, 2.0]);
        assert_eq!(moments.variances(), [1.0, 1.0]);
    }

    #[test]
    fn splits_do_not_matter_but_tokens_do() {
        let x = Array2::from_shape_fn((37, 5), |(t, c)| ((t * 7 + c * 13) as f32 * 0.37).sin());
        let (mut whole, mut split) = (Moments::new(5), Moments::new(5));
        whole.add(x.view());
        split.add(x.slice(s![..11, ..]));
        split.add(x.slice(s![11.., ..]));
        assert_eq!(whole, split);
        let mut other = Moments::new(5);
        other.add(x.slice(s![1.., ..]));
        assert_ne!(whole, other);
    }
}
