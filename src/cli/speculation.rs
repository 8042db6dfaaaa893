//! Who offers tokens to a model that writes.
use super::{Context, model::BackendName};
use crate::{
    package::{self, Opened},
    runtime::{Counts, Draft, Engine, Lookup, Speculation, same_vocabulary},
};
use anyhow::Context as _;
use serde::Serialize;

/// Tokens offered at once, unless others are asked for: beyond, few texts agree, and rows cost.
const TOKENS: usize = 5;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    /// A draft model.
    pub(super) draft: Option<&'a str>,
    /// Prompt lookup.
    pub(super) lookup: bool,
    /// Tokens at once at most.
    pub(super) tokens: Option<usize>,
    /// How the draft's weights are held.
    pub(super) backend: BackendName,
}

/// What came of it, in `--json`.
#[derive(Debug, Serialize)]
pub(super) struct Told {
    #[serde(flatten)]
    counts: Counts,
    accepted_per_pass: f64,
}

impl Wanted<'_> {
    /// Finds what contradicts itself.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let (draft, lookup) = (self.draft.is_some(), self.lookup);
        anyhow::ensure!(
            !(draft && lookup),
            "`draft` and `lookup`: expected one of them, found both\nhint: leave one out"
        );
        anyhow::ensure!(
            draft || lookup || self.tokens.is_none(),
            "`draft-tokens`: nothing offers tokens\nhint: give `--lookup` or `--draft MODEL`"
        );
        Ok(())
    }

    /// Makes what is asked for, for `target`.
    pub(super) fn make<'a>(
        &self,
        target: &Opened,
        context: &'a Context,
    ) -> anyhow::Result<Option<Speculation<'a>>> {
        self.check()?;
        let tokens = self.tokens.unwrap_or(TOKENS);
        let Some(name) = self.draft else {
            return Ok(self.lookup.then(|| Speculation::new(Lookup, tokens).paced()));
        };
        let draft = package::open(name)?;
        let vocab = target.model.spec.vocab;
        if target.tokenizer_sha256()? != draft.tokenizer_sha256()? {
            let most = vocab.max(draft.model.spec.vocab);
            same_vocabulary((target.tokenizer()?, draft.tokenizer()?), most)
                .with_context(|| format!("--draft {name}"))?;
        }
        let backend = self.backend.backend();
        let engine = Engine::load(&draft.model, &*backend, &context.team, context.progress())?;
        Ok(Some(Speculation::new(Draft::new(engine, vocab), tokens).paced()))
    }
}

impl From<Counts> for Told {
    fn from(counts: Counts) -> Self {
        Self { accepted_per_pass: counts.accepted_per_pass(), counts }
    }
}

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Counts { passes, offered, accepted } = self.counts;
        write!(f, "{accepted} of {offered} offered tokens accepted in {passes} passes")
    }
}
