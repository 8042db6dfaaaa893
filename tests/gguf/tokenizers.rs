//! Vocabularies of both kinds become a tokenizer.json.
use super::build::{Build, Field};
use crate::util;
use milm_compress::{
    checkpoint::OutputDir,
    package::gguf::{self, Gguf, Import},
    progress::Silent,
    tensor::{Bytes, FloatType},
};
use serde_json::Value;
use tokenizers::Tokenizer;

/// A model of one block with a vocabulary of `tokens`.
fn model(tokens: usize) -> Build {
    let ones = |n: usize| vec![1.0; n];
    let mut build = Build::default()
        .with("general.architecture", "llama".into())
        .with("llama.block_count", Field::U32(1))
        .with("llama.context_length", Field::U32(16))
        .with("llama.embedding_length", Field::U32(4))
        .with("llama.feed_forward_length", Field::U32(2))
        .with("llama.attention.head_count", Field::U32(2))
        .with("llama.attention.layer_norm_rms_epsilon", Field::F32(1e-5))
        .floats("token_embd.weight", &[tokens, 4], &ones(4 * tokens))
        .floats("output_norm.weight", &[4], &ones(4));
    for (stem, shape) in [
        ("attn_norm", &[4][..]),
        ("attn_q", &[4, 4]),
        ("attn_k", &[4, 4]),
        ("attn_v", &[4, 4]),
        ("attn_output", &[4, 4]),
        ("ffn_norm", &[4]),
        ("ffn_gate", &[2, 4]),
        ("ffn_up", &[2, 4]),
        ("ffn_down", &[4, 2]),
    ] {
        let size = shape.iter().product();
        build = build.floats(&format!("blk.0.{stem}.weight"), shape, &ones(size));
    }
    build
}

fn texts(all: &[&str]) -> Field {
    Field::Texts(all.iter().map(|text| (*text).to_owned()).collect())
}

/// A byte-level vocabulary.
pub(super) fn tiny() -> Build {
    byte_level("gpt-2")
}

fn byte_level(pre: &str) -> Build {
    let tokens = ["<s>", "h", "i", "Ġ", "hi", "Ġhi", "1", "2", "11", "<tool>", "111"];
    model(tokens.len())
        .with("tokenizer.ggml.model", "gpt2".into())
        .with("tokenizer.ggml.pre", pre.into())
        .with("tokenizer.ggml.tokens", texts(&tokens))
        .with("tokenizer.ggml.token_type", Field::I32s(vec![3, 1, 1, 1, 1, 1, 1, 1, 1, 4, 1]))
        .with("tokenizer.ggml.merges", texts(&["h i", "Ġ hi", "1 1", "11 1"]))
        .with("tokenizer.ggml.bos_token_id", Field::U32(0))
        .with("tokenizer.chat_template", "{{ messages }}".into())
}

/// SentencePiece pieces and scores.
fn sentence_piece(prefix: bool) -> Build {
    let tokens =
        ["<unk>", "<s>", "</s>", "<0xC3>", "<0xA9>", "▁", "a", "b", "ab", "▁a", "abb", "bb"];
    let scores = vec![0.0, 0.0, 0.0, 0.0, 0.0, -6.0, -7.0, -8.0, -2.0, -1.0, -4.0, -3.0];
    model(tokens.len())
        .with("tokenizer.ggml.model", "llama".into())
        .with("tokenizer.ggml.tokens", texts(&tokens))
        .with("tokenizer.ggml.scores", Field::F32s(scores))
        .with("tokenizer.ggml.token_type", Field::I32s(vec![2, 3, 3, 6, 6, 1, 1, 1, 1, 1, 1, 1]))
        .with("tokenizer.ggml.bos_token_id", Field::U32(1))
        .with("tokenizer.ggml.eos_token_id", Field::U32(2))
        .with("tokenizer.ggml.unknown_token_id", Field::U32(0))
        .with("tokenizer.ggml.add_space_prefix", Field::Bool(prefix))
}

fn import(build: &Build) -> (Tokenizer, Value, Value) {
    import_file(&Gguf::parse("test.gguf", &Bytes::owned(build.bytes())).unwrap())
}

fn import_file(gguf: &Gguf) -> (Tokenizer, Value, Value) {
    let top = tempfile::tempdir().unwrap();
    let dir = OutputDir::create(&top.path().join("out"), false).unwrap();
    Import::plan(gguf, FloatType::F32).unwrap().write(&dir, &Silent).unwrap();
    let read = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
    let json = |name: &str| serde_json::from_slice(&read(name)).unwrap();
    let tokenizer = Tokenizer::from_bytes(read("tokenizer.json")).unwrap();
    (tokenizer, json("tokenizer_config.json"), json("config.json"))
}

pub(super) fn refusal(build: &Build) -> String {
    let gguf = Gguf::parse("test.gguf", &Bytes::owned(build.bytes())).unwrap();
    Import::plan(&gguf, FloatType::F32).map(drop).unwrap_err().to_string()
}

fn ids(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    tokenizer.encode(text, true).unwrap().get_ids().to_vec()
}

#[test]
fn byte_level_vocabularies_are_cut_as_their_name_says() {
    let (plain, config, model) = import(&byte_level("gpt-2"));
    assert_eq!(ids(&plain, "hi hi<s>h 11"), [4, 5, 0, 1, 3, 8]);
    assert_eq!(ids(&plain, "<tool>hi"), [9, 4]);
    assert_eq!(plain.decode(&[4, 5, 0, 9], true).unwrap(), "hi hi<tool>");
    assert_eq!(config["bos_token"], "<s>");
    assert_eq!(config["add_bos_token"], false);
    assert_eq!(config["chat_template"], "{{ messages }}");
    assert_eq!(config["added_tokens_decoder"]["9"]["special"], false);
    assert_eq!(model["bos_token_id"], 0);
    assert_eq!(model["tie_word_embeddings"], true);

    assert_eq!(ids(&import(&byte_level("smollm")).0, "11"), [6, 6], "digits one by one");
    assert_eq!(ids(&import(&byte_level("qwen2")).0, "11"), [6, 6], "digits one by one");
    let (llama3, config, _) = import(&byte_level("llama-bpe"));
    assert_eq!(ids(&llama3, "1111"), [0, 10, 6], "a beginning, then three digits at most");
    assert_eq!(config["add_bos_token"], true);
}

/// The best score is joined first: `▁a` (-1) before `ab` (-2); é falls back to its bytes.
#[test]
fn sentence_piece_joins_by_score() {
    let (tokenizer, config, _) = import(&sentence_piece(true));
    assert_eq!(ids(&tokenizer, "ab"), [1, 9, 7], "▁ab: ▁a wins over ab");
    assert_eq!(ids(&tokenizer, "a abb"), [1, 9, 9, 11], "bb (-3) wins over abb (-4)");
    assert_eq!(ids(&tokenizer, "é"), [1, 5, 3, 4]);
    assert_eq!(ids(&tokenizer, "z"), [1, 5, 0]);
    assert_eq!(tokenizer.decode(&[1, 9, 9, 11, 3, 4], true).unwrap(), "a abbé");
    assert_eq!(config["add_bos_token"], true, "presumed of this kind");

    let (bare, ..) = import(&sentence_piece(false));
    assert_eq!(ids(&bare, "abb"), [1, 10], "without the space, ab (-2) wins over bb (-3)");
}

#[test]
fn defects_of_a_vocabulary_are_named() {
    let error = refusal(&byte_level("klingon"));
    assert!(error.contains("`klingon`") && error.contains("llama-bpe"), "{error}");
    let wrong = model(1).with("tokenizer.ggml.model", "bert".into());
    assert!(refusal(&wrong).contains("`bert`"));
    let large = model(2)
        .with("tokenizer.ggml.model", "gpt2".into())
        .with("tokenizer.ggml.tokens", texts(&["a", "b", "c"]))
        .with("tokenizer.ggml.merges", texts(&[]));
    assert!(refusal(&large).contains("3 tokens, but the embedding has 2 rows"));
    let twice = model(2)
        .with("tokenizer.ggml.model", "gpt2".into())
        .with("tokenizer.ggml.tokens", texts(&["a", "a"]))
        .with("tokenizer.ggml.merges", texts(&[]));
    assert!(refusal(&twice).contains("tokens 0 and 1 are both `a`"));
    let strange = model(2)
        .with("tokenizer.ggml.model", "gpt2".into())
        .with("tokenizer.ggml.tokens", texts(&["a", "b"]))
        .with("tokenizer.ggml.merges", texts(&["a c"]));
    assert!(refusal(&strange).contains("vocabulary"), "{}", refusal(&strange));
    let missing = model(1).with("tokenizer.ggml.model", "gpt2".into());
    assert!(refusal(&missing).contains("tokenizer.ggml.tokens"));
    let far = tiny().with("tokenizer.ggml.eos_token_id", Field::U32(99));
    assert!(refusal(&far).contains("is 99, but there are 11 tokens"));
}

#[test]
fn other_models_are_refused_by_name() {
    let other = |arch: &str| {
        Build::default()
            .with("general.architecture", arch.into())
            .with("tokenizer.ggml.model", "gpt2".into())
            .with("tokenizer.ggml.tokens", texts(&["a"]))
    };
    let error = refusal(&other("gemma2"));
    assert!(error.contains("`gemma2`") && error.contains("qwen3"), "{error}");
    let error = refusal(&tiny().with("llama.expert_count", Field::U32(8)));
    assert!(error.contains("llama.expert_used_count") && error.contains("missing"), "{error}");
    let error = refusal(&tiny().with("llama.attention.value_length", Field::U32(3)));
    assert!(error.contains("llama.attention.value_length"), "{error}");
    let error = refusal(&tiny().floats("blk.0.attn_q_norm.weight", &[2], &[1.0; 2]));
    assert!(error.contains("blk.0.attn_q_norm.weight"), "{error}");
    let error = refusal(&tiny().with("llama.rope.scaling.type", "longrope".into()));
    assert!(error.contains("longrope"), "{error}");
}

/// A trained vocabulary gives sentencepiece's own ids and texts (tests/golden/gguf).
#[test]
fn a_trained_vocabulary_agrees_with_sentencepiece() {
    let folder = util::golden().join("gguf");
    let gguf = gguf::open(&folder.join("spm.gguf")).unwrap();
    let (tokenizer, ..) = import_file(&gguf);
    let cases = std::fs::read(folder.join("spm.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_slice(&cases).unwrap();
    assert!(cases.len() > 10);
    for case in cases {
        let text = case["text"].as_str().unwrap();
        let got = ids(&tokenizer, text);
        assert_eq!(serde_json::json!(got), case["ids"], "{text:?}");
        assert_eq!(tokenizer.decode(&got, true).unwrap(), case["decoded"].as_str().unwrap());
    }
}
