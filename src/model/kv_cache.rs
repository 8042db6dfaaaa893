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
    match scheme.get("num_bits").and_then(serde_json::Value::as_u64) {
        Some(8) => Ok(KvPrecision::Int8),
        Some(4) => Ok(KvPrecision::Int4),
        _ => Err(unfit(KEY, "4 or 8 bits", scheme)),
    }
}
