//! Dense linear algebra, products in float32 and factorizations in float64, and the threads that
//! share it; pure functions without a model.
//!
//! Add a factorization or transform: one file here, behind a non-generic function, so that
//! monomorphised library code is compiled once.

mod cholesky;
mod compare;
mod elementwise;
mod error;
mod gradients;
mod gram;
mod hadamard;
pub mod least_squares;
mod matmul;
mod residues;
mod spectral;
mod team;

pub use cholesky::{Cholesky, Damped, MAX_DAMPING, factor_damped};
pub use compare::{divergence, largest, top5};
pub use elementwise::{
    GELU, add_assign, gelu_mul, log_sum_exp, rms_norm, scaled_dots, silu_mul, softmax, weighted_sum,
};
pub(crate) use elementwise::{lanes_sum, vectorized};
pub use error::LinalgError;
pub use gradients::{gelu_mul_gradient, rms_norm_gradient, silu_mul_gradient, softmax_gradient};
pub use gram::{CHUNK, accumulate_cross, accumulate_gram, mirror};
pub use hadamard::Hadamard;
pub use matmul::{
    matmul, matmul_add, matmul_add_f64, matmul_tiled, matmul_transposed, matmul_transposed_apart,
};
pub use spectral::{Eigen, Roots, Svd, Tiny, eigh, sqrt_psd, svd};
pub use team::Team;
