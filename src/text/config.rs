//! `tokenizer_config.json`, `special_tokens_map.json` and `generation_config.json`, as far as text
//! needs them.
use super::TextError;
use serde::de::DeserializeOwned;
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
        Self::with_map(text, None)
    }

    /// As [`Self::parse`], with the text of `special_tokens_map.json`. As in transformers the map
    /// counts where the configuration holds no `added_tokens_decoder`, and then before it.
    pub fn with_map(text: &str, map: Option<&str>) -> Result<Self, TextError> {
        const FILE: &str = "tokenizer_config.json";
        let wrong = |detail: String| TextError::Config { file: FILE, detail };
        let json = object(FILE, text)?;
        let map = map.filter(|_| json["added_tokens_decoder"].is_null());
        let map = map.map(|text| object("special_tokens_map.json", text)).transpose()?;
        // Tokens are strings, or objects that carry the string in `content`.
        let named = |name: &&'static str| {
            let token = map.as_ref().and_then(|map| map.get(*name)).unwrap_or(&json[*name]);
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

fn object(file: &'static str, text: &str) -> Result<Value, TextError> {
    let wrong = |detail: String| TextError::Config { file, detail };
    let json: Value = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
    if json.is_object() { Ok(json) } else { Err(wrong("expected an object".to_owned())) }
}

/// The authors' settings for generation, key by key: what is not asked for may hold anything.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerationConfig {
    file: &'static str,
    json: Value,
}

impl GenerationConfig {
    /// Reads the text of `generation_config.json`.
    pub fn parse(text: &str) -> Result<Self, TextError> {
        let file = "generation_config.json";
        Ok(Self { file, json: object(file, text)? })
    }

    /// Reads the text of `config.json`, which holds the ids of BOS and EOS where there is no
    /// `generation_config.json`.
    pub(super) fn of_model(text: &str) -> Result<Self, TextError> {
        let file = "config.json";
        let mut json = object(file, text)?;
        let inner = json["text_config"].take();
        Ok(Self { file, json: if inner["eos_token_id"].is_null() { json } else { inner } })
    }

    /// The value of a key; `None` when it is absent or null.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, TextError> {
        let Some(value) = self.json.get(key).filter(|it| !it.is_null()) else { return Ok(None) };
        serde_json::from_value(value.clone()).map(Some).map_err(|error| TextError::Config {
            file: self.file,
            detail: format!("`{key}`: {error}"),
        })
    }

    /// The ids under a key that holds one or a list.
    pub fn ids(&self, key: &str) -> Result<Vec<u32>, TextError> {
        if self.json[key].is_array() {
            return Ok(self.get(key)?.unwrap_or_default());
        }
        Ok(self.get(key)?.into_iter().collect())
    }
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
        let eos = |text| GenerationConfig::parse(text).unwrap().ids("eos_token_id").unwrap();
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
        let odd = GenerationConfig::parse(r#"{"eos_token_id": "x", "top_k": -1}"#).unwrap();
        let error = odd.ids("eos_token_id").unwrap_err().to_string();
        assert!(error.contains("generation_config.json: malformed: ``eos_token_id`"), "{error}");
        assert!(odd.get::<usize>("top_k").unwrap_err().to_string().contains("`top_k`"));
        assert_eq!(odd.get::<f32>("temperature").unwrap(), None);
        assert!(GenerationConfig::parse(r#"{"temperature": 0.7,}"#).is_err());
    }
}
