//! Integration tests: one binary, one module per subject.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "tests"
)]
mod adaptive;
mod allocate;
mod batch;
mod calibrate;
mod checkpoint;
mod cli;
mod compressed_tensors;
mod config_rows;
mod decode;
mod deep;
mod device;
mod documents;
mod engine;
mod eval;
mod exported;
mod flags;
mod formats;
mod gemma3;
mod generate;
mod gguf;
mod golden;
mod guard;
mod onnx;
mod mutate;
mod openvino;
mod outliers;
mod portable;
mod package;
mod heads;
mod hexagon;
mod hostile;
mod kv_cache;
mod medusa;
mod mtp;
mod mxfp4;
mod prune;
mod quantize;
mod recipes;
mod recover;
mod report;
mod rotate;
mod sbom;
mod session;
mod sign;
mod sampled;
mod slice;
mod static_scales;
mod stock;
mod stored;
mod text;
mod train;
mod text_files;
mod tune;
mod tasks;
mod tidy;
mod util;
mod vllm;
