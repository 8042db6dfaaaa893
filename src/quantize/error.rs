//! Why a model cannot be quantized as wanted.
use crate::{
    calibrate::NonFinite,
    linalg::{LinalgError, least_squares::FitError},
    model::WeightError,
    number::OutOfRange,
    scheme::{GROUP_SIZES, Granularity, WeightGrid},
};

/// Settings and model do not fit.
#[derive(Debug, thiserror::Error)]
pub enum QuantizeError {
    /// A setting out of its range.
    #[error(transparent)]
    Range(#[from] OutOfRange),
    /// Numbers that have no such groups, or no zero points.
    #[error(
        "scheme `{name}` has no {found}: it is {grid}\nhint: leave --group-size and --asymmetric out, or name the scheme's own in a rule, or take an integer scheme such as w4a16"
    )]
    Grid {
        /// The grid.
        name: &'static str,
        /// With its groups.
        grid: String,
        /// What was wanted.
        found: String,
    },
    /// No preset of this name.
    #[error("unknown scheme `{found}`\nhint: {hint}")]
    Scheme {
        /// As it was given.
        found: String,
        /// The names.
        hint: String,
    },
    /// A setting that cannot be read.
    #[error("`{found}` is not {expected}")]
    Value {
        /// As it was given.
        found: String,
        /// What may stand there.
        expected: &'static str,
    },
    /// A rule's pattern is not a regular expression.
    #[error("rule `{pattern}`: {reason}\nhint: after `re:` stands a regular expression")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A rule names nothing.
    #[error("rule `{pattern}` matches no weight of the model\nhint: {hint}")]
    NoMatch {
        /// The pattern.
        pattern: String,
        /// Near names.
        hint: String,
    },
    /// A rule names something that is not a matrix of the architecture.
    #[error(
        "rule `{pattern}` matches `{tensor}`, which is no weight matrix\nhint: norms, biases and unknown tensors are kept as they are"
    )]
    NotAMatrix {
        /// The pattern.
        pattern: String,
        /// What it matches.
        tensor: String,
    },
    /// Columns that the group size does not divide.
    #[error(
        "tensor `{tensor}` has {columns} columns, which groups of {} do not divide{}\nhint: {}",
        grid.group_size(*columns), more(*others), fits(*grid, *columns)
    )]
    Uneven {
        /// The first such weight.
        tensor: String,
        /// Its columns.
        columns: usize,
        /// The grid with its groups.
        grid: WeightGrid,
        /// Other weights with the same trouble.
        others: usize,
    },
    /// A size that cannot be reached.
    #[error(
        "a package of {wanted} bytes ({wanted_bits:.3} bits per weight) cannot be had: the smallest has {smallest} bytes ({bits:.3} bits per weight)\nhint: --max-bytes {smallest} or more; rules and float embeddings (--embeddings, --for) take from the budget, too"
    )]
    Budget {
        /// Bytes that may be used.
        wanted: u64,
        /// The same in bits per weight.
        wanted_bits: f64,
        /// Bytes of the smallest package.
        smallest: u64,
        /// The same in bits per weight.
        bits: f64,
    },
    /// The model is quantized already.
    #[error(
        "tensor `{tensor}` is quantized already\nhint: quantize the float checkpoint that the package was made from"
    )]
    Already {
        /// The first such weight.
        tensor: String,
    },
    /// A type that is not computed with.
    #[error("tensor `{tensor}`: expected F32, F16 or BF16, found {found}")]
    Type {
        /// Its name.
        tensor: String,
        /// Its type.
        found: String,
    },
    /// Activations that are not finite.
    #[error(transparent)]
    NonFinite(#[from] NonFinite),
    /// The inputs of a layer give no usable second moments.
    #[error("tensor `{tensor}`: {source}\nhint: more calibration text, or --rounding nearest")]
    Hessian {
        /// The first weight that reads them.
        tensor: String,
        /// What is wrong.
        source: LinalgError,
    },
    /// A layer whose static activations no text tells about.
    #[error(
        "tensor `{tensor}` saw too few tokens for a static scale of its input\nhint: more calibration text, or --activations dynamic"
    )]
    Unseen {
        /// The weight.
        tensor: String,
    },
    /// The least-squares target of a layer.
    #[error(transparent)]
    Fit(#[from] FitError),
    /// A weight cannot be had.
    #[error(transparent)]
    Weight(#[from] WeightError),
    /// A quantized part would take the name of another tensor.
    #[error(
        "tensor `{tensor}` of the checkpoint has the name of a part of a quantized weight\nhint: keep that weight in float by a rule"
    )]
    NameTaken {
        /// The name.
        tensor: String,
    },
}

fn more(others: usize) -> String {
    if others == 0 { String::new() } else { format!(" (so do {others} others)") }
}

fn fits(grid: WeightGrid, columns: usize) -> String {
    if grid.with(Granularity::Channel, grid.symmetric()).is_none() {
        let name = grid.name();
        return format!(
            "{name} has no other groups: a rule gives such weights another scheme, --group-fallback channel int8 by rows"
        );
    }
    let fitting: Vec<String> = GROUP_SIZES
        .iter()
        .filter(|size| columns.is_multiple_of(**size))
        .map(ToString::to_string)
        .collect();
    let sizes = match fitting.as_slice() {
        [] => "no group size fits, --group-size channel does".to_owned(),
        some => format!("--group-size {} or channel fits", some.join(" or ")),
    };
    format!("{sizes}; --group-fallback channel uses channel for such weights only")
}
