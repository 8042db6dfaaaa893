//! Which coordinates a model may be quantized in: those that the preset offers and that leave a model
//! which the engines load that the package is made for.
use super::PipelineError;
use crate::{
    model::{Model, ModelSpec},
    package::{Declared, engines},
    quantize::{
        self, ActivationScales, Candidates, CodeChoice, Effort, GroupFallback, Plan, Settings,
        TargetEngine,
    },
    scheme::{Activations, Granularity, KvPrecision, Schemes},
    train,
    transform::{self, Rotate, Transform},
};
use serde::Serialize;

/// Coordinates that could be quantized in.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Offer {
    /// The rotation and what is multiplied at run time.
    pub transform: transform::Settings,
    /// Which engine would not load the result, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// What a quantization may choose among. One at least is not refused.
#[derive(Clone, Debug)]
pub struct Bases {
    /// In the order of preference.
    pub offers: Vec<Offer>,
    /// Engines that the package was to load in, and that do not load the model whatever is done.
    pub notes: Vec<String>,
    /// What becomes of each tensor of the model, before its coordinates are turned.
    pub plan: Plan,
    settings: Settings,
}

impl Bases {
    /// What there is to choose among for a model. Refuses settings that an engine does not take which
    /// loads the model without them.
    pub fn of(
        model: &Model,
        settings: &Settings,
        wanted: &transform::Settings,
    ) -> Result<Self, PipelineError> {
        let bases = Self::found(model, settings, wanted)?;
        if settings.tuning.tune.is_some() {
            bases.plan.check_tuning(settings.preset)?;
            bases.outcomes(&model.spec).iter().try_for_each(train::check)?;
        }
        Ok(bases)
    }

    fn found(
        model: &Model,
        settings: &Settings,
        wanted: &transform::Settings,
    ) -> Result<Self, PipelineError> {
        Transform::accepts(wanted, &model.spec)?;
        let mut settings = settings.clone();
        if Candidates::of(model, &settings)?.is_some() {
            // The budget decides on groups, and gives none that do not fit.
            settings.group_fallback = GroupFallback::Channel;
        }
        let engine = settings.engine();
        let refusals = |spec: &ModelSpec, schemes: &Schemes| {
            let fits = engines(Declared { spec, config: &model.config, schemes });
            let covered = fits.into_iter().filter(|fit| engine.covers(fit.engine));
            covered.map(|fit| (fit.engine, fit.loads.err())).collect::<Vec<_>>()
        };
        // What the model and its scheme are refused for is not the other settings' fault.
        let plain = quantize::plan(model, &plain(&settings))?.schemes();
        let (mut loads, mut notes) = (Vec::new(), Vec::new());
        for (name, refusal) in refusals(&model.spec, &plain) {
            match refusal {
                None => loads.push(name),
                Some(reason) if engine == TargetEngine::Portable => {
                    notes.push(format!("the package will not load in {name}: {reason}"));
                }
                Some(reason) => return Err(PipelineError::Engine { engine: name, reason }),
            }
        }
        let refused = |spec: &ModelSpec, schemes: &Schemes| {
            let mut all = refusals(spec, schemes).into_iter();
            all.find_map(|(name, refusal)| {
                Some((name, refusal?)).filter(|it| loads.contains(&it.0))
            })
        };
        let plan = quantize::plan(model, &settings)?;
        let mut kept = model.spec.clone();
        kept.kv_cache = settings.kv_cache;
        if let Some((engine, reason)) = refused(&kept, &plan.schemes()) {
            return Err(PipelineError::Engine { engine, reason });
        }
        let (mut offers, mut first) = (Vec::new(), None);
        for alternatives in offered(&model.spec, &settings, wanted) {
            let mut given_up = None;
            for transform in alternatives {
                let reason = refused(&Transform::planned(&transform, &model.spec), &Schemes::new());
                let Some((engine, reason)) = reason else {
                    offers.extend(given_up.take());
                    offers.push(Offer { transform, refused: None });
                    break;
                };
                let told = Some(format!("{engine}: {reason}"));
                given_up.get_or_insert(Offer { transform, refused: told });
                first.get_or_insert(PipelineError::Engine { engine, reason });
            }
            offers.extend(given_up);
        }
        match first.filter(|_| offers.iter().all(|it| it.refused.is_some())) {
            Some(error) => Err(error),
            None => Ok(Self { offers, notes, plan, settings }),
        }
    }

    /// The coordinates that may be taken, the preferred ones first.
    pub fn taken(&self) -> impl Iterator<Item = &transform::Settings> {
        self.offers.iter().filter(|it| it.refused.is_none()).map(|it| &it.transform)
    }

    /// Those that are tried: what is refused as well, so that its cost is told, where anything is tried.
    pub fn tried(&self) -> Vec<&Offer> {
        let any = self.offers.len() > 1 && self.settings.rounding() == CodeChoice::Adaptive;
        self.offers.iter().filter(|_| any).collect()
    }

    /// The architectures that the quantization may end with.
    pub fn outcomes(&self, spec: &ModelSpec) -> Vec<ModelSpec> {
        self.taken().map(|it| Transform::planned(it, spec)).collect()
    }

    /// Whether the quantization takes a tensor at a time, or goes block by block over the whole model.
    pub fn is_streamed(&self) -> bool {
        let turned = self.taken().any(|it| !it.is_identity());
        let settings = &self.settings;
        let searched = settings.rounding() != CodeChoice::Nearest || settings.has_budget();
        let learns = settings.tuning.tune.is_some();
        !(searched || turned || learns || settings.preset == Effort::VendorStandard)
    }

    /// Whether the quantization needs text to calibrate on.
    pub fn needs_text(&self) -> bool {
        let settings = &self.settings;
        settings.rounding() == CodeChoice::Adaptive
            || self.taken().any(transform::Settings::needs_evidence)
            || settings.has_budget()
            || settings.tuning.tune.is_some()
            || settings.preset == Effort::VendorStandard
    }
}

/// The same scheme without what some engines do not take.
fn plain(settings: &Settings) -> Settings {
    Settings {
        outliers: None,
        activations: ActivationScales::Dynamic,
        embeddings: None,
        kv_cache: KvPrecision::Float,
        asymmetric: false,
        rules: Vec::new(),
        ..settings.clone()
    }
}

/// What is asked for, or what the preset offers: of alternatives the first that is taken. Rotations help
/// where a scale covers a whole row and where activations are integers, and cost a matrix before a tied
/// head; small groups may do without. A stream with norms behind its halves cannot be turned.
fn offered(
    spec: &ModelSpec,
    settings: &Settings,
    wanted: &transform::Settings,
) -> Vec<Vec<transform::Settings>> {
    if wanted.rotate.is_some() {
        return vec![vec![wanted.clone()]];
    }
    let none = transform::Settings { rotate: Some(Rotate::None), ..Default::default() };
    let fused = transform::Settings { rotate: Some(Rotate::Hadamard), ..Default::default() };
    let online = transform::Settings { rotate_down: Some(true), ..fused };
    let preset = settings.preset().ok();
    let integers = preset.is_some_and(|it| it.activations != Activations::Float);
    let hadamard = if integers { vec![online, fused] } else { vec![fused] };
    let grid = preset.and_then(|it| settings.grid(it.weights, None, !settings.asymmetric).ok());
    let coarse = grid.is_some_and(|it| it.bits() == 4 && it.granularity() == Granularity::Channel);
    let offered = match settings.preset {
        _ if spec.post_norm().is_some() => vec![vec![none]],
        Effort::Fast if coarse || integers => vec![[hadamard, vec![none]].concat()],
        Effort::Fast | Effort::VendorStandard => vec![vec![none]],
        Effort::Balanced | Effort::Best => vec![vec![none], hadamard],
    };
    let filled = |it: Vec<_>| it.iter().map(|it| wanted.clone().or(it)).collect();
    offered.into_iter().map(filled).collect()
}
