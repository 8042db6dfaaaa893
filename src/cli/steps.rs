//! The steps of a recipe with their settings read.
use super::{eval, export, prune, quantize, recover, run::Settings as RunSettings};
use crate::{
    package,
    recipe::{Recipe, Step, Verb},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

/// A step whose settings have been read.
pub(super) enum Planned {
    Prune(Box<prune::Settings>),
    Recover(Box<recover::Settings>),
    Quantize(Box<quantize::Settings>),
    Eval(Box<eval::Settings>),
    Run(Box<RunSettings>),
    Export(Box<export::Settings>),
}

impl Planned {
    /// Steps come in this order, those that make a model once each.
    pub(super) fn place(&self) -> usize {
        match self {
            Self::Prune(_) => 0,
            Self::Recover(_) => 1,
            Self::Quantize(_) => 2,
            Self::Eval(_) | Self::Run(_) | Self::Export(_) => BEHIND,
        }
    }

    /// Whether a model comes of it.
    pub(super) fn makes(&self) -> bool {
        self.place() < BEHIND
    }
}

/// The place of steps that work on what was made.
const BEHIND: usize = 3;

/// Stands for the model of the recipe where another is compared with it.
const SOURCE: &str = "source";

/// Reads the steps of a recipe as `compress` does, and plans pruning and quantization of a model; the
/// steps with every default written out. Nothing is made, and no file but the model is looked at.
pub fn resolve(file: &str, recipe: &Recipe, model: &str) -> anyhow::Result<Value> {
    let (steps, resolved) = plan_all(&recipe.steps, file, model)?;
    check_order(&steps, file)?;
    let opened = package::open(model)?;
    let mut outline = None;
    for step in &steps {
        match step {
            Planned::Prune(it) => outline = Some(it.plan(&opened)?.outline(&opened.model)),
            Planned::Quantize(it) => drop(it.bases(outline.as_ref().unwrap_or(&opened.model))?),
            Planned::Recover(_) | Planned::Eval(_) | Planned::Run(_) | Planned::Export(_) => {}
        }
    }
    Ok(resolved)
}

/// Refuses steps in another order than that of the work.
pub(super) fn check_order(steps: &[Planned], file: &str) -> anyhow::Result<()> {
    let places: Vec<usize> = steps.iter().map(Planned::place).collect();
    let ordered = places.is_sorted_by(|a, b| a < b || (a, b) == (&BEHIND, &BEHIND));
    anyhow::ensure!(
        ordered && places[0] < BEHIND,
        "recipe `{file}`: `prune`, `recover` and `quantize` stand first and once, in this order\n\
         hint: other steps work on what they make"
    );
    anyhow::ensure!(
        places[0] != 1,
        "recipe `{file}`: `recover` has nothing to learn: its parent is the model of the recipe\n\
         hint: put a step `prune` before it, or `milm-compress recover` a checkpoint that was pruned"
    );
    Ok(())
}

/// The steps, and the same with every default written out.
pub(super) fn plan_all(
    steps: &[Step],
    file: &str,
    model: &str,
) -> anyhow::Result<(Vec<Planned>, Value)> {
    let planned: Vec<_> =
        steps.iter().map(|step| plan(step, file, model)).collect::<anyhow::Result<_>>()?;
    let (planned, resolved): (Vec<_>, Vec<_>) = planned.into_iter().unzip();
    Ok((planned, resolved.into()))
}

/// A step with its settings, and the same with every default written out.
fn plan(step: &Step, file: &str, model: &str) -> anyhow::Result<(Planned, Value)> {
    fn typed<T: DeserializeOwned + Serialize + clap::Args>(
        step: &Step,
        file: &str,
    ) -> anyhow::Result<(Box<T>, Value)> {
        let settings: Box<T> = Box::new(step.settings(file)?);
        let value = json!({ "do": step.verb, "settings": settings });
        Ok((settings, value))
    }
    Ok(match step.verb {
        Verb::Prune => {
            let (settings, value) = typed(step, file)?;
            (Planned::Prune(settings), value)
        }
        Verb::Recover => {
            let (settings, value) = typed(step, file)?;
            (Planned::Recover(settings), value)
        }
        Verb::Quantize => {
            let (settings, mut value): (Box<quantize::Settings>, _) = typed(step, file)?;
            value["settings"] = serde_json::to_value(settings.resolved())?;
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
        Verb::Export => {
            let (settings, value) = typed(step, file)?;
            (Planned::Export(settings), value)
        }
    })
}
