//! Gates: bounds that a measurement must keep for a pipeline to go on.
//!
//! ```text
//! kl <= 0.05
//! ceval >= 0.31 by-interval
//! hellaswag:acc_norm loss <= 1%
//! ceval/law recovery >= 95%
//! ```
//! A figure of a text or of a task; `loss` (base − candidate) or `recovery` (candidate ÷ base) of a
//! task; a bound; whether the 95 % interval's worse end must keep it, or the point.
mod fraction;

pub use fraction::Fraction;

use super::{EvalError, Figures, Perplexity, Ratio};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// What can be asked of a text; other names are tasks.
pub const TEXT_FIGURES: [&str; 5] = ["ppl", "ppl-increase", "kl", "top1", "top5"];

/// A bound on a figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Gate {
    /// `kl`, `ppl-increase`, `top1`, …, or `task[/group][:metric]`.
    pub figure: String,
    /// What of it.
    pub of: GateOf,
    /// At least the limit; otherwise at most.
    pub least: bool,
    /// The limit, within.
    pub limit: f64,
    /// The interval's worse end is compared, not the point.
    pub by_interval: bool,
}

/// What of a figure is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateOf {
    /// The figure itself.
    Value,
    /// Base − candidate, on the same items.
    Loss,
    /// Candidate ÷ base, on the same items.
    Recovery,
}

/// What is known of a figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// The figure.
    pub value: Ratio,
    /// Beside the base, when there is one.
    pub against: Option<Against>,
    /// Positions or questions of the run that have no number: no gate passes then.
    pub undefined: usize,
}

/// A candidate's figure beside the base's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Against {
    /// Base − candidate.
    pub loss: Ratio,
    /// Candidate ÷ base.
    pub recovery: Ratio,
    /// The base's figure.
    pub base: f64,
    /// The smallest loss that the sample would show.
    pub detectable: f64,
    /// Items.
    pub items: usize,
}

/// A bound and what was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GateResult {
    /// The gate: `max-kl`, `min-ceval-recovery`.
    pub gate: String,
    /// The bound.
    pub limit: f64,
    /// What was measured, not rounded; `null` in JSON when it is no number.
    pub value: Option<f64>,
    /// Whether the bound was kept; the bound itself is within.
    pub passed: bool,
    /// The interval of 95 %, where there is one and it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<[f64; 2]>,
    /// What readers should know: a sample that is too small.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Gate {
    /// At most `limit`.
    pub fn most(figure: &str, limit: f64) -> Self {
        let figure = figure.to_owned();
        Self { figure, of: GateOf::Value, least: false, limit, by_interval: false }
    }

    /// At least `limit`.
    pub fn least(figure: &str, limit: f64) -> Self {
        Self { least: true, ..Self::most(figure, limit) }
    }

    /// As results and files call it: `max-kl`, `min-ceval-recovery`.
    pub fn name(&self) -> String {
        let side = if self.least { "min" } else { "max" };
        let of = match self.of {
            GateOf::Value => "",
            GateOf::Loss => "-loss",
            GateOf::Recovery => "-recovery",
        };
        format!("{side}-{}{of}", self.figure)
    }

    /// The name of the task whose figure it is about.
    pub fn task(&self) -> &str {
        self.figure.split(['/', ':']).next().unwrap_or_default()
    }

    /// Whether it compares with a base.
    pub fn is_relative(&self) -> bool {
        self.of != GateOf::Value
    }

    /// Whether it is about a text; otherwise about a task.
    pub fn is_of_text(&self) -> bool {
        TEXT_FIGURES.contains(&self.figure.as_str())
    }

    /// Before any work: a limit that makes sense, a figure that will be measured, a reference where
    /// one is needed. `tasks` are those that will be run.
    pub fn check(&self, text: bool, tasks: &[&str], reference: bool) -> Result<(), EvalError> {
        let share = matches!(self.figure.as_str(), "top1" | "top5");
        if self.is_of_text() && !(0.0..=if share { 1.0 } else { f64::MAX }).contains(&self.limit) {
            return Err(EvalError::Gate { found: self.to_string() });
        }
        let known = if self.is_of_text() {
            text && !self.is_relative()
        } else {
            tasks.contains(&self.task())
        };
        if !known {
            return Err(EvalError::GateFigure { gate: self.to_string() });
        }
        let alone = !self.is_relative() && (!self.is_of_text() || self.figure == "ppl");
        if alone || reference { Ok(()) } else { Err(EvalError::NoReference { gate: self.name() }) }
    }

    /// Compares with what was measured. What is no number fails.
    pub fn judge(&self, measured: Option<&Measured>) -> Result<GateResult, EvalError> {
        let unknown = || EvalError::GateFigure { gate: self.to_string() };
        let measured = measured.ok_or_else(unknown)?;
        let against = || measured.against.ok_or(EvalError::NoReference { gate: self.name() });
        let figure = match self.of {
            GateOf::Value => measured.value,
            GateOf::Loss => against()?.loss,
            GateOf::Recovery => against()?.recovery,
        };
        let interval = figure.low.zip(figure.high).filter(|_| self.by_interval);
        if self.by_interval && interval.is_none() && measured.undefined == 0 {
            return Err(EvalError::NoInterval { gate: self.to_string() });
        }
        let tested = match interval {
            Some((low, high)) => {
                if self.least {
                    low
                } else {
                    high
                }
            }
            None => figure.value,
        };
        // Comparisons with NaN are false.
        let kept = if self.least { tested >= self.limit } else { tested <= self.limit };
        let undefined = (measured.undefined > 0).then(|| {
            let what = if self.is_of_text() {
                "scored positions have NaN or no distribution"
            } else {
                "questions gave NaN, counted as wrong"
            };
            format!("{} {what}", measured.undefined)
        });
        Ok(GateResult {
            gate: self.name(),
            limit: self.limit,
            value: figure.value.is_finite().then_some(figure.value),
            passed: kept && measured.undefined == 0,
            interval: interval
                .map(<[f64; 2]>::from)
                .filter(|it| it.iter().all(|end| end.is_finite())),
            note: undefined.or_else(|| measured.against.and_then(|it| self.too_small(&it))),
        })
    }

    /// Says when the sample cannot show a loss of the gate's size.
    fn too_small(&self, against: &Against) -> Option<String> {
        let margin = match self.of {
            GateOf::Value => return None,
            GateOf::Loss => self.limit,
            GateOf::Recovery => (1.0 - self.limit) * against.base,
        };
        (against.detectable > margin).then(|| {
            format!(
                "too small a sample: {} items show losses of {:.4} and more (power 80 %), the gate is \
                 about {margin:.4}",
                against.items, against.detectable
            )
        })
    }
}

impl Figures {
    /// What gates may ask of a text. `None` for other names, and without a reference for those that
    /// need one.
    pub fn measured(&self, figure: &str) -> Option<Measured> {
        let divergence = self.divergence.as_ref();
        let share = |value, ends: Option<[f64; 2]>| Ratio {
            value,
            low: ends.map(|it| it[0]),
            high: ends.map(|it| it[1]),
        };
        let value = match figure {
            "ppl" => {
                let Perplexity { value, low, high, .. } = self.perplexity;
                Ratio { value, low, high }
            }
            "ppl-increase" => divergence?.ppl_ratio.minus_one(),
            "kl" => divergence?.kl_mean.ratio(),
            "top1" => share(divergence?.top1_agreement, divergence?.top1_interval),
            "top5" => share(divergence?.top5_agreement, divergence?.top5_interval),
            _ => return None,
        };
        Some(Measured { value, against: None, undefined: self.undefined })
    }
}

impl FromStr for Gate {
    type Err = EvalError;
    fn from_str(text: &str) -> Result<Self, EvalError> {
        let wrong = || EvalError::Gate { found: text.to_owned() };
        let mut words = text.split_whitespace();
        let mut next = || words.next().ok_or_else(wrong);
        let figure = next()?.to_owned();
        let mut sign = next()?;
        let of = match sign {
            "loss" => GateOf::Loss,
            "recovery" => GateOf::Recovery,
            _ => GateOf::Value,
        };
        if of != GateOf::Value {
            sign = next()?;
        }
        let least = match sign {
            ">=" => true,
            "<=" => false,
            _ => return Err(wrong()),
        };
        let limit = next()?;
        let limit: f64 = match limit.strip_suffix('%') {
            Some(number) => number.parse::<f64>().map_err(|_| wrong())? / 100.0,
            None => limit.parse().map_err(|_| wrong())?,
        };
        let by_interval = match words.next() {
            Some("by-interval") => true,
            None => false,
            Some(_) => return Err(wrong()),
        };
        // A loss is kept small, a recovery large: the other way round is a slip.
        let sensible = of == GateOf::Value || least == (of == GateOf::Recovery);
        let whole = limit.is_finite() && sensible && words.next().is_none();
        if whole { Ok(Self { figure, of, least, limit, by_interval }) } else { Err(wrong()) }
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = match self.of {
            GateOf::Value => "",
            GateOf::Loss => " loss",
            GateOf::Recovery => " recovery",
        };
        let sign = if self.least { ">=" } else { "<=" };
        let by = if self.by_interval { " by-interval" } else { "" };
        write!(f, "{}{of} {sign} {}{by}", self.figure, self.limit)
    }
}

impl TryFrom<String> for Gate {
    type Error = EvalError;
    fn try_from(text: String) -> Result<Self, EvalError> {
        text.parse()
    }
}

impl From<Gate> for String {
    fn from(gate: Gate) -> Self {
        gate.to_string()
    }
}

/// The gates of a file: one a line; `#` begins a remark.
pub fn read_gates(text: &str) -> Result<Vec<Gate>, EvalError> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    lines.filter(|line| !line.is_empty()).map(str::parse).collect()
}

#[cfg(test)]
mod tests;
