//! States what a `config.json` leaves out. Engines fill gaps in with defaults of their own; what
//! leaves this program says them.
use super::{
    Activation, Config, ConfigError, FAMILIES, Family, Op, Switch, blocks, supported, unfit,
    window::{FULL, KINDS, SLIDING, USED, WINDOW, WindowRule, Windowed},
};
use crate::model::{rope, rope_kinds};
use serde_json::{Map, Value, json};

/// The family of a `config.json`, and the same file with every key that the family reads: absent
/// ones and `null` replaced by what transformers takes for them, old names beside new ones, one of
/// two forms where both stand there. What is complete stays as it is.
pub fn complete(config: &Value) -> Result<(&'static Family, Value), ConfigError> {
    let family = Family::of(Config(config))?;
    let mut keys = config.as_object().cloned().ok_or(ConfigError::NotAnObject)?;
    family.refused(Config(config))?;
    if Config(config).get("architectures").is_none_or(|list| list.get(0).is_none()) {
        keys.insert("architectures".to_owned(), json!([family.architecture]));
    }
    state(&mut keys, "model_type", || family.model_type.into());
    family.numbers(&mut keys)?;
    family.experts(&mut keys)?;
    if let Some((key, theta)) = family.local_rope {
        rope_kinds::by_kind(&mut keys, [SLIDING, FULL], (key, theta))?;
    }
    rope::complete(&mut keys, family.defaults.rope_theta)?;
    let mut config = Value::Object(keys);
    family.windows(&mut config)?;
    Ok((family, config))
}

/// Sets a key that is absent or `null`.
fn state(keys: &mut Map<String, Value>, key: &str, value: impl FnOnce() -> Value) {
    if keys.get(key).is_none_or(Value::is_null) {
        keys.insert(key.to_owned(), value());
    }
}

impl Family {
    /// Names of the activation of its gates, the first is its own.
    fn activations(&self) -> &'static [&'static str] {
        let gelu = self.mlp.contains(&Op::Gate(Activation::GeluTanh));
        if gelu { &["gelu_pytorch_tanh"] } else { &["silu", "swish"] }
    }

    /// Keys that change what is computed in a way that is not followed.
    fn refused(&self, config: Config<'_>) -> Result<(), ConfigError> {
        let (key, known) = (self.activation_key, self.activations());
        let is_known = |it: &&Value| it.as_str().is_some_and(|it| known.contains(&it));
        if let Some(act) = config.get(key).filter(|it| !is_known(it)) {
            return Err(unfit(key, format!("`{}`", known[0]), act));
        }
        for key in self.refused {
            if let Some(found) = config.get(key).filter(|it| **it != Value::Bool(false)) {
                return Err(unfit(key, "nothing, `null` or `false`: it is not supported", found));
            }
        }
        let own = config.get("per_layer_config");
        match own.filter(|it| it.as_object().is_none_or(|keys| !keys.is_empty())) {
            Some(own) => Err(unfit("per_layer_config", "no settings of single layers", own)),
            None => Ok(()),
        }
    }

    /// The family that `architectures` and `model_type` name.
    pub(super) fn of(config: Config<'_>) -> Result<&'static Self, ConfigError> {
        if !config.0.is_object() {
            return Err(ConfigError::NotAnObject);
        }
        let found = config.architecture().ok_or(ConfigError::Missing { key: "architectures" })?;
        let family = FAMILIES.iter().find(|f| f.architecture == found || f.model_type == found);
        let family = family.ok_or_else(|| ConfigError::Architecture {
            found: found.to_owned(),
            supported: supported().join(", "),
        })?;
        // transformers goes by the type, vLLM by the architecture.
        let kind = config.get("model_type").and_then(Value::as_str);
        match FAMILIES.iter().find(|it| Some(it.model_type) == kind) {
            Some(other) if other.model_type != family.model_type => {
                let expected = format!("`{}`, as `{found}` has it", family.model_type);
                Err(unfit("model_type", expected, &other.model_type.into()))
            }
            _ => Ok(family),
        }
    }

    fn numbers(&self, keys: &mut Map<String, Value>) -> Result<(), ConfigError> {
        let defaults = self.defaults;
        state(keys, "rms_norm_eps", || defaults.norm_eps.into());
        state(keys, "max_position_embeddings", || defaults.positions.into());
        state(keys, "tie_word_embeddings", || defaults.tied.into());
        state(keys, self.activation_key, || self.activations()[0].into());
        if let Some((key, width)) = self.score_width {
            state(keys, key, || width.into());
        }
        for switch in [self.qkv_bias, self.o_bias, self.mlp_bias] {
            if let Switch::Key(key, default) = switch {
                state(keys, key, || default.into());
            }
        }
        // A list has an entry for each block and goes with lists of the others.
        let heads = keys.get("num_attention_heads").filter(|it| it.is_u64()).cloned();
        let Some(heads) = heads else { return Ok(()) };
        let absent = !keys.contains_key("num_key_value_heads");
        let kv_heads = defaults.kv_heads.filter(|_| absent);
        state(keys, "num_key_value_heads", || kv_heads.map_or(heads.clone(), Value::from));
        if defaults.head_dim.is_some() || keys.get("head_dim").is_some_and(Value::is_null) {
            let hidden = Config(&Value::Object(keys.clone())).size("hidden_size")?;
            let even = hidden / heads.as_u64().map_or(1, |it| it.max(1) as usize);
            state(keys, "head_dim", || defaults.head_dim.unwrap_or(even).into());
        }
        Ok(())
    }

    fn experts(&self, keys: &mut Map<String, Value>) -> Result<(), ConfigError> {
        let Some(rule) = self.experts else { return Ok(()) };
        state(keys, "num_experts_per_tok", || rule.per_token.into());
        if let Switch::Key(key, default) = rule.normalize {
            state(keys, key, || default.into());
        }
        if rule.some_dense {
            state(keys, "decoder_sparse_step", || 1.into());
            state(keys, "mlp_only_layers", || json!([]));
        }
        let counts = ["num_experts", "num_local_experts"].map(|key| keys.get(key).cloned());
        let counts: Vec<Value> = counts.into_iter().flatten().filter(|it| !it.is_null()).collect();
        match counts.as_slice() {
            [one, other] if one != other => {
                Err(unfit("num_experts", format!("{other}, as `num_local_experts`"), one))
            }
            [count, ..] => {
                state(keys, rule.count, || count.clone());
                Ok(())
            }
            [] => Ok(()),
        }
    }

    fn windows(&self, config: &mut Value) -> Result<(), ConfigError> {
        let blocks = blocks(Config(config))?;
        kinds(config, blocks)?;
        let Some(rule) = self.window else { return Ok(()) };
        let used = !rule.if_used || Config(config).flag(USED, false)?;
        if let Some(default) = rule.default.filter(|_| used && config.get(WINDOW).is_none()) {
            config[WINDOW] = default.into();
        }
        if let Windowed::AllButEvery(key, _) = rule.unlisted {
            return listed_pattern(config, (rule, key), blocks);
        }
        if rule.if_used && used && rule.listed {
            let kind = |b| Ok(if rule.read(Config(config), b)?.is_some() { SLIDING } else { FULL });
            let kinds = (0..blocks).map(kind).collect::<Result<Vec<_>, ConfigError>>()?;
            config[KINDS] = json!(kinds);
        }
        Ok(())
    }
}

/// `layer_types` by a pattern; where both stand there, they agree.
fn listed_pattern(
    config: &mut Value,
    (rule, key): (WindowRule, &str),
    blocks: usize,
) -> Result<(), ConfigError> {
    let by_pattern = WindowRule { listed: false, ..rule };
    let kind = |b| Ok(if by_pattern.read(Config(config), b)?.is_some() { SLIDING } else { FULL });
    if let (Some(found), Some(every)) = (Config(config).get(KINDS), Config(config).get(key)) {
        for b in 0..blocks {
            let expected = kind(b)?;
            if found.get(b).is_some_and(|found| found != expected) {
                let expected = format!("`{expected}`, as `{key}` = {every} has it");
                return Err(unfit(&format!("{KINDS}[{b}]"), expected, &found[b]));
            }
        }
    } else if Config(config).get(KINDS).is_none() {
        let kinds = (0..blocks).map(kind).collect::<Result<Vec<_>, ConfigError>>()?;
        config[KINDS] = json!(kinds);
    }
    Ok(())
}

/// `layer_types` has an entry for each block that means a kind of attention.
fn kinds(config: &mut Value, blocks: usize) -> Result<(), ConfigError> {
    let Some(list) = Config(config).get(KINDS) else { return Ok(()) };
    let kind = |it: &Value| match it.as_str() {
        Some("attention" | FULL) => Some(FULL),
        Some(SLIDING) => Some(SLIDING),
        _ => None,
    };
    let found: Option<Vec<_>> = list.as_array().and_then(|list| list.iter().map(kind).collect());
    let Some(found) = found.filter(|it| it.len() == blocks) else {
        let expected = format!("{blocks} entries, each `{FULL}` or `{SLIDING}`");
        return Err(unfit(KINDS, expected, list));
    };
    config[KINDS] = json!(found);
    Ok(())
}
