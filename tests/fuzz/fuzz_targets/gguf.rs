//! Any bytes as a GGUF file, up to the plan of an import.
#![no_main]
use libfuzzer_sys::fuzz_target;
use milm_compress::{
    package::gguf::{Gguf, Import},
    tensor::{Bytes, FloatType},
};

fuzz_target!(|data: &[u8]| {
    if let Ok(gguf) = Gguf::parse("fuzz.gguf", &Bytes::owned(data.to_vec())) {
        let _ = Import::plan(&gguf, FloatType::F32);
    }
});
