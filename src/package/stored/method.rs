//! Which quantizations of other programs are read, and what to do about those that are not.
use super::{StoredError, fp8};
use crate::package::compressed_tensors;
use serde_json::Value;

const FLOAT: &str = "give the float checkpoint that it was made from; its name usually stands in the model card, or under `base_model` of README.md";
const BITSANDBYTES: &str = "give the float checkpoint that it was made from, or make one with transformers: `model = AutoModelForCausalLM.from_pretrained(FOLDER); model.dequantize().save_pretrained(OUT)`";
const MXFP4: &str = "give a float checkpoint, or make one with transformers: `AutoModelForCausalLM.from_pretrained(FOLDER, quantization_config=Mxfp4Config(dequantize=True)).save_pretrained(OUT)`";

/// Methods with a way of their own to a float checkpoint.
const HINTS: &[(&str, &str)] = &[("bitsandbytes", BITSANDBYTES), ("mxfp4", MXFP4)];

/// Refuses every `quant_method` that is not read.
pub(super) fn check(config: &Value) -> Result<(), StoredError> {
    let Some(quantization) = config.get("quantization_config").filter(|it| !it.is_null()) else {
        return Ok(());
    };
    // Without a name it is bitsandbytes, which says how many bits it loads in.
    let loads = |bits: &str| quantization.get(format!("load_in_{bits}bit")).is_some();
    let method = match quantization.get("quant_method") {
        Some(Value::String(name)) => name.clone(),
        None | Some(Value::Null) if loads("4") || loads("8") => "bitsandbytes".to_owned(),
        other => other.unwrap_or(&Value::Null).to_string(),
    };
    if [compressed_tensors::METHOD, fp8::METHOD].contains(&method.as_str()) {
        return Ok(());
    }
    let hint = HINTS.iter().find(|(name, _)| *name == method).map_or(FLOAT, |(_, hint)| hint);
    Err(StoredError::Method { method, hint })
}
