//! The recipe for a chip and its memory.
use super::{Context, device::Device, quantize};
use crate::{
    device::{Candidate, Profile},
    package::{self, Opened},
    recipe::{Recipe, Step, Verb},
};
use anyhow::Context as _;

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

/// The first recipe whose plan for a model fits the chip and the memory, with the profile's
/// settings in it.
pub(super) fn choose(
    device: &Device,
    model: Option<&str>,
    context: &Context,
) -> anyhow::Result<(String, Recipe)> {
    let model = model.context("no model\nhint: name one with --model")?;
    let profile = device.profile()?.context("no recipe\nhint: name one, or a --device")?;
    let opened = package::open(model)?;
    let mut reasons = Vec::new();
    for (file, text) in RECIPES {
        let mut recipe = Recipe::parse(file, text)?;
        for step in recipe.steps.iter_mut().filter(|it| it.verb == Verb::Quantize) {
            step.settings.insert("for".into(), toml::Value::try_from(profile.engine)?);
        }
        for assignment in &profile.set {
            recipe.set(assignment)?;
        }
        match fits((device, &profile), file, &recipe, &opened) {
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
    (device, profile): (&Device, &Profile),
    file: &str,
    recipe: &Recipe,
    opened: &Opened,
) -> Result<(), String> {
    let step: Option<&Step> = recipe.steps.iter().find(|it| it.verb == Verb::Quantize);
    let settings = step.ok_or("nothing is quantized")?.settings::<quantize::Settings>(file);
    let bases = settings.map_err(|error| error.to_string())?.bases(&opened.model);
    let plan = bases.map_err(|error| error.to_string())?.plan;
    let spec = &opened.model.spec;
    let of = Candidate { spec, schemes: &plan.schemes(), bytes: plan.bytes() };
    device.misfit(profile, of).map_or(Ok(()), Err)
}
