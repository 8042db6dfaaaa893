//! Any bytes as a safetensors file.
#![no_main]
use libfuzzer_sys::fuzz_target;
use milm_compress::{checkpoint::parse_safetensors, tensor::Bytes};

fuzz_target!(|data: &[u8]| {
    let _ = parse_safetensors(&Bytes::owned(data.to_vec()));
});
