//! Results as tables, JSON, Markdown and `JUnit` XML.
//!
//! [`EvalReport`] holds what was measured and how; each form is one function in a file of its own.
//! Add a form: one file, one flag in the command line's `eval`.
mod annotations;
mod html;
mod junit;
mod markdown;
mod prune;
mod quantize;
mod recover;
mod rows;
mod sheet;
mod table;
mod tasks;

pub use annotations::{code_quality, github};
pub use html::{PageError, Run, html};
pub use junit::junit;
pub use markdown::markdown;
pub use prune::{pruning_markdown, pruning_plan, pruning_table};
pub use quantize::{bases_text, quantized_text};
pub use recover::{heads_table, recovery_table};
pub use sheet::Sheet;
pub use table::{gates_table, table};
pub use tasks::{compared_table, tasks_table};

use crate::eval::{BosPolicy, Figures, GateResult, Reduction, SCHEMA};
use crate::scheme::KvPrecision;
use crate::text::Form;
use serde::Serialize;

/// The result of an evaluation. Numbers that do not exist are `null` in JSON.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EvalReport {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The program's version.
    pub tool: String,
    /// The model, as it was named.
    pub model: String,
    /// The reference, as it was named.
    pub reference: Option<String>,
    /// How much less is lost than by another package.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub yardstick: Option<Yardstick>,
    /// Perplexity.
    pub ppl: f64,
    /// Perplexity of the reference.
    pub ppl_reference: Option<f64>,
    /// `ppl / ppl_reference - 1`.
    pub ppl_increase: Option<f64>,
    /// Mean KL divergence from the reference, nats.
    pub kl_mean: Option<f64>,
    /// Share of positions with the reference's most likely token.
    pub top1_agreement: Option<f64>,
    /// Scored positions.
    pub tokens: usize,
    /// Those among them whose logits hold NaN or make no distribution: no gate passes then.
    #[serde(default, skip_serializing_if = "is_none")]
    pub undefined: usize,
    /// Every gate was passed; true without gates.
    pub passed: bool,
    /// The gates that were asked for.
    pub gates: Vec<GateResult>,
    /// How it was measured.
    pub method: Method,
    /// All figures.
    pub figures: Figures,
    /// Per word and byte, for protocols that count them.
    pub per_word: Option<PerWord>,
}

/// Another package, measured on the same positions against the same reference.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Yardstick {
    /// As it was named.
    pub model: String,
    /// Its mean KL divergence, nats.
    pub kl_mean: Option<f64>,
    /// `1 − loss / its loss`.
    pub reduction: Reduction,
}

/// How a measurement was made: figures are comparable when all of this agrees.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Method {
    /// Protocol.
    pub protocol: String,
    /// Tokens of a window.
    pub ctx: usize,
    /// Tokens between windows, for `strided`.
    pub stride: Option<usize>,
    /// Windows that were measured.
    pub windows: usize,
    /// Tokens of the whole text.
    pub text_tokens: usize,
    /// Where BOS stands.
    pub bos: BosPolicy,
    /// Names of the text files.
    pub text: Vec<String>,
    /// How the files were read.
    pub text_form: Form,
    /// What stands between documents.
    pub join: String,
    /// SHA-256 of the text's bytes.
    pub data_sha256: String,
    /// SHA-256 of tokenizer.json.
    pub tokenizer_sha256: String,
    /// How the model's keys and values were held.
    pub kv_cache: KvPrecision,
    /// How weights were held and multiplied.
    pub backend: String,
}

/// Word-level figures, as lm-evaluation-harness names them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PerWord {
    /// Words of the documents.
    pub words: usize,
    /// Bytes of the documents.
    pub bytes: usize,
    /// exp(total nll / words)
    pub word_perplexity: f64,
    /// exp(total nll / bytes)
    pub byte_perplexity: f64,
    /// total nll / bytes / ln 2
    pub bits_per_byte: f64,
    /// Word perplexity of the reference.
    pub word_perplexity_reference: Option<f64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_none(count: &usize) -> bool {
    *count == 0
}

impl EvalReport {
    /// Puts a report together; `words` are words and bytes of the text where they are counted.
    pub fn new(
        (model, reference): (String, Option<String>),
        method: Method,
        figures: Figures,
        gates: Vec<GateResult>,
        words: Option<(usize, usize)>,
    ) -> Self {
        let against = figures.divergence.as_ref();
        Self {
            schema: SCHEMA,
            tool: format!("{} {}", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION")),
            model,
            reference,
            yardstick: None,
            ppl: figures.perplexity.value,
            ppl_reference: against.map(|it| it.reference.value),
            ppl_increase: against.map(|it| it.ppl_ratio.value - 1.0),
            kl_mean: against.map(|it| it.kl_mean.value),
            top1_agreement: against.map(|it| it.top1_agreement),
            tokens: figures.tokens,
            undefined: figures.undefined,
            passed: gates.iter().all(|gate| gate.passed),
            gates,
            method,
            per_word: words.map(|words| PerWord::of(&figures, words)),
            figures,
        }
    }
}

impl PerWord {
    fn of(figures: &Figures, (words, bytes): (usize, usize)) -> Self {
        let total = |nll: f64| nll * figures.tokens as f64;
        let nll = total(figures.perplexity.nll);
        let reference = figures.divergence.as_ref().map(|it| total(it.reference.nll));
        Self {
            words,
            bytes,
            word_perplexity: (nll / words as f64).exp(),
            byte_perplexity: (nll / bytes as f64).exp(),
            bits_per_byte: nll / bytes as f64 / std::f64::consts::LN_2,
            word_perplexity_reference: reference.map(|nll| (nll / words as f64).exp()),
        }
    }
}

#[cfg(test)]
mod tests;
