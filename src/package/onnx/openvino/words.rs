//! What a `tokenizer.json` says, as far as networks of strings say the same: byte-level byte pair encodings.
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// GPT-2's pattern, which `ByteLevel` cuts by.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// Every digit of any script.
const DIGITS: &str = r"\p{N}";

/// A tokenizer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Words {
    /// Bytes of each token by id.
    pub(super) vocabulary: Vec<Vec<u8>>,
    /// Pairs that become one, the first ones first.
    pub(super) merges: Vec<[Vec<u8>; 2]>,
    /// Tokens that are found before anything else, longer ones first, with their ids and whether they are shown.
    pub(super) added: Vec<(String, i32, bool)>,
    /// Whether text is brought to normal form C.
    pub(super) composed: bool,
    /// Patterns that text is cut by, one after another.
    pub(super) cuts: Vec<String>,
}

impl Words {
    /// Reads a file; else what it holds that is not said by networks.
    pub(super) fn read(json: &Value) -> Result<Self, String> {
        let model = &json["model"];
        let plain = |key: &str| {
            let value = &model[key];
            value.is_null() || value == false || value == ""
        };
        let keys = ["continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"];
        let keys = keys.into_iter().chain(["ignore_merges", "unk_token", "dropout"]);
        if model["type"] != "BPE" {
            return Err(format!("a model of the type {}", model["type"]));
        }
        if let Some(key) = keys.into_iter().find(|key| !plain(key)) {
            return Err(format!("`{key}`"));
        }
        let composed = match json["normalizer"]["type"].as_str() {
            None => false,
            Some("NFC") => true,
            Some(other) => return Err(format!("the normalizer {other}")),
        };
        if json["decoder"]["type"] != "ByteLevel" {
            return Err(format!("the decoder {}", json["decoder"]["type"]));
        }
        let added = added(json)?;
        let (vocabulary, merges) = (vocabulary(model, &added)?, merges(model)?);
        let mut cuts = Vec::new();
        cut(&json["pre_tokenizer"], &mut cuts)?;
        Ok(Self { vocabulary, merges, added, composed, cuts })
    }
}

/// The byte that each letter of a byte-level vocabulary stands for.
fn bytes_of_letters() -> BTreeMap<char, u8> {
    let shown = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let mut next = 256_u32;
    let letter = |byte: u8| {
        if shown(byte) {
            return (char::from(byte), byte);
        }
        next += 1;
        (char::from_u32(next - 1).unwrap_or_default(), byte)
    };
    (0..=255).map(letter).collect()
}

fn spelled(text: &str, letters: &BTreeMap<char, u8>) -> Result<Vec<u8>, String> {
    let bytes = text.chars().map(|letter| letters.get(&letter).copied());
    bytes.collect::<Option<_>>().ok_or_else(|| format!("the token `{text}`, which is no bytes"))
}

fn added(json: &Value) -> Result<Vec<(String, i32, bool)>, String> {
    let mut found = Vec::new();
    for token in json["added_tokens"].as_array().into_iter().flatten() {
        let text = token["content"].as_str().unwrap_or_default();
        let special = ["lstrip", "rstrip", "single_word"].iter().any(|key| token[*key] == true);
        let id = token["id"].as_i64().and_then(|id| i32::try_from(id).ok()).filter(|id| *id >= 0);
        match id.filter(|_| !special && !text.is_empty()) {
            Some(id) => found.push((text.to_owned(), id, token["special"] != true)),
            None => return Err(format!("the added token `{text}`")),
        }
    }
    found.sort_by_key(|(text, id, _)| (std::cmp::Reverse(text.len()), *id));
    Ok(found)
}

/// Tokens by id; those that are added stand as they are written.
fn vocabulary(model: &Value, added: &[(String, i32, bool)]) -> Result<Vec<Vec<u8>>, String> {
    let (letters, mut list) = (bytes_of_letters(), BTreeMap::new());
    let own: BTreeSet<usize> = added.iter().map(|(_, id, _)| *id as usize).collect();
    for (text, id) in model["vocab"].as_object().into_iter().flatten() {
        let id = id.as_u64().and_then(|id| usize::try_from(id).ok());
        let id = id.ok_or_else(|| format!("the id of `{text}`"))?;
        if !own.contains(&id) {
            list.insert(id, spelled(text, &letters)?);
        }
    }
    list.extend(added.iter().map(|(text, id, _)| (*id as usize, text.clone().into_bytes())));
    let last = list.keys().next_back().copied().unwrap_or(0);
    if last >= 4 * list.len() + 1024 {
        return Err(format!("the id {last} of {} tokens", list.len()));
    }
    Ok((0..=last).map(|id| list.remove(&id).unwrap_or_default()).collect())
}

fn merges(model: &Value) -> Result<Vec<[Vec<u8>; 2]>, String> {
    let letters = bytes_of_letters();
    let pair = |merge: &Value| {
        let sides = match merge.as_str() {
            Some(text) => text.split_once(' '),
            None => merge[0].as_str().zip(merge[1].as_str()),
        };
        let (left, right) = sides.ok_or_else(|| format!("the merge {merge}"))?;
        Ok([spelled(left, &letters)?, spelled(right, &letters)?])
    };
    model["merges"].as_array().into_iter().flatten().map(pair).collect()
}

/// Patterns of a pre-tokenizer; each cuts around what it finds.
fn cut(step: &Value, cuts: &mut Vec<String>) -> Result<(), String> {
    match step["type"].as_str().unwrap_or_default() {
        "Sequence" => {
            let steps = step["pretokenizers"].as_array();
            steps.into_iter().flatten().try_for_each(|step| cut(step, cuts))
        }
        "ByteLevel" if step["add_prefix_space"] == false => {
            if step["use_regex"] != false {
                cuts.push(GPT2.to_owned());
            }
            Ok(())
        }
        "Digits" if step["individual_digits"] == true => {
            cuts.push(DIGITS.to_owned());
            Ok(())
        }
        "Split" if step["behavior"] == "Isolated" && step["invert"] != true => {
            let pattern = step["pattern"]["Regex"].as_str();
            cuts.push(
                pattern.ok_or_else(|| format!("the pattern {}", step["pattern"]))?.to_owned(),
            );
            Ok(())
        }
        other => Err(format!("the pre-tokenizer {other} as it is set")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn file() -> Value {
        json!({
            "added_tokens": [
                {"id": 3, "content": "<s>", "special": true},
                {"id": 6, "content": "<s>>", "special": false},
            ],
            "normalizer": {"type": "NFC"},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Digits", "individual_digits": true},
                {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
            ]},
            "decoder": {"type": "ByteLevel"},
            "model": {"type": "BPE", "vocab": {"a": 0, "Ġ": 1, "Ċ": 2, "<s>": 3, "Ġa": 4},
                "merges": [["Ġ", "a"]]},
        })
    }

    #[test]
    fn a_byte_level_file_is_read() {
        let words = Words::read(&file()).unwrap();
        let text = |text: &str| text.as_bytes().to_vec();
        let vocabulary = ["a", " ", "\n", "<s>", " a", "", "<s>>"].map(text).to_vec();
        assert_eq!(words.vocabulary, vocabulary);
        assert_eq!(words.merges, [[text(" "), text("a")]]);
        assert_eq!(words.added, [("<s>>".to_owned(), 6, true), ("<s>".to_owned(), 3, false)]);
        assert_eq!(words.cuts, [DIGITS, GPT2]);
        assert!(words.composed);
    }

    #[test]
    fn what_networks_do_not_say_is_told() {
        let told = |change: fn(&mut Value)| {
            let mut json = file();
            change(&mut json);
            Words::read(&json).unwrap_err()
        };
        assert!(told(|it| it["model"]["type"] = json!("Unigram")).contains("Unigram"));
        assert!(told(|it| it["model"]["ignore_merges"] = json!(true)).contains("ignore_merges"));
        assert!(told(|it| it["normalizer"]["type"] = json!("Lowercase")).contains("Lowercase"));
        assert!(told(|it| it["pre_tokenizer"]["type"] = json!("Metaspace")).contains("Metaspace"));
        assert!(told(|it| it["added_tokens"][0]["lstrip"] = json!(true)).contains("<s>"));
        assert!(told(|it| it["model"]["vocab"]["▁"] = json!(5)).contains('▁'));
        assert!(told(|it| it["added_tokens"][1]["id"] = json!(2_000_000)).contains("2000000"));
    }

    #[test]
    fn letters_stand_for_every_byte() {
        let letters = bytes_of_letters();
        assert_eq!(letters.len(), 256);
        assert_eq!((letters[&'Ġ'], letters[&'Ċ'], letters[&'é']), (b' ', b'\n', 0xe9));
    }
}
