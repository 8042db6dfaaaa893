//! The text of an evaluation: read, tokenized, cut into windows.
use super::Settings;
use crate::{
    calibrate::bundled,
    eval::{
        Encoder, KldReference, LogitSource, Plan, PlanSettings, Protocol, StoredKey,
        StoredReference,
    },
    package::{self, Opened},
    report::Method,
    scheme::KvPrecision,
    tensor::Bytes,
    text::{Document, Form, JOIN, Text, Tokenizer},
};
use std::path::{Path, PathBuf};

/// The text as the model's tokenizer has it, and what identifies that.
pub(super) struct Task {
    pub(super) text: Text,
    pub(super) key: StoredKey,
    pub(super) joined_ids: Vec<u32>,
}

impl Task {
    pub(super) fn prepare(
        model: &str,
        opened: &Opened,
        settings: &Settings,
    ) -> anyhow::Result<(Self, Plan)> {
        let tokenizer = opened.tokenizer()?;
        let text = read_text(&settings.text, settings.text_form, tokenizer)?;
        let limit = opened.model.spec.max_positions;
        let ctx = settings.ctx.unwrap_or_else(|| 2048.min(limit.max(2)));
        if ctx > limit {
            tracing::warn!("windows of {ctx} tokens: the model was made for {limit}");
        }
        let protocol = Protocol::find(&settings.protocol)?;
        let sizes = PlanSettings { ctx, stride: settings.stride, windows: settings.windows };
        let plan = with_encoder(tokenizer, |encoder| protocol.plan(&text, encoder, sizes))?;
        let key = StoredKey {
            protocol: protocol.name.to_owned(),
            ctx,
            windows: plan.windows.len(),
            vocab: opened.model.spec.vocab,
            ..StoredKey::new(model, &text.sha256, opened.tokenizer_sha256()?)
        };
        let joined_ids = encode_sample(tokenizer, &text)?;
        Ok((Self { text, key, joined_ids }, plan))
    }

    pub(super) fn method(&self, settings: &Settings, plan: &Plan, kv_cache: KvPrecision) -> Method {
        let strided = settings.protocol == "strided";
        Method {
            protocol: self.key.protocol.clone(),
            ctx: self.key.ctx,
            stride: strided.then(|| settings.stride.unwrap_or(self.key.ctx / 2)),
            windows: plan.windows.len(),
            text_tokens: plan.text_tokens,
            bos: plan.bos,
            text: settings.text.iter().map(|path| path.display().to_string()).collect(),
            text_form: self.text.form,
            join: JOIN.into(),
            data_sha256: self.key.data_sha256.clone(),
            tokenizer_sha256: self.key.tokenizer_sha256.clone(),
            kv_cache,
            backend: settings.backend.isa().into(),
        }
    }
}

pub(super) const NO_TEXT: &str =
    "no text to measure on\nhint: name a file with `--text`, or `builtin:en`";

fn read_text(paths: &[PathBuf], form: Form, tokenizer: &Tokenizer) -> anyhow::Result<Text> {
    let files: Vec<(String, Bytes)> = paths
        .iter()
        .map(|path| {
            let name = path.display().to_string();
            let bytes = match bundled(&name) {
                Some(text) => Bytes::fixed(text.as_bytes()),
                None => Bytes::map(path)?,
            };
            Ok((name, bytes))
        })
        .collect::<anyhow::Result<_>>()?;
    let files: Vec<(&str, &[u8])> =
        files.iter().map(|(name, bytes)| (name.as_str(), &**bytes)).collect();
    let render = |record: &serde_json::Value| {
        tokenizer.render_record(record).map_err(|error| error.to_string())
    };
    Ok(Text::read(&files, form, &render)?)
}

fn with_encoder<T>(tokenizer: &Tokenizer, use_it: impl FnOnce(&Encoder<'_>) -> T) -> T {
    let encode = |document: &Document| {
        tokenizer.encode_document(document).map_err(|error| error.to_string())
    };
    let eos = tokenizer.eos().first().copied();
    use_it(&Encoder { encode: &encode, bos: tokenizer.bos(), eos })
}

/// Ids of the beginning of the text, by which tokenizers are compared.
pub(super) fn encode_sample(tokenizer: &Tokenizer, text: &Text) -> anyhow::Result<Vec<u32>> {
    Ok(tokenizer.encode_document(&text.beginning(1 << 16))?)
}

/// What a model is compared with.
pub(super) enum Reference {
    Model(Box<Opened>),
    Stored(Box<dyn LogitSource>),
}

impl Reference {
    /// Opens a model or a stored file; refuses one that is not comparable.
    pub(super) fn open(name: &str, task: &Task, plan: &Plan) -> anyhow::Result<Self> {
        let path = Path::new(name);
        if path.is_file() {
            let bytes = Bytes::map(path)?;
            if KldReference::is(&bytes) {
                let stored = KldReference::open(name, bytes)?;
                stored.check(task.key.vocab, &plan.windows)?;
                return Ok(Self::Stored(Box::new(stored)));
            }
            let mut stored = StoredReference::open(name, &bytes)?;
            stored.check(&task.key, &plan.windows)?;
            return Ok(Self::Stored(Box::new(stored)));
        }
        let opened = package::open(name)?;
        if opened.tokenizer_sha256()? != task.key.tokenizer_sha256 {
            let ids = encode_sample(opened.tokenizer()?, &task.text)?;
            anyhow::ensure!(
                ids == task.joined_ids,
                "the tokenizers of the model and of `{name}` give other tokens\n\
                 hint: only models with one tokenizer can be compared token by token"
            );
        }
        Ok(Self::Model(Box::new(opened)))
    }
}
