//! `config.json` and `generation_config.json` from the metadata of a GGUF file.
use super::{
    arch::Arch,
    error::ContentError,
    experts,
    file::{Gguf, missing},
    gemma3,
    keys::Keys,
    names::{ROPE_FACTORS, gguf_name, key},
    tokens::Tokens,
};
use crate::{
    model::{Part, Role},
    tensor::FloatType,
};
use serde_json::{Map, Value, json};

/// The config of the Hugging Face directory.
pub(super) fn config(
    gguf: &Gguf,
    tokens: &Tokens<'_>,
    float: FloatType,
) -> Result<Value, ContentError> {
    let arch = gguf.architecture()?;
    let unknown = || ContentError::Architecture { found: arch.to_owned() };
    let arch = Arch::of(arch).ok_or_else(unknown)?;
    let keys = Keys { gguf, arch };
    let hidden = keys.needed(key::HIDDEN)?;
    let heads = keys.per_block(key::HEADS)?;
    let heads = heads.ok_or_else(|| missing(&keys.key(key::HEADS)))?;
    let first = heads.get(0).unwrap_or(&heads).as_u64().unwrap_or(1).max(1);
    let head_dim = head_dim(&keys, hidden / first)?;
    let width = keys.per_block(key::MLP_WIDTH)?;
    let width = width.ok_or_else(|| missing(&keys.key(key::MLP_WIDTH)))?;
    let eps = key::NORM_EPS;
    let eps = keys.number(eps)?.ok_or_else(|| missing(&keys.key(eps)))?;
    let context = keys.needed(key::CONTEXT)?;
    let embedding = gguf_name((None, Role::Embed, None, Part::Weight)).unwrap_or_default();
    let vocab = gguf.tensor(&embedding).map(|tensor| tensor.shape[0]);
    let vocab = vocab.ok_or(ContentError::NoTensor { name: embedding })?;
    if tokens.len() > vocab {
        let why = format!("{} tokens, but the embedding has {vocab} rows", tokens.len());
        return Err(ContentError::Vocabulary { why });
    }
    let head = gguf_name((None, Role::Head, None, Part::Weight)).unwrap_or_default();
    let window = keys.size(key::WINDOW)?.filter(|window| *window > 0);
    let mut config = match arch {
        Arch::Gemma3 => {
            let own = gemma3::config(&keys, window, [hidden, first, head_dim])?;
            own.as_object().cloned().unwrap_or_default()
        }
        _ => family(&keys, window)?,
    };
    let shape = json!({
        "hidden_size": hidden,
        "initializer_range": 0.02,
        "intermediate_size": width,
        "max_position_embeddings": context,
        "num_key_value_heads":
            keys.per_block(key::KV_HEADS)?.unwrap_or_else(|| heads.clone()),
        "num_attention_heads": heads,
        "num_hidden_layers": keys.needed(key::BLOCKS)?,
        "head_dim": head_dim,
        "rms_norm_eps": eps,
        "rope_theta": keys.number(key::THETA)?.unwrap_or(10_000.0),
        "rope_scaling": rope_scaling(&keys, head_dim, context)?,
        "tie_word_embeddings": gguf.tensor(&head).is_none(),
        "use_cache": true,
        "vocab_size": vocab,
        "torch_dtype": float.config_name(),
    });
    if arch != Arch::Gemma3 {
        config.insert("hidden_act".into(), "silu".into());
    }
    for part in [shape, tokens.special_ids()] {
        extend(&mut config, part);
    }
    Ok(Value::Object(config))
}

/// `generation_config.json`: as the config, and a text also ends where a turn of a chat does.
pub(super) fn generation_config(tokens: &Tokens<'_>) -> Value {
    let mut ids = tokens.special_ids();
    if let (Some(eos), Some(eot)) = (tokens.special("eos"), tokens.special("eot"))
        && eos != eot
    {
        ids["eos_token_id"] = json!([eos, eot]);
    }
    ids
}

fn extend(config: &mut Map<String, Value>, more: Value) {
    if let Value::Object(more) = more {
        config.extend(more);
    }
}

/// The architecture and the switches that set it apart.
fn family(keys: &Keys<'_>, window: Option<u64>) -> Result<Map<String, Value>, ContentError> {
    let mut config = Map::new();
    if let Some(mixture) = experts::config(keys, window)? {
        extend(&mut config, mixture);
    } else {
        extend(&mut config, dense(keys, window)?);
    }
    if !keys.arch.interleaved() || window.is_some() {
        extend(
            &mut config,
            json!({
                "sliding_window": window, "use_sliding_window": window.is_some(),
                "max_window_layers": 0,
            }),
        );
    }
    Ok(config)
}

/// The architecture of a dense model.
fn dense(keys: &Keys<'_>, window: Option<u64>) -> Result<Value, ContentError> {
    let bias = |role| keys.has(role, Part::Bias);
    let (qkv, o) = (bias(Role::Q) || bias(Role::K) || bias(Role::V), bias(Role::O));
    let mlp = bias(Role::Gate) || bias(Role::Up) || bias(Role::Down);
    Ok(match (keys.arch.interleaved(), window) {
        (false, _) if keys.arch == Arch::Qwen2 => {
            json!({ "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2" })
        }
        (false, _) => json!({
            "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "attention_bias": qkv || o,
        }),
        // Biases of the queries, keys and values alone are Qwen2's, whose arithmetic is the same.
        (true, None) if qkv && !o && !mlp => {
            json!({ "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2" })
        }
        (true, None) => json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama",
            "attention_bias": qkv || o, "mlp_bias": mlp,
        }),
        (true, Some(_)) if !qkv && !o && !mlp => json!({
            "architectures": ["MistralForCausalLM"], "model_type": "mistral",
        }),
        (true, Some(_)) => {
            let why = "no architecture has a window and biases";
            return Err(keys.unsupported(key::WINDOW, why));
        }
    })
}

/// The width of a head: of keys, of values and of the rotation, which must be one.
fn head_dim(keys: &Keys<'_>, even: u64) -> Result<u64, ContentError> {
    let head_dim = keys.size(key::KEY_WIDTH)?.unwrap_or(even);
    for leaf in [key::VALUE_WIDTH, key::ROTARY_WIDTH] {
        if let Some(other) = keys.size(leaf)?.filter(|other| *other != head_dim) {
            let why = format!("{other}, while heads are {head_dim} wide");
            return Err(keys.unsupported(leaf, why));
        }
    }
    Ok(head_dim)
}

fn rope_scaling(keys: &Keys<'_>, head_dim: u64, context: u64) -> Result<Value, ContentError> {
    let kind = keys.gguf.text(&keys.key(key::SCALING))?;
    let factor = match keys.number(key::SCALING_FACTOR)? {
        None => keys.number("rope.scale_linear")?,
        found => found,
    };
    let factor = factor.filter(|factor| (factor - 1.0).abs() > f64::EPSILON && *factor > 0.0);
    let original = keys.size(key::SCALING_ORIGINAL)?;
    let scaling = match (kind, factor) {
        (Some("none"), _) | (None | Some("linear" | "yarn"), None) => Value::Null,
        (None | Some("linear"), Some(factor)) => json!({"rope_type": "linear", "factor": factor}),
        (Some("yarn"), Some(factor)) => yarn(keys, factor, original.unwrap_or(context))?,
        (Some(other), _) => {
            return Err(keys.unsupported(key::SCALING, format!("`{other}` is not known")));
        }
    };
    match rope_factors(keys, head_dim)? {
        None => Ok(scaling),
        Some(factors) if scaling.is_null() => Ok(json!({
            "rope_type": "longrope", "short_factor": factors, "long_factor": factors,
            "factor": 1.0, "attention_factor": 1.0, "original_max_position_embeddings": context,
        })),
        Some(_) => Err(ContentError::Unsupported {
            what: format!("tensor `{ROPE_FACTORS}`"),
            why: "the metadata scales the rotation in another way, too".into(),
        }),
    }
}

fn yarn(keys: &Keys<'_>, factor: f64, original: u64) -> Result<Value, ContentError> {
    let mut yarn = Map::new();
    extend(
        &mut yarn,
        json!({
            "rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original,
        }),
    );
    for (leaf, name) in [(key::YARN_FAST, "beta_fast"), (key::YARN_SLOW, "beta_slow")] {
        if let Some(value) = keys.number(leaf)? {
            yarn.insert(name.into(), value.into());
        }
    }
    // llama.cpp multiplies this into the factor that both compute.
    for leaf in ["attn_factor", "yarn_attn_factor"] {
        if let Some(times) = keys.number(&format!("rope.scaling.{leaf}"))? {
            yarn.insert("attention_factor".into(), (times * (1.0 + 0.1 * factor.ln())).into());
        }
    }
    if keys.number("rope.scaling.yarn_ext_factor")?.is_some_and(|mix| (mix - 1.0).abs() > 1e-6) {
        return Err(keys.unsupported("rope.scaling.yarn_ext_factor", "no config says it"));
    }
    Ok(Value::Object(yarn))
}

/// Divisors of the rotary frequencies. Llama 3.1's are written this way, and those of pruned
/// heads; a list of ones says nothing.
fn rope_factors(keys: &Keys<'_>, head_dim: u64) -> Result<Option<Vec<f64>>, ContentError> {
    let Some(tensor) = keys.gguf.tensor(ROPE_FACTORS) else { return Ok(None) };
    let expected = vec![head_dim as usize / 2];
    if tensor.shape != expected {
        let (tensor, found) = (ROPE_FACTORS.to_owned(), tensor.shape.clone());
        return Err(ContentError::Shape { tensor, expected, found });
    }
    let mut factors = vec![0.0; expected[0]];
    tensor.format.decode(&tensor.bytes, &mut factors);
    if let Some(wrong) = factors.iter().find(|f| !f.is_finite() || **f <= 0.0) {
        return Err(ContentError::Unsupported {
            what: format!("tensor `{ROPE_FACTORS}`"),
            why: format!("a frequency cannot be divided by {wrong}"),
        });
    }
    let changed = factors.iter().any(|f| (f - 1.0).abs() > f32::EPSILON);
    Ok(changed.then(|| factors.into_iter().map(f64::from).collect()))
}
