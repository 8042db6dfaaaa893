//! Learning: the ops of a model with their way back, losses, and the optimizer.
//!
//! [`Block`] interprets the same list of ops as [`forward::BlockWeights`](crate::forward::BlockWeights), in
//! float32, and keeps what the way back needs. A model is trained block by block from stored inputs: what is
//! in memory is one block's intermediate results. Sums over tokens are made in fixed chunks, so that the bits
//! do not depend on the number of threads.
//!
//! Add an op: a file here with its `forward` and `backward`, an arm each in `block.rs`.
mod adam;
mod attention;
mod block;
mod distil;
mod error;
mod experts;
mod gate;
mod head;
mod heads;
mod linear;
mod loss;
mod medusa;
mod norm;
mod parameters;
mod regress;
mod rows;
mod run;
mod scales;
mod settings;
mod student;

pub use adam::{Adam, Schedule, Step, clip, rate};
pub use block::{Block, Tape, check};
pub use distil::{Distillation, Lessons, Noted};
pub use error::TrainError;
pub use head::Head;
pub use loss::{Labels, NO_LABEL, Parent, Target};
pub use medusa::{Accepted, Answers, Medusa, MedusaSettings};
pub use parameters::{Learns, Parameter, Parameters};
pub use regress::{BlockLoss, Streams, regress};
pub use settings::Settings;
pub use student::Student;
