//! Turns the coordinates of a model so that its weights and activations quantize better, without
//! changing what it computes.
//!
//! Norm gains are folded into the matrices that read the norm, then the residual stream (R1) and
//! each head's values (R2) are rotated inside the weights; Hadamard matrices before the down
//! projection (R4) and on queries and keys (R3) are left to the forward pass. Forms as in QuaRot
//! (arXiv 2404.00456) and SpinQuant (arXiv 2405.16406), without centering the embeddings: RMSNorm
//! is not invariant to it.
//!
//! Add a kind of rotation: a name in [`Rotate`] and a line in `basis.rs`.
mod basis;
mod error;
mod evidence;
mod learn;
mod report;
mod rewrite;
mod rotate;
mod rotation;
mod settings;

pub use error::TransformError;
pub use evidence::Evidence;
pub use report::{HeadForm, MatrixReport, Report};
pub(crate) use rewrite::BAND;
pub use rotate::Transform;
pub use rotation::Rotation;
pub use settings::{Rotate, Settings, TiedHead, outlier_width};
