//! Any text as a chat template, compiled and rendered.
#![no_main]
use libfuzzer_sys::fuzz_target;
use milm_compress::text::{ChatTemplate, Message, TokenizerConfig};

fuzz_target!(|source: &str| {
    if let Ok(template) = ChatTemplate::compile(source, &TokenizerConfig::default(), None) {
        let _ = template.render(&[Message::new("user", "hi")], true);
    }
});
