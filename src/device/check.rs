//! Packages and plans against a profile.
use super::{Inputs, Profile, Rule};
use crate::{
    model::{ModelSpec, Role},
    scheme::{Granularity, Schemes, TensorScheme},
};
use std::fmt;

/// Bytes of a key's or value's number while a model runs: float16.
const KV_BYTES: usize = 2;

/// A package, or a plan of one.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// The architecture.
    pub spec: &'a ModelSpec,
    /// Quantized weights with their shapes.
    pub schemes: &'a Schemes,
    /// Bytes of all tensors.
    pub bytes: u64,
}

/// One thing that a chip does not take.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Misfit {
    /// The tensor, or what it is about.
    pub tensor: String,
    /// What the chip takes.
    pub expected: String,
    /// What there is.
    pub found: String,
    /// What to change.
    pub change: String,
    /// It runs, but not on the chip.
    pub elsewhere: bool,
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tensor, expected, found, change, .. } = self;
        write!(f, "`{tensor}`: expected {expected}, found {found} ({change})")
    }
}

impl Profile {
    /// Bytes of memory while a model runs: weights, and keys and values of the profile's context.
    pub fn memory(&self, of: Candidate<'_>) -> u64 {
        let tokens = self.context.min(of.spec.max_positions);
        of.bytes + (tokens * of.spec.kv_bytes_per_token(KV_BYTES)) as u64
    }

    /// Everything that the chip does not take of a package or plan; `memory` is a budget that takes
    /// the place of the profile's.
    pub fn misfits(&self, of: Candidate<'_>, memory: Option<u64>) -> Vec<Misfit> {
        let mut all = Vec::new();
        for tensor in &of.spec.tensors {
            if let Some((scheme, [rows, columns])) = of.schemes.get(&tensor.name) {
                let found = self.weight(&tensor.name, *scheme, (*rows, *columns), tensor.role);
                all.extend(found);
            }
        }
        let size = |what: &str, expected: u64, found: u64, change: &str| Misfit {
            tensor: what.to_owned(),
            expected: format!("at most {:.1} MB", expected as f64 / 1e6),
            found: format!("{:.1} MB", found as f64 / 1e6),
            change: change.to_owned(),
            elsewhere: false,
        };
        let smaller = "fewer bits, or prune first";
        if let Some(most) = self.max_bytes.filter(|most| of.bytes > most.0) {
            all.push(size("all tensors", most.0, of.bytes, smaller));
        }
        let (budget, needed) = (memory.or(self.memory.map(|it| it.0)), self.memory(of));
        if let Some(budget) = budget.filter(|budget| needed > *budget) {
            let change = "fewer bits, prune first, or a smaller `context` in a profile of your own";
            all.push(size("memory", budget, needed, change));
        }
        all
    }

    /// What is wrong with one weight.
    fn weight(
        &self,
        name: &str,
        scheme: TensorScheme,
        (rows, columns): (usize, usize),
        role: Role,
    ) -> Vec<Misfit> {
        let mut all = Vec::new();
        let mut add = |expected: String, found: String, change: &str, elsewhere| {
            let (tensor, change) = (name.to_owned(), change.to_owned());
            all.push(Misfit { tensor, expected, found, change, elsewhere });
        };
        if !self.weights.iter().any(|rule| rule.takes(scheme, columns, role)) {
            let rules: Vec<String> = self.weights.iter().map(ToString::to_string).collect();
            add(rules.join(", or "), described(scheme), self.change(scheme, columns, role), false);
        }
        if scheme.outliers > 0 && !self.outliers {
            let found = format!("{} outlier columns", scheme.outliers);
            add("one grid for all columns".into(), found, "without --outliers", false);
        }
        if !columns.is_multiple_of(self.columns_multiple) {
            let expected = format!("columns a multiple of {}", self.columns_multiple);
            add(expected, columns.to_string(), "prune to such a width, or keep it in float", false);
        }
        if let Some(most) = self.npu_rows.filter(|most| rows > *most) {
            let found = format!("{rows}; the CPU multiplies it");
            add(format!("at most {most} rows"), found, "nothing, or a smaller vocabulary", true);
        }
        all
    }

    /// What to change in a weight that no rule takes.
    fn change(&self, scheme: TensorScheme, columns: usize, role: Role) -> &'static str {
        let fits = |it: TensorScheme| self.weights.iter().any(|rule| rule.takes(it, columns, role));
        let mut other = scheme;
        let grid = scheme.weights;
        other.weights = grid.with(grid.granularity(), true).unwrap_or(grid);
        if fits(other) {
            return "without --asymmetric";
        }
        other.weights = grid.with(Granularity::Channel, true).unwrap_or(grid);
        if fits(other) {
            return "--group-size channel";
        }
        other.weights = scheme.weights;
        other.activations = crate::scheme::Activations::Float;
        if fits(other) {
            return "--scheme with float activations, such as w4a16 or w8a16";
        }
        other.activations = crate::scheme::Activations::Int8Static;
        if fits(other) {
            return "--activations static";
        }
        "another --scheme, or --group-size 32 or channel"
    }
}

impl Rule {
    fn takes(&self, scheme: TensorScheme, columns: usize, role: Role) -> bool {
        let grid = match scheme.weights.granularity() {
            Granularity::Channel => self.channel,
            // A group as wide as the row is a row.
            Granularity::Group(size) => {
                let groups = self.group_multiple.is_some_and(|of| size.is_multiple_of(of));
                groups || self.channel && size == columns
            }
        };
        // The rows of an embedding are looked up, never multiplied.
        let inputs =
            role == Role::Embed || self.activations.contains(&Inputs::from(scheme.activations));
        let symmetric = scheme.weights.symmetric() || !self.symmetric;
        let integers = scheme.weights.name() == format!("int{}", self.bits);
        integers && grid && inputs && symmetric
    }
}

fn described(scheme: TensorScheme) -> String {
    format!("{} with {} activations", scheme.weights, Inputs::from(scheme.activations))
}
