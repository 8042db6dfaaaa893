//! Runs checkpoints and packages on the processor, in their integers.

pub mod kernel;
