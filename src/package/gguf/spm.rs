//! SentencePiece's byte pair encoding: pieces have scores, and the two neighbours whose union has
//! the best score are joined first. A tokenizer.json lists the unions in that order instead.
use super::{
    error::ContentError,
    stages::Stages,
    tokens::{TokenType, Tokens},
};
use serde_json::{Value, json};
use std::{cmp::Reverse, collections::BTreeMap};

pub(super) const SCORES: &str = "tokenizer.ggml.scores";

/// Longest piece whose halves are looked up, in bytes; real ones have up to some hundred.
const MAX_PIECE: usize = 1024;

/// Stands for a space inside pieces.
pub(super) const SPACE: &str = "▁";

/// The stages of a SentencePiece vocabulary, as in the published tokenizer.json of Llama 2.
pub(super) fn stages(
    tokens: &Tokens<'_>,
    scores: &[f64],
    prefix_space: bool,
) -> Result<Stages, ContentError> {
    if scores.len() != tokens.len() {
        let why = format!("{} tokens, but {} scores", tokens.len(), scores.len());
        return Err(ContentError::Vocabulary { why });
    }
    let unknown = tokens
        .special("unk")
        .or_else(|| tokens.types.iter().position(|kind| *kind == TokenType::Unknown));
    let replace = |from: &str, to: &str| json!({"type": "Replace", "pattern": {"String": from}, "content": to});
    let mut normalizers = vec![replace(" ", SPACE)];
    let mut decoders =
        vec![replace(SPACE, " "), json!({"type": "ByteFallback"}), json!({"type": "Fuse"})];
    if prefix_space {
        normalizers.insert(0, json!({"type": "Prepend", "prepend": SPACE}));
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    Ok(Stages {
        normalizer: json!({"type": "Sequence", "normalizers": normalizers}),
        pre_tokenizer: Value::Null,
        decoder: json!({"type": "Sequence", "decoders": decoders}),
        model: json!({
            "type": "BPE", "dropout": null, "unk_token": unknown.map(|id| &tokens.texts[id]),
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": true,
            "byte_fallback": true, "ignore_merges": false, "vocab": tokens.vocabulary(),
            "merges": merges(tokens.texts, &tokens.types, &tokens.ids, scores)?,
        }),
    })
}

/// Every way to join two pieces into a third: best score first, then the longer left piece, then
/// the longer right one (in characters), then the order of the vocabulary.
pub(super) fn merges(
    texts: &[String],
    types: &[TokenType],
    ids: &BTreeMap<&str, usize>,
    scores: &[f64],
) -> Result<Vec<[String; 2]>, ContentError> {
    let mut found = Vec::new();
    for (id, piece) in texts.iter().enumerate() {
        if types[id] != TokenType::Normal {
            continue;
        }
        if piece.len() > MAX_PIECE {
            let why = format!("token {id} has {} bytes, at most {MAX_PIECE} are read", piece.len());
            return Err(ContentError::Vocabulary { why });
        }
        for (at, _) in piece.char_indices().skip(1) {
            let (left, right) = piece.split_at(at);
            if let (Some(l), Some(r)) = (ids.get(left), ids.get(right)) {
                let lengths = Reverse((left.chars().count(), right.chars().count()));
                found.push((id, lengths, *l, *r));
            }
        }
    }
    found.sort_by(|a, b| {
        let key = |it: &(usize, Reverse<(usize, usize)>, usize, usize)| (it.1, it.0, it.2, it.3);
        scores[b.0].total_cmp(&scores[a.0]).then_with(|| key(a).cmp(&key(b)))
    });
    let text = |id: usize| texts[id].clone();
    Ok(found.into_iter().map(|(_, _, left, right)| [text(left), text(right)]).collect())
}
