//! Who offers tokens to a model that writes.
use super::model::BackendName;
use crate::{
    forward::ForwardError,
    model::NextLayer,
    number::whole,
    package::{self, MedusaHeads, Opened},
    progress::Progress,
    runtime::{Counts, Draft, Engine, Lookup, Medusa, Mtp, Offers, Position, same_vocabulary},
};
use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// Tokens offered at once, unless others are asked for: beyond, few texts agree, and rows cost.
pub(super) const TOKENS: usize = 5;

/// What is asked for. Every field is a flag and a recipe key of the same name.
#[derive(clap::Args, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
#[group(id = "offers")]
pub(super) struct Wanted {
    /// A model of the same vocabulary that writes first; the text is the same, sooner
    #[arg(long, value_name = "MODEL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) draft: Option<String>,
    /// Offer what followed the last tokens where they stood before; the text is the same, sooner
    #[arg(long, conflicts_with = "draft")]
    pub(super) lookup: bool,
    /// Medusa heads of this model, in vLLM's layout or their authors'; the text is the same, sooner
    #[arg(long, value_name = "DIR", conflicts_with_all = ["draft", "lookup"])]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) medusa: Option<String>,
    /// Offer by the model's own layer for multi-token prediction; the text is the same, sooner
    #[arg(long, conflicts_with_all = ["draft", "lookup", "medusa"])]
    pub(super) mtp: bool,
    /// Tokens that are offered at once at most; how many of them is chosen by what pays [default: 5]
    #[arg(long, value_name = "N", value_parser = whole::<usize>(1..=64))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) draft_tokens: Option<usize>,
}

/// What was asked for, opened and found to fit, before weights are loaded.
pub(super) struct Prepared {
    proposer: Proposer,
    tokens: usize,
    backend: BackendName,
}

enum Proposer {
    Lookup,
    /// The draft, and the vocabulary of the model.
    Draft(Box<Opened>, usize),
    Medusa(MedusaHeads),
    Mtp(Box<NextLayer>),
}

/// What came of it, in `--json`.
#[derive(Debug, Serialize)]
pub(super) struct Told {
    #[serde(flatten)]
    counts: Counts,
    accepted_per_pass: f64,
}

impl Wanted {
    /// All that can be asked for, each to something.
    #[cfg(test)]
    pub(super) fn full() -> Self {
        Self {
            draft: Some("d".into()),
            lookup: true,
            medusa: Some("m".into()),
            mtp: true,
            draft_tokens: Some(1),
        }
    }

    /// Finds what contradicts itself; gives the name of who offers, if anybody does.
    pub(super) fn check(&self) -> anyhow::Result<Option<&'static str>> {
        let all = [
            ("draft", self.draft.is_some()),
            ("lookup", self.lookup),
            ("medusa", self.medusa.is_some()),
            ("mtp", self.mtp),
        ];
        let wanted: Vec<&'static str> = all.iter().filter(|it| it.1).map(|it| it.0).collect();
        if let [first, second, ..] = wanted.as_slice() {
            anyhow::bail!(
                "`{first}` and `{second}`: expected one of them, found both\nhint: leave one out"
            );
        }
        anyhow::ensure!(
            !wanted.is_empty() || self.draft_tokens.is_none(),
            "`draft-tokens`: nothing offers tokens\n\
             hint: give `--lookup`, `--draft MODEL`, `--medusa DIR` or `--mtp`"
        );
        Ok(wanted.first().copied())
    }

    /// Opens what is asked for, for `target`, with weights held as `backend` does.
    pub(super) fn prepare(
        &self,
        target: &Opened,
        backend: BackendName,
    ) -> anyhow::Result<Option<Prepared>> {
        self.check()?;
        let spec = &target.model.spec;
        let tokens = self.draft_tokens.unwrap_or(TOKENS);
        let proposer = if let Some(name) = &self.draft {
            Proposer::Draft(Box::new(draft(name, target)?), spec.vocab)
        } else if let Some(folder) = &self.medusa {
            Proposer::Medusa(MedusaHeads::open(folder, (spec.hidden, spec.vocab))?)
        } else if self.mtp {
            Proposer::Mtp(Box::new(target.model.next_layer().context("--mtp")?))
        } else if self.lookup {
            Proposer::Lookup
        } else {
            return Ok(None);
        };
        Ok(Some(Prepared { proposer, tokens, backend }))
    }
}

/// Opens a draft of the same vocabulary.
fn draft(name: &str, target: &Opened) -> anyhow::Result<Opened> {
    let draft = package::open(name)?;
    if target.tokenizer_sha256()? != draft.tokenizer_sha256()? {
        let most = target.model.spec.vocab.max(draft.model.spec.vocab);
        same_vocabulary((target.tokenizer()?, draft.tokenizer()?), most)
            .with_context(|| format!("--draft {name}"))?;
    }
    Ok(draft)
}

impl Prepared {
    /// [`Self::start`], for any engine.
    pub(super) fn starter<'p>(
        &'p self,
        progress: &'p dyn Progress,
    ) -> impl for<'e> Fn(&Engine<'e>) -> Result<Offers<'e>, ForwardError> + 'p {
        move |engine| self.start(engine, progress)
    }

    /// Loads it beside the model that `engine` runs.
    pub(super) fn start<'a>(
        &self,
        engine: &Engine<'a>,
        progress: &dyn Progress,
    ) -> Result<Offers<'a>, ForwardError> {
        let (tokens, backend) = (self.tokens, self.backend.backend());
        Ok(match &self.proposer {
            Proposer::Lookup => Offers::new(|| Box::new(Lookup), tokens),
            Proposer::Draft(draft, vocab) => {
                let engine = Engine::load(&draft.model, &*backend, engine.team(), progress)?;
                let draft = Draft::new(engine, *vocab);
                Offers::new(move || Box::new(draft.another()), tokens)
            }
            Proposer::Medusa(heads) => {
                let tokens = tokens.min(heads.heads.len());
                let medusa = Medusa::new(heads.clone(), engine, &*backend);
                Offers::new(move || Box::new(medusa.clone()), tokens)
            }
            Proposer::Mtp(layer) => {
                let mtp = Mtp::new(layer, engine, &*backend)?;
                Offers::new(move || Box::new(mtp.another()), tokens)
            }
        }
        .paced())
    }
}

impl From<Counts> for Told {
    fn from(counts: Counts) -> Self {
        Self { accepted_per_pass: counts.accepted_per_pass(), counts }
    }
}

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Counts { passes, offered, accepted, by_position, proposer_seconds, target_seconds } =
            &self.counts;
        write!(f, "{accepted} of {offered} offered tokens accepted in {passes} passes")?;
        let share = |it: &Position| format!("{:.2}", it.accepted as f64 / it.offered.max(1) as f64);
        let shares: Vec<String> = by_position.iter().map(share).collect();
        if !shares.is_empty() {
            write!(f, " ({} by position)", shares.join(" "))?;
        }
        write!(f, ", {proposer_seconds:.2} s to offer, {target_seconds:.2} s to read")
    }
}
