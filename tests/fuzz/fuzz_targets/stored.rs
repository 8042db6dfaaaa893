//! Any bytes as a file of statistics, of stored logits, or of llama-perplexity's.
#![no_main]
use libfuzzer_sys::fuzz_target;
use milm_compress::{
    calibrate::Statistics,
    eval::{KldReference, StoredReference},
    tensor::Bytes,
};

fuzz_target!(|data: &[u8]| {
    let bytes = Bytes::owned(data.to_vec());
    let _ = StoredReference::open("fuzz", &bytes);
    let _ = KldReference::open("fuzz", bytes.clone());
    let _ = Statistics::open(bytes);
});
