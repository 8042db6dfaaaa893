//! Which gates are asked for.
use crate::{
    eval::{Fraction, Gate, read_gates},
    number::{Expected, number},
    tensor::read_text,
};
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Bounds that must be kept. Every field is a flag and a recipe key of the same name.
#[derive(clap::Args, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(crate) struct GateSettings {
    /// Largest mean KL divergence from the reference, nats
    #[arg(long, value_name = "X", value_parser = number::<f64>(0.0..))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_kl: Option<f64>,
    /// Largest growth of the perplexity over the reference's, e.g. 2% or 0.02
    #[arg(long, value_name = "X")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_ppl_increase: Option<Fraction>,
    /// Smallest share of tokens with the reference's first choice, e.g. 93% or 0.93
    #[arg(long, value_name = "X", value_parser = share)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) min_top1: Option<Fraction>,
    /// Any other, e.g. "ceval >= 0.31", "hellaswag:acc_norm loss <= 1%", "ceval/law recovery >=
    /// 95% by-interval"; may be repeated
    #[arg(long, value_name = "GATE")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) gate: Vec<Gate>,
    /// File with a gate in each line
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) gates: Option<PathBuf>,
}

/// A share of the whole, which is within.
fn share(text: &str) -> Result<Fraction, Expected> {
    let expected = || Expected("a share from 0 to 100%, e.g. 93% or 0.93".to_owned());
    text.parse().ok().filter(|it| *it <= Fraction(1.0)).ok_or_else(expected)
}

impl GateSettings {
    /// All of them.
    pub(super) fn all(&self) -> anyhow::Result<Vec<Gate>> {
        let increase = self.max_ppl_increase.map(|it| Gate::most("ppl-increase", it.0));
        let kl = self.max_kl.map(|limit| Gate::most("kl", limit));
        let top1 = self.min_top1.map(|it| Gate::least("top1", it.0));
        let file = match &self.gates {
            Some(path) => {
                let text = read_text(path, "name a file with a gate in each line")?;
                read_gates(&text).with_context(|| format!("in `{}`", path.display()))?
            }
            None => vec![],
        };
        let flags = [increase, kl, top1].into_iter().flatten();
        Ok(flags.chain(self.gate.clone()).chain(file).collect())
    }

    /// All that can be asked for, each to something.
    #[cfg(test)]
    pub(super) fn full() -> Self {
        Self {
            max_kl: Some(0.1),
            max_ppl_increase: Some(Fraction(0.1)),
            min_top1: Some(Fraction(0.1)),
            gate: vec![Gate::most("ppl", 30.0)],
            gates: Some("g".into()),
        }
    }
}
