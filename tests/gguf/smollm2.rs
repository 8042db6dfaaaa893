//! A real file against the directory that another converter made of it.
use crate::util;
use milm_compress::{
    checkpoint::OutputDir,
    package::gguf::{self, Import},
    progress::Silent,
    tensor::FloatType,
};
use std::{fs, path::Path};

/// `MILM_SMOLLM2_DIR` names the folder with the file and `smollm2-f32` beside it.
#[test]
fn smollm2_comes_out_as_its_reference() {
    let Some(dir) = std::env::var_os("MILM_SMOLLM2_DIR") else {
        println!("skipped: MILM_SMOLLM2_DIR does not name a folder with SmolLM2-135M");
        return;
    };
    let dir = Path::new(&dir);
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

    let tokenizer = tokenizers::Tokenizer::from_file(target.join("tokenizer.json")).unwrap();
    let golden = fs::read(util::golden().join("tokenizer_golden.json")).unwrap();
    let golden: serde_json::Value = serde_json::from_slice(&golden).unwrap();
    for case in golden["smollm2"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        let ids = tokenizer.encode(text, true).unwrap().get_ids().to_vec();
        assert_eq!(serde_json::json!(ids), case["ids"], "{text}");
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), case["decoded"].as_str().unwrap());
    }
    let config = |folder: &Path| -> serde_json::Value {
        serde_json::from_slice(&fs::read(folder.join("tokenizer_config.json")).unwrap()).unwrap()
    };
    let (got, want) = (config(&target), config(&reference));
    for key in ["chat_template", "bos_token", "eos_token", "unk_token", "pad_token"] {
        assert_eq!(got[key], want[key], "{key}");
    }
}
