//! `milm-compress compress`: a recipe from checkpoint to measured package.
use super::{
    Context, Outcome, between, choice,
    device::Device,
    eval, export, output,
    prune::{self, Prepared},
    quantize, recover,
    run::continue_prompt,
    steps::{Planned, check_order, plan_all},
};
use crate::{
    checkpoint::{self, OutputDir, WorkDir},
    package::{self, Opened},
    recipe::{Recipe, Verb},
    report::{self, EvalReport},
    tensor::read_text,
};
use anyhow::Context as _;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Run a recipe: prune, recover, quantize, measure, generate
///
/// A recipe is a TOML file whose steps name a verb and its flags: `prune`, `recover` and `quantize` first,
/// once at most each, then any number of `eval`, `run` and
/// `export` of what they made. In a step `eval`,
/// `reference = "source"` stands for the model that the recipe works on, and
/// `yardstick = "vendor-standard"` for a package of it with a chip vendor's standard scheme and the
/// same bits, made for the measurement. A recipe with several of the first three keeps what comes between
/// in `DIR.pruned` and `DIR.recovered` until all is done; after an error,
/// --resume goes on from there. Exit code 1 when a gate failed; what was made is kept.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  \
    milm-compress compress recipes/quickstart.toml -o ./package\n  \
    milm-compress compress recipes/w4a8.toml --model ./smollm2 -o ./package \\\n      \
    --set quantize.group-size=128 --set eval.max-kl=0.5\n  \
    milm-compress compress --device hexagon-npu --memory 100MB --model ./smollm2 -o ./package\n  \
    milm-compress compress recipes/prune-w4a16.toml --model ./smollm2 -o ./package --resume")]
pub(super) struct Args {
    /// The recipe; without one, --device chooses among those that the program carries
    #[arg(required_unless_present = "device")]
    recipe: Option<PathBuf>,
    #[command(flatten)]
    device: Device,
    /// Checkpoint to work on, instead of the recipe's
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Folder to write
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
    /// Another value for a key, e.g. quantize.scheme=w8a8; may be repeated
    #[arg(long = "set", value_name = "STEP.KEY=VALUE")]
    set: Vec<String>,
    /// Go on with work that was interrupted, or from checkpoints between that are there
    #[arg(long)]
    resume: bool,
    /// Keep `DIR.pruned` and `DIR.recovered` beside the package
    #[arg(long)]
    keep_intermediate: bool,
}

/// Stands for a package of the same model, text and bits with a vendor's standard scheme, which is
/// made to be measured and not kept.
const VENDOR_STANDARD: &str = "vendor-standard";

/// A recipe that was read, and what it works on.
struct Work<'a> {
    args: &'a Args,
    context: &'a Context,
    /// The recipe's file, for messages.
    file: String,
    /// The model's name.
    model: String,
    opened: Opened,
    steps: Vec<Planned>,
    /// The recipe with every default written out.
    resolved: Value,
}

pub(super) fn run(args: &Args, context: &Context) -> anyhow::Result<Outcome> {
    let mut work = Work::read(args, context)?;
    work.check()?;
    let done = work.run();
    for between in work.betweens().filter(|path| path.exists()) {
        match (&done, args.keep_intermediate) {
            (Ok(Outcome::Done), false) => checkpoint::remove_output(&between)?,
            (_, true) => {}
            (_, false) => context.note(format_args!(
                "the checkpoint `{}` is kept: --resume goes on from it",
                between.display()
            )),
        }
    }
    done
}

impl<'a> Work<'a> {
    fn read(args: &'a Args, context: &'a Context) -> anyhow::Result<Self> {
        let (file, recipe) = read(args, context)?;
        let model = args.model.clone().or(recipe.model);
        let model = model.context("the recipe names no model\nhint: name one with --model")?;
        let (steps, resolved) = plan_all(&recipe.steps, &file, &model)?;
        let resolved =
            json!({ "description": recipe.description, "model": model, "step": resolved });
        let opened = package::open(&model)?;
        Ok(Self { args, context, file, model, opened, steps, resolved })
    }

    /// Steps that make a model: the first ones.
    fn makers(&self) -> usize {
        self.steps.iter().take_while(|step| step.makes()).count()
    }

    /// Where the model lies that step `at` makes: the last in the output, others beside it until all is done.
    fn target(&self, at: usize) -> PathBuf {
        let mut name = self.args.output.as_os_str().to_owned();
        if self.is_between(at) {
            name.push(if self.steps[at].place() == 0 { ".pruned" } else { ".recovered" });
        }
        name.into()
    }

    /// Whether what step `at` makes is not the output.
    fn is_between(&self, at: usize) -> bool {
        at + 1 < self.makers()
    }

    /// Models that are made on the way.
    fn betweens(&self) -> impl Iterator<Item = PathBuf> + '_ {
        (0..self.makers()).filter(|at| self.is_between(*at)).map(|at| self.target(at))
    }

    /// The model that step `at` makes another of, with its name, where it is not the recipe's.
    fn made_before(&self, at: usize) -> anyhow::Result<Option<(String, Opened)>> {
        let Some(before) = at.checked_sub(1) else { return Ok(None) };
        let name = self.target(before).to_string_lossy().into_owned();
        let opened = package::open(&name)?;
        Ok(Some((name, opened)))
    }

    /// What is wrong with a later step is told before the first one takes its hours.
    fn check(&self) -> anyhow::Result<()> {
        let (context, file) = (self.context, &self.file);
        check_order(&self.steps, file)?;
        OutputDir::check(&self.args.output, context.force)?;
        package::refuse_over_input(&self.opened, &self.args.output)?;
        let mut outline = None;
        for step in &self.steps {
            match step {
                Planned::Prune(settings) => {
                    outline = Some(settings.plan(&self.opened)?.outline(&self.opened.model));
                }
                Planned::Quantize(settings) => {
                    let model = outline.as_ref().unwrap_or(&self.opened.model);
                    let pruned = if outline.is_some() { ", of the pruned model" } else { "" };
                    let bases = settings.bases(model);
                    let bases = bases.with_context(|| format!("step `quantize`{pruned}"))?;
                    self.args.device.check_plan(model, &bases.plan, context)?;
                }
                Planned::Eval(settings) => {
                    settings.check_with(&self.opened, context)?;
                    self.check_yardstick(settings)?;
                }
                Planned::Recover(_) => {}
                Planned::Run(settings) => settings.check()?,
                Planned::Export(settings) => {
                    let model = outline.as_ref().unwrap_or(&self.opened.model);
                    let quantize = self.quantize_settings();
                    let (specs, schemes) = match quantize {
                        Some(it) => {
                            let bases = it.bases(model)?;
                            (bases.outcomes(&model.spec), bases.plan.schemes())
                        }
                        None => (vec![model.spec.clone()], BTreeMap::new()),
                    };
                    let checked = settings.check(&specs, &schemes, context);
                    checked.context("step `export`, before anything is done")?;
                }
            }
        }
        if self.args.resume {
            return Ok(());
        }
        self.betweens().try_for_each(|it| between::check(&it, &self.args.output, context))
    }

    fn run(&mut self) -> anyhow::Result<Outcome> {
        let package = self.args.output.to_string_lossy();
        let mut outcome = Outcome::Done;
        for at in 0..self.steps.len() {
            match &self.steps[at] {
                Planned::Prune(settings) => {
                    let step = self.prune(at, settings)?;
                    self.resolved["step"][at] = step;
                }
                Planned::Recover(settings) => {
                    let step = self.recover(at, settings)?;
                    self.resolved["step"][at] = step;
                }
                Planned::Quantize(settings) => self.quantize(at, settings)?,
                Planned::Eval(settings) => {
                    let measured = || self.evaluate(&package, settings);
                    let report = settings.has_text().then(measured).transpose()?;
                    output::text("\n")?;
                    if let Some(report) = report {
                        package::set_evaluation(&package, serde_json::to_value(&report)?)?;
                        outcome = outcome.or(eval::show(&report, settings, self.context)?);
                    }
                    outcome = outcome.or(eval::run_tasks(&package, settings, self.context)?);
                }
                Planned::Export(settings) => export::write(&package, settings, self.context)?,
                Planned::Run(settings) => {
                    output::text("\n")?;
                    continue_prompt(&package, settings, self.context)?;
                }
            }
        }
        Ok(outcome)
    }

    /// Prunes; the step as manifests hold it.
    fn prune(&self, at: usize, settings: &prune::Settings) -> anyhow::Result<Value> {
        let prepared = Prepared::read((&self.model, &self.opened), settings, self.context)?;
        let step = prepared.step.clone();
        self.make(at, &step, |target, recipe| {
            let pruned = prepared.write(target, self.args.resume, recipe, self.context)?;
            output::text(&report::pruning_table(&pruned))
        })?;
        Ok(step)
    }

    /// Lets the pruned model learn from the recipe's; the step as manifests hold it.
    fn recover(&self, at: usize, settings: &recover::Settings) -> anyhow::Result<Value> {
        let (name, student) = self.made_before(at)?.context("a step `prune` stands before")?;
        let models = [(&*name, &student), (&*self.model, &self.opened)];
        let prepared = recover::Prepared::read(models, (settings, false), self.context)?;
        let step = prepared.step.clone();
        self.make(at, &step, |target, recipe| {
            let recovered = prepared.write(target, self.args.resume, recipe, self.context)?;
            output::text(&report::recovery_table(&recovered))
        })?;
        Ok(step)
    }

    /// Lets `write` make what comes of step `at`, unless it is there already; `write` is told where, and the
    /// recipe for its manifest.
    fn make(
        &self,
        at: usize,
        step: &Value,
        write: impl FnOnce(&Path, &Value) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let target = self.target(at);
        if !self.is_between(at) {
            let mut recipe = self.resolved.clone();
            recipe["step"][at] = step.clone();
            return write(&target, &recipe);
        }
        if self.args.resume && target.symlink_metadata().is_ok() {
            between::check_same(&target, step)?;
            WorkDir::clear(&target)?;
            let there = target.display();
            self.context.note(format_args!("`{there}` is there: it is not made again"));
            return Ok(());
        }
        let made_for = between::shown(&self.args.output);
        write(&target, &json!({ "step": [step], between::MADE_FOR: made_for }))?;
        output::text("\n")
    }

    fn quantize_settings(&self) -> Option<&quantize::Settings> {
        self.steps.iter().find_map(|step| match step {
            Planned::Quantize(settings) => Some(&**settings),
            _ => None,
        })
    }

    fn check_yardstick(&self, settings: &eval::Settings) -> anyhow::Result<()> {
        let Some(yardstick) = &settings.yardstick else { return Ok(()) };
        let wanted = yardstick == VENDOR_STANDARD;
        if !wanted {
            package::open(yardstick)?;
        }
        anyhow::ensure!(
            !wanted || self.quantize_settings().is_some(),
            "recipe `{}`: the yardstick `{VENDOR_STANDARD}` has the bits of a step `quantize`\n\
             hint: add that step, or name a package as `yardstick`",
            self.file
        );
        Ok(())
    }

    /// Measures the package, beside a vendor's standard scheme where that is wanted.
    fn evaluate(&self, package: &str, settings: &eval::Settings) -> anyhow::Result<EvalReport> {
        let wanted = settings.yardstick.as_deref() == Some(VENDOR_STANDARD);
        let Some(quantize) = self.quantize_settings().filter(|_| wanted) else {
            return eval::evaluate(package, settings, self.context);
        };
        // Never completed, so that it is removed, whatever happens.
        let scratch = OutputDir::scratch(&self.args.output)?;
        let target = scratch.path().join("package");
        let vendor = quantize.vendor_standard();
        let before = self.made_before(self.makers() - 1)?;
        let (name, opened) = self.or_own(before.as_ref());
        let bases = vendor.bases(&opened.model)?;
        let prepared = quantize::Prepared::read((name, opened), (&vendor, bases), self.context)?;
        prepared.write((&target, false), &json!({ "step": [prepared.step] }), self.context)?;
        let yardstick = Some(target.to_string_lossy().into_owned());
        let settings = eval::Settings { yardstick, ..settings.clone() };
        let mut report = eval::evaluate(package, &settings, self.context)?;
        if let Some(yardstick) = &mut report.yardstick {
            yardstick.model = format!("{VENDOR_STANDARD} {}", quantize.scheme());
        }
        Ok(report)
    }

    /// A model that was made on the way, or the recipe's own.
    fn or_own<'b>(&'b self, made: Option<&'b (String, Opened)>) -> (&'b str, &'b Opened) {
        made.map_or((&*self.model, &self.opened), |(name, opened)| (name, opened))
    }

    fn quantize(&self, at: usize, settings: &quantize::Settings) -> anyhow::Result<()> {
        let before = self.made_before(at)?;
        let (name, opened) = self.or_own(before.as_ref());
        let bases = settings.bases(&opened.model)?;
        let prepared = quantize::Prepared::read((name, opened), (settings, bases), self.context)?;
        let mut recipe = self.resolved.clone();
        recipe["step"][at] = prepared.step.clone();
        let done = prepared.write((&self.args.output, self.args.resume), &recipe, self.context)?;
        output::text(&done.text(&self.args.output))
    }
}

fn read(args: &Args, context: &Context) -> anyhow::Result<(String, Recipe)> {
    let (file, mut recipe) = match &args.recipe {
        None => choice::choose(&args.device, args.model.as_deref(), context)?,
        Some(path) => {
            let file = path.display().to_string();
            let recipe =
                Recipe::parse(&file, &read_text(path, "name a recipe, see docs/recipes.md")?)?;
            (file, recipe)
        }
    };
    if let Some(profile) = args.device.profile()? {
        let engine = toml::Value::try_from(profile.engine)?;
        for step in recipe.steps.iter_mut().filter(|it| it.verb == Verb::Quantize) {
            step.settings.entry("for").or_insert_with(|| engine.clone());
        }
    }
    for assignment in &args.set {
        recipe.set(assignment)?;
    }
    Ok((file, recipe))
}
