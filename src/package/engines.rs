//! Which engines load a model, before it is made.
use crate::{model::ModelSpec, scheme::Schemes};
use serde::Serialize;
use serde_json::Value;
use std::fmt::Display;

/// A model as it is declared: all that engines are asked about.
#[derive(Clone, Copy, Debug)]
pub struct Declared<'a> {
    /// Sizes and switches.
    pub spec: &'a ModelSpec,
    /// Its `config.json`.
    pub config: &'a Value,
    /// Its quantized weights; none of a float model.
    pub schemes: &'a Schemes,
}

/// Whether an engine loads a model.
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
    /// Whether an engine loads a model, by what refuses it; the hint behind its first line is for exports.
    pub(super) fn of<T, E: Display>(
        engine: &'static str,
        accepted: Result<T, E>,
        note: &'static str,
    ) -> Self {
        Self::new(engine, accepted.err().and_then(first_line), note)
    }

    /// Whether an engine loads a model, which it does without a refusal.
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

/// What an error says first.
pub(super) fn first_line(error: impl Display) -> Option<String> {
    error.to_string().lines().next().map(str::to_owned)
}
