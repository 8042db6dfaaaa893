//! Statistics of activations over a calibration set.
//!
//! A [`Walk`] runs a model block by block over windows of text and gives the [`BlockStatistics`]
//! of each. Add a statistic: a field there and a line where the tap sees its site.
mod error;
mod moments;
mod states;
mod statistics;
mod walk;

pub use error::CalibrateError;
pub use moments::Moments;
pub use states::HiddenStates;
pub use statistics::{BlockStatistics, InputStatistics, Request};
pub use walk::Walk;
