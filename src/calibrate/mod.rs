//! Statistics of activations over a calibration set.
mod moments;

pub use moments::Moments;
