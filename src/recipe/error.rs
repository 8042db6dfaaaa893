//! Errors of recipes, with suggestions.

/// A recipe cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// The file is not a recipe.
    #[error("recipe `{file}`: {reason}{hint}")]
    Toml {
        /// The file.
        file: String,
        /// What the parser says, with the place.
        reason: String,
        /// A suggestion, or nothing.
        hint: String,
    },
    /// The settings of a step do not fit its verb.
    #[error("recipe `{file}`, step `{verb}`: {reason}{hint}")]
    Step {
        /// The file.
        file: String,
        /// The step's verb.
        verb: &'static str,
        /// What is wrong.
        reason: String,
        /// A suggestion, or nothing.
        hint: String,
    },
    /// Nothing to do.
    #[error(
        "recipe `{file}` has no steps\nhint: begin one with `[[step]]` and `do = \"quantize\"`"
    )]
    NoSteps {
        /// The file.
        file: String,
    },
    /// An override that is not of the form `step.key=value`.
    #[error("cannot read `--set {found}`\nhint: write `--set quantize.group-size=128`")]
    Assignment {
        /// What was given.
        found: String,
    },
    /// An override for a step that the recipe has not.
    #[error("the recipe has no step `{verb}` to set a key of")]
    NoStep {
        /// The verb.
        verb: String,
    },
}

impl RecipeError {
    pub(super) fn toml(file: &str, text: &str, error: &toml::de::Error) -> Self {
        let reason = crate::shown::toml_error(text, error);
        let hint = suggestion(error.message());
        Self::Toml { file: file.to_owned(), reason, hint }
    }

    pub(super) fn step(file: &str, verb: &'static str, reason: String) -> Self {
        let hint = suggestion(&reason);
        Self::Step { file: file.to_owned(), verb, reason, hint }
    }

    /// A key has a value that its flag does not take.
    pub(super) fn value(file: &str, verb: &'static str, key: Option<&str>, reason: &str) -> Self {
        let hint = suggestion(reason);
        let reason = key.map_or(reason.to_owned(), |key| format!("`{key}`: {reason}"));
        Self::Step { file: file.to_owned(), verb, reason, hint }
    }
}

/// From "unknown field `a`, expected one of `b`, `c`", as serde says it: the nearest of the expected names.
fn suggestion(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let Some(found) = quoted.next().filter(|_| message.starts_with("unknown")) else {
        return String::new();
    };
    let near = quoted.map(|name| (strsim::jaro_winkler(found, name), name));
    match near.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(score, _)| *score > 0.7) {
        Some((_, name)) => format!("\nhint: did you mean `{name}`?"),
        None => String::new(),
    }
}
