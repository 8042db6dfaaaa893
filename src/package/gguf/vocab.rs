//! The vocabulary of a file from a tokenizer.json: the way back of `tokenizer.rs`.
use super::{
    bpe,
    error::ExportError,
    names::key,
    spm,
    tokens::{Kind, MODEL, SPECIAL, TOKENS, TYPES, TokenType, adds_key},
    value::{Array, Value, ValueType},
    write::Pairs,
};
use crate::{
    tensor::Bytes,
    text::{TextError, TextFiles, Tokenizer},
};
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};

const ORIGINAL: &str = "take tokenizer.json from the original checkpoint";

fn unusable(what: impl Into<String>, hint: &'static str) -> ExportError {
    ExportError::Tokenizer { what: what.into(), hint }
}

/// Keys of the tokenizer for an embedding of `rows` rows. `pre` names the pre-tokenizer where it
/// is not recognized.
pub(super) fn pairs(
    files: &TextFiles<'_>,
    rows: usize,
    pre: Option<&str>,
) -> Result<Pairs, ExportError> {
    let tokenizer = Tokenizer::new(files)?;
    let json: Json = serde_json::from_slice(files.tokenizer)
        .map_err(|error| TextError::Tokenizer { detail: error.to_string() })?;
    let model = &json["model"];
    // Files from before 2023 do not say what kind of model theirs is.
    if !matches!(model["type"].as_str(), Some("BPE") | None) {
        return Err(unusable(
            format!("the model `{}` has no form in GGUF here", model["type"]),
            "byte pair encodings are written: byte-level ones and SentencePiece's",
        ));
    }
    let words = Words::read(&json, rows)?;
    let merges = merges(model)?;
    let mut pairs = if model["byte_fallback"] == true {
        sentence_piece(&json, &words, &merges)?
    } else {
        byte_level(&json, &merges, pre)?
    };
    let types = words.types.iter().flat_map(|kind| kind.number().to_le_bytes()).collect();
    pairs.push((TYPES.into(), numbers(ValueType::I32, types)));
    pairs.push((TOKENS.into(), Value::Array(Array::Strings(words.texts))));
    special(&tokenizer, rows, &mut pairs)?;
    Ok(pairs)
}

fn numbers(kind: ValueType, bytes: Vec<u8>) -> Value {
    Value::Array(Array::Numbers { kind, bytes: Bytes::owned(bytes) })
}

/// Texts and types of the tokens by id, one for every row of the embedding.
struct Words {
    texts: Vec<String>,
    types: Vec<TokenType>,
}

impl Words {
    fn read(json: &Json, rows: usize) -> Result<Self, ExportError> {
        let no_word = |id: usize| format!("[PAD{id}]");
        let mut words =
            Self { texts: (0..rows).map(no_word).collect(), types: vec![TokenType::Unused; rows] };
        let vocabulary = json["model"]["vocab"].as_object();
        let vocabulary = vocabulary.ok_or_else(|| unusable("no `vocab` by text", ORIGINAL))?;
        let bytes = json["model"]["byte_fallback"] == true;
        let unknown = json["model"]["unk_token"].as_str();
        for (text, id) in vocabulary {
            let kind = match text.as_str() {
                text if Some(text) == unknown => TokenType::Unknown,
                text if bytes && is_byte(text) => TokenType::Byte,
                _ => TokenType::Normal,
            };
            words.set(id, text, kind)?;
        }
        for token in json["added_tokens"].as_array().into_iter().flatten() {
            let text = token["content"].as_str().unwrap_or_default();
            let kind = match token["special"] == true {
                _ if Some(text) == unknown && bytes => TokenType::Unknown,
                true => TokenType::Control,
                false => TokenType::UserDefined,
            };
            // A token without a row has no place here, and no model has learnt it.
            if token["id"].as_u64().is_none_or(|id| id < rows as u64) {
                words.set(&token["id"], text, kind)?;
            }
        }
        Ok(words)
    }

    fn set(&mut self, id: &Json, text: &str, kind: TokenType) -> Result<(), ExportError> {
        let at = id.as_u64().and_then(|id| usize::try_from(id).ok());
        let at = at.filter(|at| *at < self.texts.len());
        let at = at.ok_or_else(|| unusable(format!("token `{text}` has the id {id}"), ORIGINAL))?;
        text.clone_into(&mut self.texts[at]);
        self.types[at] = kind;
        Ok(())
    }
}

/// `<0x0A>` stands for a byte.
fn is_byte(text: &str) -> bool {
    let digits = text.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|d| d.len() == 2 && d.bytes().all(|c| c.is_ascii_hexdigit()))
}

/// Pairs as `[left, right]` or, in older files, `left right`.
fn merges(model: &Json) -> Result<Vec<[&str; 2]>, ExportError> {
    let list = model["merges"].as_array().ok_or_else(|| unusable("no `merges`", ORIGINAL))?;
    let found: Option<Vec<[&str; 2]>> = list
        .iter()
        .map(|merge| match merge.as_str() {
            Some(text) => text.split_once(' ').map(|(left, right)| [left, right]),
            None => Some([merge.get(0)?.as_str()?, merge.get(1)?.as_str()?]),
        })
        .collect();
    found.ok_or_else(|| unusable("an entry of `merges` is not two pieces", ORIGINAL))
}

fn byte_level(json: &Json, merges: &[[&str; 2]], pre: Option<&str>) -> Result<Pairs, ExportError> {
    let known = || bpe::name_of(&json["normalizer"], &json["pre_tokenizer"]);
    let pre = pre.or_else(known).ok_or_else(|| {
        let mut shown = json["pre_tokenizer"].to_string();
        if shown.chars().count() > 200 {
            shown = shown.chars().take(200).chain("…".chars()).collect();
        }
        unusable(
            format!("the way text is cut up has no name here: {shown}"),
            "--pre NAME takes llama.cpp's name for it (`tokenizer.ggml.pre`); llama.cpp's converter lists them",
        )
    })?;
    let merges = merges.iter().map(|[left, right]| format!("{left} {right}")).collect();
    Ok(vec![
        (MODEL.into(), Value::String(Kind::ByteLevel.name().into())),
        (bpe::PRE.into(), Value::String(pre.into())),
        (bpe::MERGES.into(), Value::Array(Array::Strings(merges))),
    ])
}

/// Scores that join pieces in the order of the merges: a piece's is minus the place of the first
/// merge that makes it.
fn sentence_piece(json: &Json, words: &Words, merges: &[[&str; 2]]) -> Result<Pairs, ExportError> {
    let other = || {
        unusable(
            "pieces fall back to bytes, but the file is not of SentencePiece's form",
            "Llama 2, Mistral 7B and Gemma have that form; leave this model as a folder",
        )
    };
    let prefix = prefix_space(json).ok_or_else(other)?;
    let ids: BTreeMap<&str, usize> =
        words.texts.iter().enumerate().map(|(id, text)| (text.as_str(), id)).collect();
    let mut scores = vec![0.0; words.texts.len()];
    let mut place = 0;
    for merge in merges {
        let id = ids.get(merge.concat().as_str()).ok_or_else(other)?;
        if scores[*id] == 0.0 {
            place += 1;
            scores[*id] = -f64::from(place);
        }
    }
    // llama.cpp joins any two pieces that make a third: the merges must be all of those.
    let implied = spm::merges(&words.texts, &words.types, &ids, &scores).map_err(|_| other())?;
    let implied: BTreeSet<[&str; 2]> =
        implied.iter().map(|[left, right]| [left.as_str(), right.as_str()]).collect();
    if implied != merges.iter().copied().collect() {
        return Err(other());
    }
    let bytes = scores.iter().flat_map(|score| (*score as f32).to_le_bytes()).collect();
    Ok(vec![
        (MODEL.into(), Value::String(Kind::SentencePiece.name().into())),
        (bpe::PRE.into(), Value::String("default".into())),
        (spm::SCORES.into(), numbers(ValueType::F32, bytes)),
        (key::ADD_SPACE.into(), Value::Bool(prefix)),
    ])
}

/// Whether a text is given a space in front; `None` if spaces are not SentencePiece's.
fn prefix_space(json: &Json) -> Option<bool> {
    let (normalizer, pre) = (&json["normalizer"], &json["pre_tokenizer"]);
    if pre["type"] == "Metaspace" && normalizer.is_null() && pre["split"] == false {
        let scheme = pre["prepend_scheme"].as_str();
        return (pre["replacement"] == spm::SPACE).then_some(scheme != Some("never"));
    }
    let steps = match normalizer["type"].as_str()? {
        "Sequence" => normalizer["normalizers"].as_array()?.as_slice(),
        _ => std::slice::from_ref(normalizer),
    };
    let replaces = |step: &Json| {
        step["type"] == "Replace"
            && step["pattern"]["String"] == " "
            && step["content"] == spm::SPACE
    };
    let prepends = |step: &Json| step["type"] == "Prepend" && step["prepend"] == spm::SPACE;
    match steps {
        _ if !pre.is_null() && !is_idle(pre) => None,
        [one] if replaces(one) => Some(false),
        [first, second] if prepends(first) && replaces(second) => Some(true),
        _ => None,
    }
}

/// A cut at spaces, of which the normalizer has left none: Gemma's.
fn is_idle(pre: &Json) -> bool {
    pre["type"] == "Split" && pre["pattern"]["String"] == " " && pre["invert"] != true
}

/// Tokens with a task, what is put around a text, and the chat template.
fn special(tokenizer: &Tokenizer, rows: usize, pairs: &mut Pairs) -> Result<(), ExportError> {
    tokenizer.check_ends()?;
    let config = tokenizer.config();
    let named =
        |name: &str| tokenizer.token_to_id(config.token(name)?).filter(|id| (*id as usize) < rows);
    let eos = named("eos_token").or_else(|| tokenizer.eos().first().copied());
    let bos = named("bos_token").or_else(|| tokenizer.bos());
    let turn = tokenizer.eos().iter().copied().find(|id| Some(*id) != eos);
    for (task, id) in [
        ("bos", bos),
        ("eos", eos),
        ("unk", named("unk_token")),
        ("pad", named("pad_token")),
        ("eot", turn),
    ] {
        let key = SPECIAL.iter().find(|(known, _)| *known == task);
        if let (Some((_, key)), Some(id)) = (key, id) {
            pairs.push(((*key).into(), Value::Unsigned(id.into())));
        }
    }
    let (bare, around) = (tokenizer.encode("a", false)?, tokenizer.encode("a", true)?);
    let starts = bos.is_some() && around.len() > bare.len() && around.first() == bos.as_ref();
    let ends = eos.is_some()
        && around.len() > bare.len() + usize::from(starts)
        && around.last() == eos.as_ref();
    if around.len() != bare.len() + usize::from(starts) + usize::from(ends) {
        let (what, hint) = ("tokens other than BOS and EOS are put around a text", ORIGINAL);
        return Err(unusable(what, hint));
    }
    pairs.push((adds_key("bos"), Value::Bool(starts)));
    pairs.push((adds_key("eos"), Value::Bool(ends)));
    let template = config.templates.iter().find(|(name, _)| name == "default");
    pairs.extend(template.map(|(_, text)| (key::TEMPLATE.into(), Value::String(text.clone()))));
    Ok(())
}
