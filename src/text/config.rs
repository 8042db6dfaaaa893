//! `tokenizer_config.json` and `generation_config.json`, as far as text needs them.
use super::TextError;
use serde::Deserialize;
use serde_json::Value;

/// The tokens and switches of `tokenizer_config.json`.
#[derive(Clone, Debug, Default)]
pub struct TokenizerConfig {
    /// Named tokens (`bos_token`, `eos_token`, …), in the order of `NAMED_TOKENS`.
    pub tokens: Vec<(&'static str, String)>,
    /// Text starts with the BOS token; `None` leaves it to tokenizer.json.
    pub add_bos: Option<bool>,
    /// Encoded text ends with the EOS token; `None` leaves it to tokenizer.json.
    pub add_eos: Option<bool>,
    /// Chat templates by name; a single template is named `default`.
    pub templates: Vec<(String, String)>,
}

/// Tokens that chat templates may name.
pub(super) const NAMED_TOKENS: &[&str] =
    &["bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token"];

impl TokenizerConfig {
    /// Reads the text of `tokenizer_config.json`.
    pub fn parse(text: &str) -> Result<Self, TextError> {
        let wrong = |detail: String| TextError::Config { file: "tokenizer_config.json", detail };
        let json: Value = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        if !json.is_object() {
            return Err(wrong("expected an object".to_owned()));
        }
        // Tokens are strings, or objects that carry the string in `content`.
        let named = |name: &&'static str| {
            let token = &json[*name];
            let text = token.as_str().or_else(|| token["content"].as_str())?;
            Some((*name, text.to_owned()))
        };
        Ok(Self {
            tokens: NAMED_TOKENS.iter().filter_map(named).collect(),
            add_bos: json["add_bos_token"].as_bool(),
            add_eos: json["add_eos_token"].as_bool(),
            templates: templates(&json["chat_template"]).ok_or_else(|| {
                wrong("`chat_template` is neither a string nor a list of {name, template}".into())
            })?,
        })
    }

    /// The source of a template by its name.
    pub(super) fn template(&self, name: &str) -> Result<&str, TextError> {
        let found = self.templates.iter().find(|(known, _)| known == name);
        if let Some((_, source)) = found {
            return Ok(source);
        }
        let names: Vec<_> = self.templates.iter().map(|(name, _)| name.as_str()).collect();
        Err(match names.as_slice() {
            [] => TextError::NoTemplate,
            _ => TextError::NoDefaultTemplate { found: names.join(", ") },
        })
    }

    /// The text of a named token, e.g. of `bos_token`.
    pub fn token(&self, name: &str) -> Option<&str> {
        self.tokens.iter().find(|(known, _)| *known == name).map(|(_, text)| text.as_str())
    }
}

fn templates(json: &Value) -> Option<Vec<(String, String)>> {
    match json {
        Value::Null => Some(vec![]),
        Value::String(one) => Some(vec![("default".to_owned(), one.clone())]),
        Value::Array(many) => many
            .iter()
            .map(|it| Some((it["name"].as_str()?.to_owned(), it["template"].as_str()?.to_owned())))
            .collect(),
        _ => None,
    }
}

/// The defaults of `generation_config.json`; absent keys are `None`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct GenerationConfig {
    /// First token of a text.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a text.
    #[serde(default, deserialize_with = "one_or_many")]
    pub eos_token_id: Vec<u32>,
    /// Whether the authors sample; greedy otherwise.
    pub do_sample: Option<bool>,
    /// Divisor of the logits, 0 and above.
    pub temperature: Option<f32>,
    /// Candidates kept by rank; 0 keeps all.
    pub top_k: Option<usize>,
    /// Candidates kept by cumulated probability, in (0, 1].
    pub top_p: Option<f32>,
    /// Candidates kept by probability relative to the best, in [0, 1].
    pub min_p: Option<f32>,
    /// Divisor of the logits of tokens seen before, above 0; 1 changes nothing.
    pub repetition_penalty: Option<f32>,
    /// Tokens to generate at most.
    pub max_new_tokens: Option<usize>,
}

impl GenerationConfig {
    /// Reads the text of `generation_config.json`.
    pub fn parse(text: &str) -> Result<Self, TextError> {
        serde_json::from_str(text).map_err(|error| TextError::Config {
            file: "generation_config.json",
            detail: error.to_string(),
        })
    }
}

fn one_or_many<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<u32>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Ids {
        One(u32),
        Many(Vec<u32>),
    }
    Ok(match Option::<Ids>::deserialize(from)? {
        None => vec![],
        Some(Ids::One(id)) => vec![id],
        Some(Ids::Many(ids)) => ids,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_strings_or_objects_and_eos_one_or_many() {
        let config = TokenizerConfig::parse(
            r#"{"bos_token": {"content": "<s>"}, "eos_token": "</s>", "pad_token": null,
                "add_bos_token": true, "chat_template": [{"name": "default", "template": "x"}]}"#,
        )
        .unwrap();
        assert_eq!(config.token("bos_token"), Some("<s>"));
        assert_eq!(config.token("eos_token"), Some("</s>"));
        assert_eq!(config.token("pad_token"), None);
        assert_eq!((config.add_bos, config.add_eos), (Some(true), None));
        assert_eq!(config.templates, [("default".to_owned(), "x".to_owned())]);
        let eos = |text| GenerationConfig::parse(text).unwrap().eos_token_id;
        assert_eq!(eos(r#"{"eos_token_id": 2}"#), [2]);
        assert_eq!(eos(r#"{"eos_token_id": [2, 7], "unknown": {}}"#), [2, 7]);
        assert!(eos(r#"{"eos_token_id": null}"#).is_empty() && eos("{}").is_empty());
    }

    #[test]
    fn malformed_files_are_errors_that_name_the_file() {
        for bad in ["", "[]", "{", r#"{"chat_template": 5}"#, r#"{"chat_template": [{}]}"#] {
            let error = TokenizerConfig::parse(bad).unwrap_err().to_string();
            assert!(error.contains("tokenizer_config.json") && error.contains("hint: "), "{error}");
        }
        let error = GenerationConfig::parse(r#"{"eos_token_id": "x"}"#).unwrap_err().to_string();
        assert!(error.contains("generation_config.json"), "{error}");
    }
}
