//! Dense float32 linear algebra and the threads that share it; pure functions without a model.
//!
//! Add a factorization or transform: one file here, behind a non-generic function, so that
//! monomorphised library code is compiled once.

mod compare;
mod elementwise;
mod matmul;
mod team;

pub use compare::{divergence_sums, top5};
pub use elementwise::{
    add_assign, log_sum_exp, rms_norm, scaled_dots, silu_mul, softmax, weighted_sum,
};
pub(crate) use elementwise::{lanes_sum, vectorized};
pub use matmul::{matmul, matmul_transposed};
pub use team::Team;
