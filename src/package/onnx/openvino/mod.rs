//! OpenVINO: the decoder as its IR, which holds keys and values itself, as OpenVINO GenAI wants it. The nodes of
//! the ONNX graph become layers, codes stay codes, and the file asks for float activations, which OpenVINO would
//! round to 8 bits. Byte-level tokenizers go along as networks of strings.
mod constants;
mod form;
mod ir;
mod ops;
mod strings;
mod translate;
mod words;

pub(in crate::package) use form::Form;
