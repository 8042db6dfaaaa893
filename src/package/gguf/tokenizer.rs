//! `tokenizer.json` and `tokenizer_config.json` from the vocabulary of a GGUF file.
use super::{
    bpe,
    error::ContentError,
    file::missing,
    names::key,
    spm,
    tokens::{Kind, TokenType, Tokens, adds_key},
};
use serde_json::{Map, Value, json};

impl<'a> Tokens<'a> {
    /// Whether a beginning or end is added to every text, by the file or as llama.cpp presumes.
    fn adds(&self, task: &str) -> Result<bool, ContentError> {
        let said = self.gguf.flag(&adds_key(task))?;
        let presumed = task == "bos"
            && match self.kind {
                Kind::SentencePiece => true,
                Kind::ByteLevel => bpe::adds_bos(self.pre()?),
            };
        Ok(said.unwrap_or(presumed) && self.special(task).is_some())
    }

    /// `tokenizer.ggml.pre`.
    fn pre(&self) -> Result<&'a str, ContentError> {
        Ok(self.gguf.text(bpe::PRE)?.unwrap_or("default"))
    }

    /// Pieces that stand for themselves in a text: control and user-defined tokens.
    fn added(&self) -> impl Iterator<Item = (usize, &'a str, bool)> {
        self.texts.iter().zip(&self.types).enumerate().filter_map(|(id, (text, kind))| match kind {
            TokenType::Control | TokenType::Unknown => Some((id, text.as_str(), true)),
            TokenType::UserDefined => Some((id, text.as_str(), false)),
            _ => None,
        })
    }

    /// `tokenizer.json`.
    pub(super) fn tokenizer_json(&self) -> Result<Vec<u8>, ContentError> {
        let stages = match self.kind {
            Kind::ByteLevel => {
                let merges = self.gguf.texts(bpe::MERGES)?.ok_or_else(|| missing(bpe::MERGES))?;
                let prefix = self.gguf.flag(key::ADD_SPACE)?.unwrap_or(false);
                bpe::stages(self.pre()?, self.vocabulary(), merges, prefix)?
            }
            Kind::SentencePiece => {
                let scores = self.gguf.numbers(spm::SCORES)?.ok_or_else(|| missing(spm::SCORES))?;
                let prefix = self.gguf.flag(key::ADD_SPACE)?.unwrap_or(true);
                spm::stages(self, &scores, prefix)?
            }
        };
        let added: Vec<Value> = self
            .added()
            .map(|(id, text, special)| {
                let mut entry = Map::new();
                entry.insert("id".into(), id.into());
                entry.extend(added_token(text, special));
                Value::Object(entry)
            })
            .collect();
        let json = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
            "normalizer": stages.normalizer, "pre_tokenizer": stages.pre_tokenizer,
            "post_processor": self.post_processor()?, "decoder": stages.decoder,
            "model": stages.model,
        });
        Ok(serde_json::to_vec_pretty(&json).unwrap_or_default())
    }

    fn post_processor(&self) -> Result<Value, ContentError> {
        let (bos, eos) = (self.adds("bos")?, self.adds("eos")?);
        if !bos && !eos {
            return Ok(Value::Null);
        }
        let mut names = Map::new();
        let mut token = |task: &str, sequence: u8| {
            let id = self.special(task).unwrap_or(0);
            let text = &self.texts[id];
            names.insert(text.clone(), json!({"id": text, "ids": [id], "tokens": [text]}));
            json!({"SpecialToken": {"id": text, "type_id": sequence}})
        };
        let mut around = |name: &str, sequence: u8| {
            let inner = json!({"Sequence": {"id": name, "type_id": sequence}});
            let start = bos.then(|| token("bos", sequence));
            let end = eos.then(|| token("eos", sequence));
            start.into_iter().chain([inner]).chain(end).collect::<Vec<_>>()
        };
        let single = around("A", 0);
        let pair = [single.clone(), around("B", 1)].concat();
        Ok(json!({
            "type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": names,
        }))
    }

    /// `tokenizer_config.json`, with the chat template.
    pub(super) fn tokenizer_config(&self) -> Result<Value, ContentError> {
        let added: Map<String, Value> = self
            .added()
            .map(|(id, text, special)| (id.to_string(), added_token(text, special).into()))
            .collect();
        let mut config = Map::new();
        config.insert("tokenizer_class".into(), "PreTrainedTokenizerFast".into());
        config.insert("clean_up_tokenization_spaces".into(), false.into());
        config.insert("add_bos_token".into(), self.adds("bos")?.into());
        config.insert("add_eos_token".into(), self.adds("eos")?.into());
        let context = format!("{}.{}", self.gguf.architecture()?, key::CONTEXT);
        config.insert("model_max_length".into(), self.gguf.needed(&context)?.into());
        if let Some(template) = self.gguf.text(key::TEMPLATE)? {
            config.insert("chat_template".into(), template.into());
        }
        config.insert("added_tokens_decoder".into(), added.into());
        for task in ["bos", "eos", "unk", "pad"] {
            if let Some(id) = self.special(task) {
                config.insert(format!("{task}_token"), self.texts[id].as_str().into());
            }
        }
        Ok(Value::Object(config))
    }
}

fn added_token(text: &str, special: bool) -> Map<String, Value> {
    let entry = json!({
        "content": text, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": special,
    });
    match entry {
        Value::Object(entry) => entry,
        _ => Map::new(),
    }
}
