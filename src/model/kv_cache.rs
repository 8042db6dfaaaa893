//! The precision of keys and values, as `config.json` says it.
use super::config::{Config, ConfigError, unfit};
use crate::scheme::KvPrecision;

const KEY: &str = "quantization_config.kv_cache_scheme";

/// Reads `kv_cache_scheme` of a compressed-tensors package. Schemes with scales of their own, which
/// other programs store, are left to those: float loses nothing.
pub(super) fn read_kv_cache(config: Config<'_>) -> Result<KvPrecision, ConfigError> {
    let scheme = config.get("quantization_config").and_then(|it| it.get("kv_cache_scheme"));
    let Some(scheme) = scheme.filter(|it| !it.is_null()) else { return Ok(KvPrecision::Float) };
    let is_ours = scheme.get("type").is_some_and(|it| it == "int")
        && scheme.get("dynamic").is_some_and(|it| it == true);
    if !is_ours {
        return Ok(KvPrecision::Float);
    }
    let number = |key| scheme.get(key).and_then(serde_json::Value::as_u64);
    let symmetric = scheme.get("symmetric").and_then(serde_json::Value::as_bool);
    let grouped = scheme.get("strategy").is_none_or(|it| it == "group");
    let fits = |precision: KvPrecision| {
        // A head is a group of its own at 8 bits, whatever its width.
        let size = number("group_size").is_none_or(|size| {
            precision.bits() == Some(8) || size as usize == precision.group_size(size as usize)
        });
        grouped && size && symmetric == Some(precision.bits() == Some(8))
    };
    match number("num_bits") {
        Some(8) if fits(KvPrecision::Int8) => Ok(KvPrecision::Int8),
        Some(4) if fits(KvPrecision::Int4) => Ok(KvPrecision::Int4),
        _ => Err(unfit(KEY, "8 bits, symmetric, or 4 bits with zero points, in groups", scheme)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn other_grids_are_refused_not_taken_for_ours() {
        let read = |change: fn(&mut Value)| {
            let mut scheme = json!({
                "type": "int", "dynamic": true, "num_bits": 4, "symmetric": false,
                "strategy": "group", "group_size": 32,
            });
            change(&mut scheme);
            let config = json!({ "quantization_config": { "kv_cache_scheme": scheme } });
            read_kv_cache(Config(&config))
        };
        assert_eq!(read(|_| ()).unwrap(), KvPrecision::Int4);
        for wrong in [
            |it: &mut Value| it["symmetric"] = json!(true),
            |it: &mut Value| it["strategy"] = json!("tensor"),
            |it: &mut Value| it["group_size"] = json!(64),
            |it: &mut Value| it["num_bits"] = json!(6),
            |it: &mut Value| it["num_bits"] = json!(8),
        ] {
            assert!(read(wrong).unwrap_err().to_string().contains("kv_cache_scheme"));
        }
        let fixed = |it: &mut Value| it["dynamic"] = json!(false);
        assert_eq!(read(fixed).unwrap(), KvPrecision::Float, "scales of another program");
    }
}
