//! A real file against the directory that another converter made of it.
use crate::util;
use milm_compress::{
    checkpoint::OutputDir,
    package::gguf::{self, Import},
    progress::Silent,
    tensor::FloatType,
    text::{TextFiles, Tokenizer},
};
use serde_json::Value;
use std::{fs, path::Path};

/// `MILM_SMOLLM2_DIR` names the folder with the file and `smollm2-f32` beside it.
#[test]
#[ignore = "takes 800 MB of files of SmolLM2-135M"]
fn smollm2_comes_out_as_its_reference() {
    let dir = util::smollm2();
    let gguf = gguf::open(&dir.join("SmolLM2-135M-Instruct.Q4_1.gguf")).unwrap();
    let top = tempfile::tempdir().unwrap();
    let target = top.path().join("out");
    let output = OutputDir::create(&target, false).unwrap();
    Import::plan(&gguf, FloatType::F32).unwrap().write(&output, &Silent).unwrap();
    output.commit().unwrap();

    let reference = dir.join("smollm2-f32");
    let (got, want) = (util::open(&target), util::open(&reference));
    assert_eq!(got.weights.raw.len(), want.weights.raw.len());
    for (name, want) in &want.weights.raw {
        let got = &got.weights.raw[name];
        assert_eq!(got.shape, want.shape, "{name}");
        assert!(*got.bytes == *want.bytes, "{name}");
    }
    assert_eq!(format!("{:?}", got.spec), format!("{:?}", want.spec));

    let read = |folder: &Path, name: &str| fs::read_to_string(folder.join(name)).unwrap();
    let files = |folder: &Path| {
        ["tokenizer.json", "tokenizer_config.json", "generation_config.json"]
            .map(|name| read(folder, name))
    };
    let [tokenizer, config, generation] = files(&target);
    let tokenizer = Tokenizer::new(&TextFiles {
        tokenizer: tokenizer.as_bytes(),
        tokenizer_config: Some(&config),
        generation_config: Some(&generation),
        ..TextFiles::default()
    })
    .unwrap();
    let golden: Value =
        serde_json::from_str(&read(&util::golden(), "tokenizer_golden.json")).unwrap();
    for case in golden["smollm2"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        let ids = tokenizer.encode(text, true).unwrap();
        assert_eq!(serde_json::json!(ids), case["ids"], "{text}");
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), case["decoded"].as_str().unwrap());
    }
    let template = tokenizer.chat_template().unwrap();
    for case in golden["smollm2-chat"].as_array().unwrap() {
        let messages = case["messages"].as_array().unwrap();
        assert_eq!(template.render(messages, true).unwrap(), case["rendered"].as_str().unwrap());
    }
    for (got, want) in files(&target).iter().zip(files(&reference)) {
        let parsed = |text: &str| -> Value { serde_json::from_str(text).unwrap() };
        let (got, want) = (parsed(got), parsed(&want));
        for (key, want) in want.as_object().unwrap() {
            assert_eq!(got[key], *want, "{key}");
        }
    }
}
