//! Why a matrix has no factors.

/// A factorization that failed. Whoever calls knows the tensor and names it.
#[derive(Clone, Debug, thiserror::Error, PartialEq)]
pub enum LinalgError {
    /// A matrix that should be a sum of squares is none.
    #[error(
        "the matrix is not positive definite: pivot `{pivot}`, damping `{damping}` of the mean diagonal\nhint: use more calibration tokens or more damping"
    )]
    NotPositive {
        /// The first row whose pivot is not above zero.
        pivot: usize,
        /// The last damping tried, relative to the mean diagonal.
        damping: f64,
    },
    /// A value that is infinite or not a number.
    #[error("the matrix holds `{found}` at row `{row}`, column `{column}`")]
    NotFinite {
        /// Its row.
        row: usize,
        /// Its column.
        column: usize,
        /// The value.
        found: f64,
    },
    /// Iterations did not settle.
    #[error("the values of a `{rows} × {columns}` matrix did not converge")]
    NoConvergence {
        /// Rows of the matrix.
        rows: usize,
        /// Columns of the matrix.
        columns: usize,
    },
    /// No orthogonal matrix of a fast form.
    #[error(
        "no Hadamard matrix of order `{order}` is known here, and its odd part is too wide for the cosine transform\nhint: rotate in blocks (--rotate-block N) or by a random orthogonal matrix (--rotate random)"
    )]
    Order {
        /// The order.
        order: usize,
    },
}
