//! Chooses integer codes for weights.
