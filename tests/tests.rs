//! Integration tests: one binary, one module per subject.
#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]
mod engine;
mod golden;
mod tidy;
mod util;
