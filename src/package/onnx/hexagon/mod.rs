//! Qualcomm's HTP (the NPU of a Hexagon) by onnxruntime-qnn: two graphs of fixed shapes over one file of
//! weights, one for prompts and one for a token, and what their sessions want.
//!
//! What the HTP takes and what it computes wrongly without a word was found with its emulator
//! (onnxruntime-qnn 2.7.0, QNN 2.51.0; docs/engines.md): so products are `MatMulNBits` with float inputs, norms are one
//! operator, the head is a matrix of its own, and int4 with zero points is refused.
mod form;
mod rules;

pub(in crate::package) use form::Form;
