//! What to do about tensors that stand where those of a model should.
use crate::model::{Model, ModelError, OpenError, WeightStore};
use serde_json::Value;

const ADAPTER: &str = "the tensors of an adapter stand beside those of its base: merge them first, with peft: `AutoPeftModelForCausalLM.from_pretrained(FOLDER).merge_and_unload().save_pretrained(OUT)`";
const CODES: &str =
    "codes of GPTQ or AWQ are not read: give the float checkpoint that it was made from";
const NO_QUANTIZATION: &str = "weights are codes, and config.json has no `quantization_config`: fetch config.json of the same version again";
const MULTIMODAL: &str = "only language models are read: save the language part of this one alone, with transformers: `model.language_model` with `AutoModelForCausalLM`'s config";
const WRAPPED: &str = "the model was saved from inside a wrapper (torch.compile, DDP or FSDP), whose name stands before every tensor: save the inner model, `model._orig_mod` or `model.module`";
const BARE: &str = "the model was saved without its head, as the base model: save it again with transformers: `AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(OUT)`";

/// Parts of a tensor's name, where they stand in it, and what to do.
const SIGNS: &[(Place, &str, &str)] = &[
    (contains, ".lora_", ADAPTER),
    (ends_with, ".qweight", CODES),
    (ends_with, ".weight_packed", NO_QUANTIZATION),
    (starts_with, "language_model.", MULTIMODAL),
    (starts_with, "model.language_model.", MULTIMODAL),
    (starts_with, "_orig_mod.", WRAPPED),
    (starts_with, "module.", WRAPPED),
    (starts_with, "_fsdp_wrapped_module.", WRAPPED),
    (starts_with, "layers.0.", BARE),
];

/// Whether a name holds a sign in its place.
type Place = fn(&str, &str) -> bool;

fn contains(name: &str, sign: &str) -> bool {
    name.contains(sign)
}

fn starts_with(name: &str, sign: &str) -> bool {
    name.starts_with(sign)
}

fn ends_with(name: &str, sign: &str) -> bool {
    name.ends_with(sign)
}

/// A tensor of the architecture that is missing, with one that tells why.
#[derive(Debug)]
pub(crate) struct Foreign {
    pub(crate) missing: String,
    pub(crate) found: String,
    pub(crate) hint: &'static str,
}

/// A model of these parts, or what its tensors tell where one is missing.
pub(crate) fn model(
    config: Value,
    weights: WeightStore,
) -> Result<Model, Result<Foreign, OpenError>> {
    let quantized = !weights.quantized.is_empty();
    let names: Vec<String> = weights.raw.keys().cloned().collect();
    Model::new(config, weights).map_err(|error| {
        let OpenError::Model(ModelError::Missing { name }) = &error else { return Err(error) };
        let signs = SIGNS.iter().filter(|(_, _, hint)| !quantized || *hint != NO_QUANTIZATION);
        let found = signs
            .filter_map(|(told, sign, hint)| Some((names.iter().find(|it| told(it, sign))?, hint)))
            .map(|(found, hint)| (found.clone(), *hint))
            .next();
        match found {
            Some((found, hint)) => Ok(Foreign { missing: name.clone(), found, hint }),
            None => Err(error),
        }
    })
}
