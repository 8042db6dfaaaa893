//! Device profiles on the command line: packages and plans are compared with them.
use super::Context;
use crate::{
    device::{Candidate, PROFILES, Profile},
    model::Model,
    quantize::{Plan, ShardSize},
    tensor::read_text,
};
use std::path::Path;

/// Flags of verbs that compare something with a chip.
#[derive(clap::Args, Clone, Debug, Default, PartialEq)]
pub(super) struct Device {
    /// Refuse what a chip does not take: hexagon-npu, hexagon-llama.cpp, mediatek-npu, arm-cpu, x86, or a TOML file
    #[arg(long, value_name = "PROFILE")]
    device: Option<String>,
    /// Memory for weights, keys and values on the chip, e.g. 100MB
    #[arg(long, value_name = "SIZE", requires = "device")]
    memory: Option<ShardSize>,
}

impl Device {
    /// The profile that is named.
    pub(super) fn profile(&self) -> anyhow::Result<Option<Profile>> {
        self.device.as_deref().map(profile).transpose()
    }

    /// Refuses a model, quantized or not, that the chip does not take as it lies there.
    pub(super) fn check(&self, model: &Model, context: &Context) -> anyhow::Result<()> {
        let raw = model.weights.raw.values();
        let bytes = raw.map(|it| it.bytes.len() as u64).sum();
        let of = Candidate { spec: &model.spec, schemes: &model.weights.quantized, bytes };
        self.check_candidate(of, context)
    }

    /// Refuses a plan for a model.
    pub(super) fn check_plan(
        &self,
        model: &Model,
        plan: &Plan,
        context: &Context,
    ) -> anyhow::Result<()> {
        let of = Candidate { spec: &model.spec, schemes: &plan.schemes(), bytes: plan.bytes() };
        self.check_candidate(of, context)
    }

    /// Why the chip does not take something, if it does not.
    pub(super) fn misfit(&self, profile: &Profile, of: Candidate<'_>) -> Option<String> {
        let found = profile.misfits(of, self.memory.map(|it| it.0));
        found.into_iter().find(|it| !it.elsewhere).map(|it| it.to_string())
    }

    fn check_candidate(&self, of: Candidate<'_>, context: &Context) -> anyhow::Result<()> {
        let Some(profile) = self.profile()? else { return Ok(()) };
        let found = profile.misfits(of, self.memory.map(|it| it.0));
        let (elsewhere, wrong): (Vec<_>, Vec<_>) = found.into_iter().partition(|it| it.elsewhere);
        for misfit in elsewhere {
            context.note(format_args!("{}: {misfit}", profile.name));
        }
        let told: Vec<String> = wrong.iter().take(MOST).map(ToString::to_string).collect();
        let more = wrong.len().saturating_sub(MOST);
        let more = if more > 0 { format!("\n  and {more} more") } else { String::new() };
        anyhow::ensure!(
            wrong.is_empty(),
            "`{}` does not take this:\n  {}{more}\nhint: in brackets stands what to change",
            profile.name,
            told.join("\n  ")
        );
        let memory = profile.memory(of) as f64 / 1e6;
        let name = &profile.name;
        context.note(format_args!("{name} takes it: {memory:.1} MB with keys and values"));
        Ok(())
    }
}

/// Findings that are told one by one.
const MOST: usize = 8;

/// A profile by its name, or of a file.
fn profile(name: &str) -> anyhow::Result<Profile> {
    if let Some(carried) = Profile::carried(name) {
        return Ok(carried?);
    }
    let path = Path::new(name);
    let is_path = path.extension().is_some_and(|it| it == "toml") || path.exists();
    let known: Vec<&str> = PROFILES.iter().map(|(name, _)| *name).collect();
    anyhow::ensure!(
        is_path,
        "no device profile `{name}`\nhint: one of {}, or a TOML file",
        known.join(", ")
    );
    Ok(Profile::parse(name, &read_text(path, "name a profile, see docs/devices.md")?)?)
}
