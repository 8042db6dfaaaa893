//! Chooses integer codes for weights.
//!
//! [`Settings`] say what is wanted, [`Plan`] what becomes of each tensor, [`rtn`] rounds. Add an
//! algorithm: one file here that chooses codes for rows of a weight.

mod error;
mod plan;
pub mod rtn;
mod settings;

pub use error::QuantizeError;
pub use plan::{Plan, Planned, plan};
pub use settings::{Embeddings, GroupFallback, GroupSize, Method, Rule, Settings, ShardSize};
