//! What all forms show of a result.
use super::{EvalReport, rows};
use crate::eval::GateResult;

/// A result for people and pipelines, whatever was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Sheet<'a> {
    /// The model, as it was named.
    pub model: &'a str,
    /// What it was compared with.
    pub reference: Option<&'a str>,
    /// Figures by name, the main ones first.
    pub figures: Vec<(String, String)>,
    /// The gates that were asked for.
    pub gates: &'a [GateResult],
    /// Every gate was passed; true without gates.
    pub passed: bool,
    /// How it was measured, in words.
    pub method: String,
}

impl EvalReport {
    /// What tables show of it.
    pub fn sheet(&self) -> Sheet<'_> {
        Sheet {
            model: &self.model,
            reference: self.reference.as_deref(),
            figures: rows::figures(self)
                .into_iter()
                .map(|(name, it)| (name.to_owned(), it))
                .collect(),
            gates: &self.gates,
            passed: self.passed,
            method: rows::method(self),
        }
    }
}
