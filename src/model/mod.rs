//! A model as data: its architecture ([`ModelSpec`]) and its weights ([`WeightStore`]).

mod weights;

pub use weights::{Weight, WeightError, WeightStore, part_name};
