//! Which engines load a shape, before it is made.
use crate::model::ModelSpec;
use serde::Serialize;
use serde_json::Value;

/// Whether an engine loads a model of some shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EngineFit {
    /// Its name.
    pub engine: &'static str,
    /// Why it does not, if it does not.
    pub loads: Result<(), String>,
    /// What else is to be known.
    pub note: &'static str,
}

impl EngineFit {
    /// Whether an engine loads a shape, which it does without a refusal.
    pub(super) fn new(engine: &'static str, refusal: Option<String>, note: &'static str) -> Self {
        Self { engine, loads: refusal.map_or(Ok(()), Err), note }
    }
}

/// Rotary pairs that differ by head.
pub(super) fn kept_pairs(spec: &ModelSpec, config: &Value) -> Option<String> {
    let planned = ["rope_parameters", "rope_scaling"].iter().any(|key| {
        let kind = config.get(key).and_then(|nested| nested.get("rope_type"));
        kind.is_some_and(|kind| kind == "kept-pairs")
    });
    let differ = planned || spec.rope.kept.is_some();
    differ.then(|| "rotary pairs differ by head (--pairs shared)".to_owned())
}
