//! How a budget was spread: what packages and journals hold of it.
use crate::quantize::{Candidates, Rule, Unit};
use serde::{Deserialize, Serialize};

/// How schemes were chosen within a budget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Allocation {
    /// Bytes that might be used.
    pub budget: u64,
    /// Bytes of all tensors of the package.
    pub bytes: u64,
    /// The same in bits per weight.
    pub bits_per_weight: f64,
    /// Tokens that losses were measured on.
    pub tokens: usize,
    /// Sum of the losses, nats: an estimate.
    pub loss: f64,
    /// Every unit.
    pub units: Vec<UnitLoss>,
}

impl Allocation {
    /// What [`plan`](crate::quantize::plan()) is told; `candidates` are those that it was made of.
    pub fn rules(&self, candidates: &Candidates) -> Vec<Rule> {
        let place = |(unit, told): (&Unit, &UnitLoss)| {
            unit.choices.iter().position(|it| it.scheme == told.scheme).unwrap_or(0)
        };
        let chosen: Vec<usize> = candidates.units.iter().zip(&self.units).map(place).collect();
        candidates.rules(&chosen)
    }
}

/// What a unit loses and gets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnitLoss {
    /// The unit.
    pub unit: String,
    /// Number of its weights.
    pub weights: u64,
    /// The scheme that it gets.
    pub scheme: String,
    /// The scheme that its loss was measured with.
    pub measured: String,
    /// What it might get, with the loss, nats per token.
    pub choices: Vec<ChoiceLoss>,
}

/// A scheme that a unit might get.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChoiceLoss {
    /// The scheme.
    pub scheme: String,
    /// Bytes of the unit.
    pub bytes: u64,
    /// Estimated loss, nats per token.
    pub loss: f64,
}
