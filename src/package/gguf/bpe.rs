//! Byte-level byte pair encoding. Files name how text is cut up before it; the names and patterns
//! are llama.cpp's (`llama-vocab.cpp`), the patterns of tokenizer.json the models' own.
//!
//! Add a pre-tokenizer: its name in one of the lists of [`find`].
use super::{error::ContentError, tokenizer::Parts};
use serde_json::{Value, json};

pub(super) const PRE: &str = "tokenizer.ggml.pre";
pub(super) const MERGES: &str = "tokenizer.ggml.merges";

/// How text is cut up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// GPT-2's pattern.
    Gpt2,
    /// Digits one by one, then GPT-2's pattern.
    Digits,
    /// Up to three digits together.
    Llama3,
    /// Digits one by one; text in normal form C.
    Qwen2,
}

const CUTS: &[(Cut, &[&str])] = &[
    (Cut::Gpt2, &["gpt-2", "gpt2", "default", "olmo", "mpt", "phi-2", "jina-es", "jina-de"]),
    (Cut::Digits, &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone"]),
    (Cut::Llama3, &["llama-bpe", "llama3", "llama-v3"]),
    (Cut::Qwen2, &["qwen2"]),
];

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

fn find(pre: &str) -> Option<Cut> {
    CUTS.iter().find(|(_, names)| names.contains(&pre)).map(|(cut, _)| *cut)
}

/// Whether llama.cpp adds a beginning when the file does not say.
pub(super) fn adds_bos(pre: &str) -> bool {
    find(pre) == Some(Cut::Llama3)
}

/// The stages for a pre-tokenizer's name.
pub(super) fn parts(
    pre: &str,
    vocabulary: Value,
    merges: &[String],
    prefix_space: bool,
) -> Result<Parts, ContentError> {
    let cut = find(pre).ok_or_else(|| ContentError::Tokenizer {
        key: PRE,
        found: pre.to_owned(),
        known: CUTS.iter().flat_map(|(_, names)| *names).copied().collect::<Vec<_>>().join(", "),
    })?;
    let bytes = |regex: bool| {
        json!({
            "type": "ByteLevel", "add_prefix_space": prefix_space, "trim_offsets": true,
            "use_regex": regex,
        })
    };
    let after =
        |first: Value, bytes: Value| json!({"type": "Sequence", "pretokenizers": [first, bytes]});
    let split = |pattern: &str| {
        json!({
            "type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated",
            "invert": false,
        })
    };
    let pre_tokenizer = match cut {
        Cut::Gpt2 => bytes(true),
        Cut::Digits => after(json!({"type": "Digits", "individual_digits": true}), bytes(true)),
        Cut::Llama3 => after(split(LLAMA3), bytes(false)),
        Cut::Qwen2 => after(split(QWEN2), bytes(false)),
    };
    let pairs: Vec<Value> = merges
        .iter()
        .map(|merge| merge.split_once(' ').map(|(left, right)| json!([left, right])))
        .collect::<Option<_>>()
        .ok_or_else(|| ContentError::Vocabulary {
            why: format!("an entry of `{MERGES}` is not two pieces"),
        })?;
    Ok(Parts {
        normalizer: if cut == Cut::Qwen2 { json!({"type": "NFC"}) } else { Value::Null },
        pre_tokenizer,
        decoder: json!({
            "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true,
        }),
        model: json!({
            "type": "BPE", "dropout": null, "unk_token": null,
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
            "byte_fallback": false, "ignore_merges": cut == Cut::Llama3, "vocab": vocabulary,
            "merges": pairs,
        }),
    })
}
