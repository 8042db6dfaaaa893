//! Makes language models small enough for phones, cars and speakers, and proves what that cost.
//!
//! ```text
//! checkpoint → calibrate → prune → train → transform → quantize → package → runtime / eval → report
//! ```
//! Modules are listed in the order data flows; a module uses only modules above it.
pub mod shown;
pub mod number;
pub mod progress;
pub mod tensor;
pub mod linalg;
pub mod scheme;
pub mod model;
pub mod text;
pub mod checkpoint;
pub mod forward;
pub mod calibrate;
pub mod prune;
pub mod train;
pub mod transform;
pub mod quantize;
pub mod device;
pub mod package;
pub mod runtime;
pub mod eval;
pub mod pipeline;
pub mod report;
pub mod recipe;
pub mod cli;
