//! What becomes of each tensor, decided before any work.
use super::{Effort, Embeddings, GroupFallback, GroupSize, QuantizeError, Rule, Settings};
use crate::{
    model::{Model, Part, Role, TensorSpec, part_name},
    number,
    scheme::{Activations, Format, Granularity, Preset, Schemes, TensorScheme, WeightGrid},
    tensor::RawTensor,
};
use std::collections::BTreeMap;

/// What becomes of one tensor.
#[derive(Clone, Debug)]
pub struct Planned {
    /// What it does; `None` for tensors that the architecture does not know.
    pub role: Option<Role>,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its scheme; `None` to keep it as it is.
    pub scheme: Option<TensorScheme>,
    /// Bytes in the checkpoint.
    pub source_bytes: u64,
    /// Bytes in the package, all parts.
    pub bytes: u64,
}

impl Planned {
    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.shape.iter().map(|n| *n as u64).product()
    }

    /// Bits per weight, with scales, zero points and shapes.
    pub fn bits_per_weight(&self) -> f64 {
        self.bytes as f64 * 8.0 / self.elements().max(1) as f64
    }
}

/// What becomes of a model.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Every tensor of the checkpoint by name.
    pub tensors: BTreeMap<String, Planned>,
}

impl Plan {
    /// Refuses to tune what leaves nothing to tune, or what learns in float only.
    pub fn check_tuning(&self, preset: Effort) -> Result<(), QuantizeError> {
        let wrong = |found: String, expected| Err(QuantizeError::Value { found, expected });
        if preset == Effort::VendorStandard {
            let expected = "possible: it is what a vendor's toolkit does, to compare with";
            return wrong("tune with preset vendor-standard".to_owned(), expected);
        }
        let linear = |it: &Planned| it.role.is_some_and(Role::is_block_linear);
        let blocks = self.tensors.iter().filter(|(_, it)| linear(it));
        let schemes: Vec<_> = blocks.filter_map(|(name, it)| Some((name, it.scheme?))).collect();
        let rounded = schemes.iter().find(|(_, it)| it.activations != Activations::Float);
        if let Some((name, _)) = rounded {
            let expected = "possible: scales are tuned for float activations (w4a16, w8a16)";
            return wrong(format!("tune with int8 activations of `{name}`"), expected);
        }
        if schemes.iter().all(|(_, it)| it.outliers > 0) {
            let expected = "possible: --outliers leaves none, and neither does --rule re:.*=float";
            return wrong("tune without a weight of a block on one grid".to_owned(), expected);
        }
        Ok(())
    }

    /// Bytes of all tensors in the package.
    pub fn bytes(&self) -> u64 {
        self.tensors.values().map(|it| it.bytes).sum()
    }

    /// Bytes of all tensors in the checkpoint.
    pub fn source_bytes(&self) -> u64 {
        self.tensors.values().map(|it| it.source_bytes).sum()
    }

    /// Bits per weight over all tensors.
    pub fn bits_per_weight(&self) -> f64 {
        let elements: u64 = self.tensors.values().map(Planned::elements).sum();
        self.bytes() as f64 * 8.0 / elements.max(1) as f64
    }

    /// Bits per weight over the quantized tensors alone.
    pub fn quantized_bits_per_weight(&self) -> Option<f64> {
        let quantized = || self.tensors.values().filter(|it| it.scheme.is_some());
        let elements: u64 = quantized().map(Planned::elements).sum();
        let bytes: u64 = quantized().map(|it| it.bytes).sum();
        (elements > 0).then(|| bytes as f64 * 8.0 / elements as f64)
    }

    /// Scheme and shape `[out, in]` of a weight, if it is quantized.
    pub fn scheme(&self, name: &str) -> Option<(TensorScheme, [usize; 2])> {
        let planned = self.tensors.get(name)?;
        Some((planned.scheme?, <[usize; 2]>::try_from(planned.shape.as_slice()).ok()?))
    }

    /// Scheme and shape `[out, in]` of each weight that is quantized.
    pub fn schemes(&self) -> Schemes {
        let names = self.tensors.keys();
        names.filter_map(|name| Some((name.clone(), self.scheme(name)?))).collect()
    }

    /// Names of tensors that the architecture does not know, in order.
    pub fn carried(&self) -> Vec<String> {
        let unknown = self.tensors.iter().filter(|(_, it)| it.role.is_none());
        unknown.map(|(name, _)| name.clone()).collect()
    }
}

/// A rule with its pattern ready to match.
struct Matcher<'a> {
    rule: &'a Rule,
    regex: Option<regex::Regex>,
    target: Option<(&'static Preset, Option<GroupSize>)>,
}

impl<'a> Matcher<'a> {
    fn new(rule: &'a Rule) -> Result<Self, QuantizeError> {
        let pattern = rule.pattern.strip_prefix("re:");
        let regex = pattern.map(|it| regex::Regex::new(&format!("^(?:{it})"))).transpose();
        let regex = regex.map_err(|error| QuantizeError::Pattern {
            pattern: rule.pattern.clone(),
            reason: error.to_string().lines().last().unwrap_or_default().trim().to_owned(),
        })?;
        Ok(Self { rule, regex, target: rule.target()? })
    }

    fn matches(&self, name: &str) -> bool {
        match &self.regex {
            Some(regex) => regex.is_match(name),
            None => {
                name == self.rule.pattern
                    || name.strip_suffix(".weight") == Some(&self.rule.pattern)
            }
        }
    }
}

/// Decides what becomes of each tensor of a float model. Nothing is read but names and shapes.
pub fn plan(model: &Model, settings: &Settings) -> Result<Plan, QuantizeError> {
    if let Some(tensor) = model.weights.quantized.keys().next() {
        return Err(QuantizeError::Already { tensor: tensor.clone() });
    }
    number::check(settings)?;
    let specs: BTreeMap<&str, &TensorSpec> =
        model.spec.tensors.iter().map(|it| (it.name.as_str(), it)).collect();
    let matchers: Vec<Matcher<'_>> =
        settings.rules.iter().map(Matcher::new).collect::<Result<_, _>>()?;
    for matcher in &matchers {
        check_rule(matcher, &specs, model)?;
    }
    let (preset, outliers) = (settings.preset()?, settings.outlier_share()?);
    let tied = model.spec.tied;
    let fixed = settings.static_activations()?;
    let chooser = Chooser { settings, preset, matchers, tied, outliers, fixed };
    let mut plan = Plan::default();
    let mut uneven: Vec<(String, usize, WeightGrid)> = Vec::new();
    for (name, raw) in &model.weights.raw {
        let spec = specs.get(name.as_str()).copied();
        let mut scheme = None;
        if let (Some(spec), &[_, columns]) = (spec, raw.shape.as_slice()) {
            scheme = chooser.scheme(spec, raw)?;
            if let Some(chosen) = &mut scheme {
                chooser.fit(name, columns, chosen, &mut uneven);
                chooser.keep_apart(spec, columns, chosen);
            }
        }
        plan.tensors.insert(name.clone(), planned(spec.map(|it| it.role), raw, scheme));
    }
    if let Some((tensor, columns, grid)) = uneven.first().cloned() {
        return Err(QuantizeError::Uneven { tensor, columns, grid, others: uneven.len() - 1 });
    }
    check_names(&plan)?;
    Ok(plan)
}

fn planned(role: Option<Role>, raw: &RawTensor, scheme: Option<TensorScheme>) -> Planned {
    let source_bytes = raw.bytes.len() as u64;
    let parts = scheme.zip(<[usize; 2]>::try_from(raw.shape.as_slice()).ok());
    let parts = parts.and_then(|(it, shape)| it.parts(shape));
    let bytes =
        parts.map_or(source_bytes, |parts| parts.iter().map(|part| part.bytes as u64).sum());
    Planned { role, shape: raw.shape.clone(), scheme, source_bytes, bytes }
}

/// Settings, ready to be asked about a weight.
struct Chooser<'a> {
    settings: &'a Settings,
    preset: &'static Preset,
    matchers: Vec<Matcher<'a>>,
    tied: bool,
    /// Share of columns that are kept at int8.
    outliers: Option<f64>,
    /// Whether int8 activations have static scales.
    fixed: bool,
}

impl Chooser<'_> {
    /// The scheme of a matrix.
    fn scheme(
        &self,
        spec: &TensorSpec,
        raw: &RawTensor,
    ) -> Result<Option<TensorScheme>, QuantizeError> {
        let rule = self.matchers.iter().rev().find(|matcher| matcher.matches(&spec.name));
        let ends = matches!(spec.role, Role::Embed | Role::Head);
        let wanted = match rule {
            Some(matcher) => {
                matcher.target.map(|(preset, group)| (preset.weights, group, preset.activations))
            }
            None if spec.part != Part::Weight => None,
            None if ends => self.ends(),
            None if spec.role.is_block_linear() => {
                Some((self.preset.weights, None, self.preset.activations))
            }
            None => None,
        };
        let Some((grid, group, mut activations)) = wanted else { return Ok(None) };
        if self.settings.preset == Effort::VendorStandard {
            activations = Activations::Float; // static grids do it
        }
        if self.fixed && activations == Activations::Int8PerToken {
            activations = Activations::Int8Static;
        }
        let Some(scale_type) = raw.float_type() else {
            return Err(QuantizeError::Type {
                tensor: spec.name.clone(),
                found: raw.dtype.to_string(),
            });
        };
        if spec.role == Role::Embed && !self.tied {
            activations = Activations::Float; // rows are looked up, nothing is multiplied
        }
        // Zero points gain next to nothing at int8, and GGUF's blocks have none.
        let asymmetric = self.settings.asymmetric && !(ends && grid.bits() == 8);
        let weights = self.settings.grid(grid, group, !asymmetric)?;
        // The standard knows integer products of linear layers only.
        let seen = if spec.role == Role::Embed { Activations::Float } else { activations };
        let format = weights.format(seen);
        Ok(Some(TensorScheme { weights, scale_type, activations, format, outliers: 0 }))
    }

    /// Embeddings and head unless a rule says otherwise.
    fn ends(&self) -> Option<(WeightGrid, Option<GroupSize>, Activations)> {
        let Preset { weights, activations, .. } = *self.preset;
        let channel = Some(GroupSize::Channel);
        match self.settings.embeddings() {
            Embeddings::Eight => Some((WeightGrid::INT8, channel, activations)),
            Embeddings::Four if weights.bits() == 4 => Some((weights, None, activations)),
            Embeddings::Four => Some((WeightGrid::INT4, None, activations)),
            Embeddings::Float => None,
        }
    }

    /// Falls back to one scale per row, or notes that the groups do not fit.
    fn fit(
        &self,
        name: &str,
        columns: usize,
        scheme: &mut TensorScheme,
        uneven: &mut Vec<(String, usize, WeightGrid)>,
    ) {
        if scheme.weights.groups(columns).is_some() {
            return;
        }
        match self.settings.group_fallback {
            GroupFallback::Channel => {
                let (grid, rows) = (scheme.weights, Granularity::Channel);
                // Numbers with groups of one size give way to int8.
                let format = grid.with(rows, true).map_or(Format::default(), |_| scheme.format);
                scheme.weights = grid.with(rows, grid.symmetric()).unwrap_or(WeightGrid::INT8);
                scheme.format = format;
            }
            GroupFallback::Error => {
                uneven.push((name.to_owned(), columns, scheme.weights));
            }
        }
    }

    /// Keeps some columns of an int4 weight in a block at int8: whole groups, or eights where a row
    /// is one group.
    fn keep_apart(&self, spec: &TensorSpec, columns: usize, scheme: &mut TensorScheme) {
        let Some(share) = self.outliers else { return };
        if scheme.weights.bits() != 4 || !spec.role.is_block_linear() {
            return;
        }
        let unit = match scheme.weights.granularity() {
            Granularity::Channel => 8,
            Granularity::Group(size) => size,
        };
        let count = (share * columns as f64 / unit as f64).round().max(1.0) as usize * unit;
        if count < columns {
            scheme.outliers = count;
        }
    }
}

/// A rule matches some matrix of the architecture.
fn check_rule(
    matcher: &Matcher<'_>,
    specs: &BTreeMap<&str, &TensorSpec>,
    model: &Model,
) -> Result<(), QuantizeError> {
    let pattern = || matcher.rule.pattern.clone();
    let is_matrix = |name: &str| {
        specs.get(name).is_some_and(|it| it.input.is_some() && it.part == Part::Weight)
    };
    let mut matched = model.weights.raw.keys().filter(|name| matcher.matches(name)).peekable();
    let first = matched.peek().map(|name| (*name).clone());
    match first {
        _ if matched.any(|name| is_matrix(name)) => Ok(()),
        Some(tensor) => Err(QuantizeError::NotAMatrix { pattern: pattern(), tensor }),
        None => {
            let matrices = specs.keys().copied().filter(|name| is_matrix(name));
            Err(QuantizeError::NoMatch { hint: near(&pattern(), matrices), pattern: pattern() })
        }
    }
}

/// Names that look like `pattern`.
fn near<'a>(pattern: &str, names: impl Iterator<Item = &'a str>) -> String {
    let pattern = pattern.trim_start_matches("re:").trim_end_matches(".weight");
    let module = |name: &'a str| name.strip_suffix(".weight").unwrap_or(name);
    let mut scored: Vec<(f64, &str)> = names
        .map(module)
        .map(|name| {
            // A short pattern is rather meant as an end of a name.
            let tail = name.get(name.len().saturating_sub(pattern.len())..).unwrap_or(name);
            let alike = |name| strsim::normalized_damerau_levenshtein(pattern, name);
            (alike(name).max(alike(tail)), name)
        })
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    let names: Vec<String> = scored.iter().take(3).map(|(_, name)| format!("`{name}`")).collect();
    format!("near are {}; `re:` starts a regular expression", names.join(", "))
}

/// No part of a quantized weight has the name of another stored tensor.
fn check_names(plan: &Plan) -> Result<(), QuantizeError> {
    for (name, tensor) in &plan.tensors {
        let (Some(scheme), &[out, columns]) = (tensor.scheme, tensor.shape.as_slice()) else {
            continue;
        };
        for part in scheme.parts([out, columns]).unwrap_or_default() {
            let part = part_name(name, part.suffix);
            if part != *name && plan.tensors.contains_key(&part) {
                return Err(QuantizeError::NameTaken { tensor: part });
            }
        }
    }
    Ok(())
}
