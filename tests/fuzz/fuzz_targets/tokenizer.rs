//! Any bytes as a tokenizer.json, and as the files beside it.
#![no_main]
use libfuzzer_sys::fuzz_target;
use milm_compress::text::{TextFiles, Tokenizer};

fuzz_target!(|data: &[u8]| {
    let text = std::str::from_utf8(data).ok();
    let files = TextFiles {
        tokenizer: data,
        tokenizer_config: text,
        generation_config: text,
        chat_template: None,
    };
    let _ = Tokenizer::new(&files);
});
