//! `milm-compress compress`: a recipe from checkpoint to measured package.
use super::{
    Context, Outcome, eval, output,
    quantize::summary_text,
    run::{Settings as RunSettings, continue_prompt},
};
use crate::{
    package::{self, Job},
    quantize,
    recipe::{Recipe, Step, Verb},
};
use anyhow::Context as _;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Run a recipe: quantize, measure, generate
///
/// A recipe is a TOML file whose steps name a verb and its flags. The first step makes the package;
/// later ones measure it or generate with it. In a step `eval`, `reference = "source"` stands for
/// the model that the recipe works on. Exit code 1 when a gate failed; the package is kept.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  \
    milm-compress compress recipes/quickstart.toml -o ./package\n  \
    milm-compress compress recipes/w4a8.toml --model ./smollm2 -o ./package \\\n      \
    --set quantize.group-size=128 --set eval.max-kl=0.5")]
pub(super) struct Args {
    /// The recipe
    recipe: PathBuf,
    /// Checkpoint to work on, instead of the recipe's
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Folder to write
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
    /// Another value for a key, e.g. quantize.scheme=w8a8; may be repeated
    #[arg(long = "set", value_name = "STEP.KEY=VALUE")]
    set: Vec<String>,
}

/// A step whose settings have been read.
enum Planned {
    Quantize(Box<quantize::Settings>),
    Eval(Box<eval::Settings>),
    Run(Box<RunSettings>),
}

/// Stands for the model of the recipe where another is compared with it.
const SOURCE: &str = "source";

pub(super) fn run(args: &Args, context: &Context) -> anyhow::Result<Outcome> {
    let (file, recipe) = read(args)?;
    let model = args.model.as_deref().or(recipe.model.as_deref());
    let model = model.context("the recipe names no model\nhint: name one with --model")?;
    let mut resolved = Vec::new();
    let mut steps = Vec::new();
    for step in &recipe.steps {
        let (planned, value) = plan(step, &file, model)?;
        steps.push(planned);
        resolved.push(value);
    }
    let resolved = json!({ "description": recipe.description, "model": model, "step": resolved });
    let package = args.output.to_string_lossy();
    check(&steps, &file, context)?;
    let mut outcome = Outcome::Done;
    for step in &steps {
        match step {
            Planned::Quantize(settings) => make(model, settings, &resolved, (args, context))?,
            Planned::Eval(settings) => {
                let report = eval::evaluate(&package, settings, context)?;
                package::set_evaluation(&package, serde_json::to_value(&report)?)?;
                output::text("\n")?;
                if eval::show(&report, settings, context)? == Outcome::GateFailed {
                    outcome = Outcome::GateFailed;
                }
            }
            Planned::Run(settings) => {
                output::text("\n")?;
                continue_prompt(&package, settings, context)?;
            }
        }
    }
    Ok(outcome)
}

/// What is wrong with a later step is told before the first one takes its hours.
fn check(steps: &[Planned], file: &str, context: &Context) -> anyhow::Result<()> {
    for (at, step) in steps.iter().enumerate() {
        anyhow::ensure!(
            matches!(step, Planned::Quantize(_)) == (at == 0),
            "recipe `{file}`: `quantize` stands first and once\nhint: other steps work on its package"
        );
        match step {
            Planned::Quantize(_) => {}
            Planned::Eval(settings) => settings.check(context)?,
            Planned::Run(settings) => settings.check()?,
        }
    }
    Ok(())
}

fn read(args: &Args) -> anyhow::Result<(String, Recipe)> {
    let file = args.recipe.display().to_string();
    #[expect(clippy::disallowed_methods, reason = "a recipe is an argument of the command line")]
    let text = std::fs::read_to_string(&args.recipe);
    let text = text.with_context(|| format!("cannot read the recipe `{file}`"))?;
    let mut recipe = Recipe::parse(&file, &text)?;
    for assignment in &args.set {
        recipe.set(assignment)?;
    }
    Ok((file, recipe))
}

/// A step with its settings, and the same with every default written out.
fn plan(step: &Step, file: &str, model: &str) -> anyhow::Result<(Planned, Value)> {
    fn typed<T: DeserializeOwned + Serialize>(
        step: &Step,
        file: &str,
    ) -> anyhow::Result<(Box<T>, Value)> {
        let settings: Box<T> = Box::new(step.settings(file)?);
        let value = json!({ "do": step.verb, "settings": settings });
        Ok((settings, value))
    }
    Ok(match step.verb {
        Verb::Quantize => {
            let (settings, value) = typed(step, file)?;
            (Planned::Quantize(settings), value)
        }
        Verb::Eval => {
            let (mut settings, value): (Box<eval::Settings>, _) = typed(step, file)?;
            if settings.reference.as_deref() == Some(SOURCE) {
                settings.reference = Some(model.to_owned());
            }
            (Planned::Eval(settings), value)
        }
        Verb::Run => {
            let (settings, value) = typed(step, file)?;
            (Planned::Run(settings), value)
        }
    })
}

fn make(
    model: &str,
    settings: &quantize::Settings,
    recipe: &Value,
    (args, context): (&Args, &Context),
) -> anyhow::Result<()> {
    let opened = package::open(model)?;
    let (team, progress) = (&context.team, context.progress());
    let job = Job { opened: &opened, settings, recipe, team, progress };
    let summary = job.write(&args.output, context.force)?;
    output::text(&summary_text(&args.output, &summary))
}
