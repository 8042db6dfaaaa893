//! Device profiles on the command line: packages and plans are compared with them, and a recipe is
//! chosen for a budget of memory.
use super::{Context, input, quantize};
use crate::{
    device::{Candidate, PROFILES, Profile},
    model::Model,
    package::{self, Opened},
    quantize::ShardSize,
    recipe::{Recipe, Step, Verb},
};
use anyhow::Context as _;
use std::path::Path;

/// Recipes that a budget chooses among, the one that loses least first (docs/quantization.md).
const RECIPES: &[(&str, &str)] = &[
    ("recipes/w8a16.toml", include_str!("../../recipes/w8a16.toml")),
    ("recipes/w8a8.toml", include_str!("../../recipes/w8a8.toml")),
    ("recipes/w4a16-best.toml", include_str!("../../recipes/w4a16-best.toml")),
    ("recipes/w4a16-outliers.toml", include_str!("../../recipes/w4a16-outliers.toml")),
    ("recipes/w8a8-static.toml", include_str!("../../recipes/w8a8-static.toml")),
    ("recipes/w4a16.toml", include_str!("../../recipes/w4a16.toml")),
    ("recipes/w4a8.toml", include_str!("../../recipes/w4a8.toml")),
];

/// Flags of verbs that compare something with a chip.
#[derive(clap::Args, Clone, Debug, Default, PartialEq)]
pub(super) struct Device {
    /// Refuse what a chip does not take: hexagon-npu, mediatek-npu, arm-cpu, x86, or a TOML file
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
        settings: &quantize::Settings,
        context: &Context,
    ) -> anyhow::Result<()> {
        if self.device.is_none() {
            return Ok(());
        }
        let plan = settings.plan(model)?;
        let of = Candidate { spec: &model.spec, schemes: &plan.schemes(), bytes: plan.bytes() };
        self.check_candidate(of, context)
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

    /// The first recipe whose plan for a model fits the chip and the memory, with the profile's
    /// settings in it.
    pub(super) fn recipe(
        &self,
        model: Option<&str>,
        context: &Context,
    ) -> anyhow::Result<(String, Recipe)> {
        let model = model.context("no model\nhint: name one with --model")?;
        let profile = self.profile()?.context("no recipe\nhint: name one, or a --device")?;
        let opened = package::open(model)?;
        let mut reasons = Vec::new();
        for (file, text) in RECIPES {
            let mut recipe = Recipe::parse(file, text)?;
            for assignment in &profile.set {
                recipe.set(assignment)?;
            }
            match self.fits(&profile, file, &recipe, &opened) {
                Ok(()) => {
                    context.note(format_args!("{file} is the best that fits {}", profile.name));
                    return Ok(((*file).to_owned(), recipe));
                }
                Err(reason) => reasons.push(format!("{file}: {reason}")),
            }
        }
        anyhow::bail!(
            "no recipe fits `{}`:\n  {}\nhint: prune first, or write a recipe of your own",
            profile.name,
            reasons.join("\n  ")
        )
    }

    /// Why a recipe's plan does not fit.
    fn fits(
        &self,
        profile: &Profile,
        file: &str,
        recipe: &Recipe,
        opened: &Opened,
    ) -> Result<(), String> {
        let step: Option<&Step> = recipe.steps.iter().find(|it| it.verb == Verb::Quantize);
        let settings = step.ok_or("nothing is quantized")?.settings::<quantize::Settings>(file);
        let plan = settings.map_err(|error| error.to_string())?.plan(&opened.model);
        let plan = plan.map_err(|error| error.to_string())?;
        let spec = &opened.model.spec;
        let of = Candidate { spec, schemes: &plan.schemes(), bytes: plan.bytes() };
        let found = profile.misfits(of, self.memory.map(|it| it.0));
        match found.into_iter().find(|it| !it.elsewhere) {
            Some(misfit) => Err(misfit.to_string()),
            None => Ok(()),
        }
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
    Ok(Profile::parse(name, &input::text(path, "name a profile, see docs/devices.md")?)?)
}
