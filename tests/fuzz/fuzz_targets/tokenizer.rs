//! Any bytes as a tokenizer.json and as the files beside it; what is read encodes, decodes and
//! renders. In this process: what ends it is what the program's helper is there for.
#![no_main]
use libfuzzer_sys::fuzz_target;
use milm_compress::text::{Message, TextFiles, Tokenizer};

fuzz_target!(|data: &[u8]| {
    let text = std::str::from_utf8(data).ok();
    let files = TextFiles {
        tokenizer: data,
        tokenizer_config: text,
        generation_config: text,
        ..TextFiles::default()
    };
    let Ok(tokenizer) = Tokenizer::new(&files) else { return };
    if let Ok(ids) = tokenizer.encode("Hello, world 模型 <s> 1e5\n", true) {
        let _ = tokenizer.decode(&ids, false);
        let _ = tokenizer.decode(&ids, true);
    }
    let _ = tokenizer.decode(&[0, 1, 2, u32::MAX], false);
    if let Ok(template) = tokenizer.chat_template() {
        let _ = template.render(&[Message::new("user", "hi")], true);
    }
});
