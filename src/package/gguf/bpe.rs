//! Byte-level byte pair encoding. Files name how text is cut up before it; the names and patterns
//! are llama.cpp's (`llama-vocab.cpp`), the patterns of tokenizer.json the models' own.
//!
//! Add a pre-tokenizer: its name in one of the lists of [`find`].
use super::{error::ContentError, stages::Stages};
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

/// Normalizer and pre-tokenizer of a tokenizer.json.
fn cutting(cut: Cut, prefix_space: bool) -> (Value, Value) {
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
    let normalizer = if cut == Cut::Qwen2 { json!({"type": "NFC"}) } else { Value::Null };
    (normalizer, pre_tokenizer)
}

/// The name of the pre-tokenizer of a tokenizer.json; `None` if none of those that are known cuts
/// like it.
pub(super) fn name_of(normalizer: &Value, pre_tokenizer: &Value) -> Option<&'static str> {
    // llama.cpp leaves text as it is where the models' own files bring it to normal form C.
    if !normalizer.is_null() && normalizer["type"] != "NFC" {
        return None;
    }
    let found = steps(pre_tokenizer);
    let (_, names) = CUTS.iter().find(|(cut, _)| steps(&cutting(*cut, false).1) == found)?;
    names.first().copied()
}

/// What a pre-tokenizer does, one after another, without keys that change no ids.
fn steps(pre_tokenizer: &Value) -> Vec<Value> {
    let keys = |names: &[&str]| {
        let pairs = names.iter().map(|name| ((*name).to_owned(), pre_tokenizer[*name].clone()));
        vec![Value::Object(pairs.collect())]
    };
    match pre_tokenizer["type"].as_str() {
        Some("Sequence") => {
            let inner = pre_tokenizer["pretokenizers"].as_array();
            inner.into_iter().flatten().flat_map(steps).collect()
        }
        Some("ByteLevel") => {
            let regex = pre_tokenizer["use_regex"].as_bool().unwrap_or(true);
            let space = pre_tokenizer["add_prefix_space"].as_bool().unwrap_or(true);
            vec![json!({"type": "ByteLevel", "use_regex": regex, "add_prefix_space": space})]
        }
        Some("Digits") => keys(&["type", "individual_digits"]),
        Some("Split") => keys(&["type", "pattern", "behavior", "invert"]),
        _ => vec![pre_tokenizer.clone()],
    }
}

/// The stages for a pre-tokenizer's name.
pub(super) fn stages(
    pre: &str,
    vocabulary: Value,
    merges: &[String],
    prefix_space: bool,
) -> Result<Stages, ContentError> {
    let cut = find(pre).ok_or_else(|| ContentError::Tokenizer {
        key: PRE,
        found: pre.to_owned(),
        known: CUTS.iter().flat_map(|(_, names)| *names).copied().collect::<Vec<_>>().join(", "),
    })?;
    let (normalizer, pre_tokenizer) = cutting(cut, prefix_space);
    let pairs: Vec<Value> = merges
        .iter()
        .map(|merge| merge.split_once(' ').map(|(left, right)| json!([left, right])))
        .collect::<Option<_>>()
        .ok_or_else(|| ContentError::Vocabulary {
            why: format!("an entry of `{MERGES}` is not two pieces"),
        })?;
    Ok(Stages {
        normalizer,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_cut_is_recognized_by_its_cutting() {
        for (cut, names) in CUTS {
            let (normalizer, pre_tokenizer) = cutting(*cut, false);
            assert_eq!(name_of(&normalizer, &pre_tokenizer), Some(names[0]));
            let (_, spaced) = cutting(*cut, true);
            assert_eq!(name_of(&normalizer, &spaced), None, "llama.cpp adds no space");
        }
        assert_eq!(name_of(&Value::Null, &json!({"type": "Whitespace"})), None);
        assert_eq!(name_of(&json!({"type": "Lowercase"}), &cutting(Cut::Gpt2, false).1), None);
    }
}
