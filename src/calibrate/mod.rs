//! Statistics of activations over a calibration set.
//!
//! A [`Walk`] runs a model block by block over windows of text and gives the [`BlockStatistics`]
//! of each. Add a statistic: a field there and a line where the tap sees its site.
mod bundled;
mod data;
mod error;
mod layout;
mod moments;
mod passage;
mod rank;
mod ranges;
mod settings;
mod states;
mod statistics;
mod store;
mod walk;

pub use bundled::{PROMPTS, bundled};
pub use data::{CalibrationSet, DataFingerprint, Encode, Generate, SourceFingerprint};
pub use error::{CalibrateError, NonFinite};
pub use moments::Moments;
pub use passage::{Passage, WHOLE};
pub use ranges::min_max_grids;
pub use rank::{RankWarning, check_rank, check_tokens};
pub use settings::{Settings, Source};
pub use states::HiddenStates;
pub use statistics::{BlockStatistics, InputStatistics, Request};
pub use store::{Fingerprint, Statistics, StatisticsWriter, statistics_bytes};
pub use walk::Walk;
