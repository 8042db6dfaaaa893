//! What vLLM would refuse of a package when it loads it.
//!
//! Source of the rules: vLLM's public sources of 2025 and 2026
//! (`model_executor/layers/quantization/compressed_tensors/` and `…/utils/marlin_utils.py`). vLLM
//! joins projections that see the same input into one layer, and asks for the scheme of the joined
//! one: by its own name, then by its class, then by the names of all its projections.
mod layer;

use super::engines::{VLLM, engines};
use crate::{
    model::Role,
    package::{Declared, Opened},
    scheme::Schemes,
};
use layer::{check_layer, groups, is_quantized, layers, module, named, target, texts};
use serde_json::Value;
use std::collections::BTreeMap;

/// One rule of an engine that a package does not keep.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Refusal {
    /// What it is about: modules, tensors or keys of `config.json`.
    pub places: Vec<String>,
    /// What was found and what the engine takes.
    pub reason: String,
    /// What to change.
    pub change: String,
    /// Whether it fails everywhere; otherwise it depends on the GPU and its kernels.
    pub always: bool,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let first = self.places.first().map_or("", String::as_str);
        write!(f, "`{first}`")?;
        if self.places.len() > 1 {
            write!(f, " and {} more", self.places.len() - 1)?;
        }
        write!(f, ": {} ({})", self.reason, self.change)
    }
}

/// Findings by reason, with all their places.
#[derive(Default)]
struct Findings(BTreeMap<(bool, String, String), Vec<String>>);

impl Findings {
    fn add(&mut self, always: bool, place: &str, reason: impl Into<String>, change: &str) {
        let key = (!always, reason.into(), change.to_owned());
        let places = self.0.entry(key).or_default();
        if places.last().is_none_or(|last| last != place) {
            places.push(place.to_owned());
        }
    }

    fn list(self) -> Vec<Refusal> {
        let each = self.0.into_iter().map(|((depends, reason, change), places)| Refusal {
            places,
            reason,
            change,
            always: !depends,
        });
        each.collect()
    }
}

/// Everything that vLLM would refuse.
pub fn vllm(opened: &Opened) -> Vec<Refusal> {
    let mut found = Findings::default();
    let (model, config) = (&opened.model, &opened.model.config);
    // Its quantized weights are looked at layer by layer below.
    let shape = Declared { spec: &model.spec, config, schemes: &Schemes::new() };
    for fit in engines(shape).into_iter().filter(|it| it.engine == VLLM) {
        if let Err(reason) = fit.loads {
            found.add(true, "config.json", reason, "only this program loads such a model");
        }
    }
    // vLLM's MiMo leaves layers for multi-token prediction to a model of their own.
    let known = |it: &&str| it.ends_with("rotary_emb.inv_freq") || model.spec.is_extra_layer(it);
    for name in model.extras().into_iter().filter(|it| !known(it)) {
        let reason = "the architecture has no such tensor; loading stops at it";
        found.add(true, name, reason, "leave it out");
    }
    let Some(quantization) = config.get("quantization_config").filter(|it| !it.is_null()) else {
        return found.list();
    };
    whole(quantization, &mut found);
    let groups = groups(quantization);
    let ignore = texts(quantization.get("ignore"));
    tables(opened, &mut found);
    for layer in layers(opened) {
        let ignored: Vec<bool> = layer.shards.iter().map(|it| named(module(it), &ignore)).collect();
        let (all, any) = (ignored.iter().all(|it| *it), ignored.iter().any(|it| *it));
        if any && !all {
            let reason = "some of the joined projections are in `ignore` and some are not";
            found.add(true, &layer.name, reason, "quantize all of them or none");
        } else if all || named(&layer.name, &ignore) {
            if layer.shards.iter().any(|it| is_quantized(opened, it)) {
                let reason = "it is quantized, and `ignore` says that it is not";
                found.add(true, &layer.name, reason, "take it out of `ignore`");
            }
        } else if let Some(group) = target(&layer, &groups) {
            check_layer(opened, &layer, group, &mut found);
        } else {
            let reason = "no group of `config_groups` has it as a target";
            found.add(true, &layer.name, reason, "name it in a group or in `ignore`");
        }
    }
    found.list()
}

/// Keys that stand for the whole model.
fn whole(quantization: &Value, found: &mut Findings) {
    let kv = quantization.get("kv_cache_scheme").filter(|it| !it.is_null());
    let tensor = |kv: &&Value| kv["strategy"] == "tensor" && kv["symmetric"] == true;
    if let Some(kv) = kv.filter(|kv| !(tensor(kv) && kv["num_bits"] == 8)) {
        let (bits, strategy) = (&kv["num_bits"], kv["strategy"].as_str().unwrap_or("none"));
        let reason = format!(
            "keys and values of {bits} bits by `{strategy}`; taken are 8 bits, symmetric, one scale"
        );
        found.add(true, "kv_cache_scheme", reason, "--kv-cache float, and vLLM's --kv-cache-dtype");
    }
    let filled = |key: &str| {
        let value = quantization.get(key)?;
        let empty = value.as_object().is_none_or(serde_json::Map::is_empty);
        (!empty).then_some(())
    };
    if filled("transform_config").is_some() {
        let reason =
            "rotations at run time: only Hadamard matrices at linear layers, in new versions";
        found.add(false, "transform_config", reason, "put rotations into the weights");
    }
    if filled("sparsity_config").is_some() {
        let reason = "sparse weights: 2:4 only, and not in new versions";
        found.add(false, "sparsity_config", reason, "store them dense");
    }
    if quantization["quantization_status"] != "compressed" {
        let reason = "weights have to be stored as codes (`compressed`)";
        found.add(true, "quantization_status", reason, "save the model compressed");
    }
}

/// Embeddings and head.
fn tables(opened: &Opened, found: &mut Findings) {
    for tensor in opened.model.spec.tensors.iter().filter(|it| is_quantized(opened, it)) {
        let change = "--embeddings float";
        match tensor.role {
            Role::Embed => {
                let reason =
                    "an embedding at int8: most versions expect floats, new ones packed words";
                found.add(true, module(tensor), reason, change);
            }
            Role::Head => {
                let reason = "a quantized head: expected in float";
                found.add(true, module(tensor), reason, change);
            }
            _ => {}
        }
    }
}
