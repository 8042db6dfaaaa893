//! Recipes: TOML files with the steps of a compression, in order.
//!
//! ```toml
//! description = "int4 weights in groups of 64"
//!
//! [[step]]
//! do = "quantize"
//! scheme = "w4a16"
//! group-size = "64"
//!
//! [[step]]
//! do = "eval"
//! reference = "source"
//! max-kl = 0.5
//! ```
//! The keys of a step are the flags of the verb that it names. Add a step: one name in
//! [`Verb`], one arm where the pipeline runs it.
mod error;

pub use error::RecipeError;

use crate::number::check_value;
use clap::{Arg, Args, Command};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use toml::{Table, Value};

/// A recipe as it is written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// What it is for, in a sentence.
    #[serde(default)]
    pub description: String,
    /// The model to work on, unless the command names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// What is done, in order.
    #[serde(default, rename = "step")]
    pub steps: Vec<Step>,
}

/// One step: a verb and its settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// What is done.
    #[serde(rename = "do")]
    pub verb: Verb,
    /// The flags of the verb, by name.
    #[serde(flatten)]
    pub settings: Table,
}

/// What a step may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    /// Prune, to be quantized or as the result.
    Prune,
    /// Let what was pruned learn from the model of the recipe.
    Recover,
    /// Quantize into the package.
    Quantize,
    /// Measure the package.
    Eval,
    /// Generate with the package.
    Run,
    /// Write the package in the form of another engine.
    Export,
}

impl Verb {
    /// As recipes write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prune => "prune",
            Self::Recover => "recover",
            Self::Quantize => "quantize",
            Self::Eval => "eval",
            Self::Run => "run",
            Self::Export => "export",
        }
    }
}

impl Recipe {
    /// Reads a recipe. `file` stands in errors.
    pub fn parse(file: &str, text: &str) -> Result<Self, RecipeError> {
        let recipe: Self = toml::from_str(text).map_err(|e| RecipeError::toml(file, text, &e))?;
        if recipe.steps.is_empty() {
            return Err(RecipeError::NoSteps { file: file.to_owned() });
        }
        Ok(recipe)
    }

    /// Overrides a setting: `quantize.group-size=128` sets it in every step of that verb.
    pub fn set(&mut self, assignment: &str) -> Result<(), RecipeError> {
        let form = || RecipeError::Assignment { found: assignment.to_owned() };
        let (path, value) = assignment.split_once('=').ok_or_else(form)?;
        let (verb, key) = path.trim().split_once('.').ok_or_else(form)?;
        // A bare word that is no TOML value is a string.
        let parsed: Option<Table> = toml::from_str(&format!("value = {value}")).ok();
        let value = parsed
            .and_then(|mut table| table.remove("value"))
            .unwrap_or_else(|| Value::String(value.trim().to_owned()));
        let mut found = false;
        for step in self.steps.iter_mut().filter(|step| step.verb.name() == verb) {
            step.settings.insert(key.to_owned(), value.clone());
            found = true;
        }
        if found { Ok(()) } else { Err(RecipeError::NoStep { verb: verb.to_owned() }) }
    }
}

impl Step {
    /// The settings as the verb reads them. Its flags say which keys there are and which exclude
    /// each other; an unknown key is an error with a suggestion.
    pub fn settings<T: DeserializeOwned + Args>(&self, file: &str) -> Result<T, RecipeError> {
        let wrong = |reason: String| RecipeError::step(file, self.verb.name(), reason);
        let flags = T::augment_args(Command::new(self.verb.name()));
        self.check_keys(&flags).map_err(wrong)?;
        for (key, value) in &self.settings {
            let flag = flags.get_arguments().find(|flag| flag.get_long() == Some(key));
            flag.map_or(Ok(()), |flag| check_value(flag, value))
                .map_err(|reason| RecipeError::value(file, self.verb.name(), Some(key), &reason))?;
        }
        let read = |table: Table| T::deserialize(Value::Table(table));
        read(self.settings.clone()).map_err(|error| {
            let alone = |(key, value): &(&String, &Value)| {
                read([((*key).clone(), (*value).clone())].into_iter().collect()).is_err()
            };
            let key = self.settings.iter().find(alone).map(|(key, _)| key.as_str());
            RecipeError::value(file, self.verb.name(), key, error.message())
        })
    }

    /// Refuses keys that are no flags, and pairs of flags that exclude each other.
    fn check_keys(&self, flags: &Command) -> Result<(), String> {
        let flag = |key: &str| flags.get_arguments().find(|flag| flag.get_long() == Some(key));
        if let Some(key) = self.settings.keys().find(|key| flag(key).is_none()) {
            let known = flags.get_arguments().filter_map(Arg::get_long);
            let known: Vec<String> = known.map(|name| format!("`{name}`")).collect();
            return Err(format!("unknown key `{key}`, expected one of {}", known.join(", ")));
        }
        let off = |value: &Value| match value {
            Value::Boolean(on) => !on,
            Value::Array(values) => values.is_empty(),
            _ => false,
        };
        let given: Vec<&str> =
            self.settings.iter().filter(|(_, it)| !off(it)).map(|(key, _)| key.as_str()).collect();
        for key in &given {
            let excluded = flag(key).map(|flag| flags.get_arg_conflicts_with(flag));
            let mut excluded = excluded.iter().flatten().filter_map(|flag| flag.get_long());
            if let Some(other) = excluded.find(|other| given.contains(other)) {
                return Err(format!("`{key}` cannot be used with `{other}`"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, Deserialize, PartialEq, clap::Args)]
    #[serde(default, rename_all = "kebab-case")]
    struct Settings {
        #[arg(long)]
        scheme: String,
        #[arg(long, conflicts_with = "whole")]
        group_size: Option<String>,
        #[arg(long)]
        whole: bool,
    }

    const TEXT: &str = "[[step]]\ndo = \"quantize\"\nscheme = \"w4a16\"\n";

    #[test]
    fn flags_override_the_keys_of_a_step() {
        let mut recipe = Recipe::parse("r.toml", TEXT).unwrap();
        recipe.set("quantize.scheme=w8a8").unwrap();
        recipe.set("quantize.group-size = \"128\"").unwrap();
        let settings: Settings = recipe.steps[0].settings("r.toml").unwrap();
        assert_eq!(
            settings,
            Settings { scheme: "w8a8".into(), group_size: Some("128".into()), whole: false }
        );
        assert!(recipe.set("prune.keep=0.5").unwrap_err().to_string().contains("`prune`"));
        assert!(recipe.set("quantize").is_err());
    }

    #[test]
    fn an_unknown_key_is_an_error_with_a_suggestion() {
        let text = format!("{TEXT}group-sizes = \"64\"\n");
        let recipe = Recipe::parse("r.toml", &text).unwrap();
        let error = recipe.steps[0].settings::<Settings>("r.toml").unwrap_err().to_string();
        assert!(error.contains("`group-sizes`") && error.contains("`group-size`?"), "{error}");
        let error = Recipe::parse("r.toml", "descripton = \"x\"").unwrap_err().to_string();
        assert!(error.contains("`description`?"), "{error}");
        let error = Recipe::parse("r.toml", "[[step]]\ndo = \"quantise\"").unwrap_err().to_string();
        assert!(error.contains("`quantize`?"), "{error}");
    }

    #[test]
    fn flags_that_exclude_each_other_do_so_as_keys() {
        let read = |more: &str| {
            let recipe = Recipe::parse("r.toml", &format!("{TEXT}{more}")).unwrap();
            recipe.steps[0].settings::<Settings>("r.toml").map_err(|error| error.to_string())
        };
        let error = read("group-size = \"64\"\nwhole = true").unwrap_err();
        assert!(error.contains("`group-size` cannot be used with `whole`"), "{error}");
        assert!(read("group-size = \"64\"\nwhole = false").is_ok());
        assert!(read("whole = true").unwrap().whole);
        let error = read("whole = 3").unwrap_err();
        assert!(error.contains("`whole`: ") && error.contains("boolean"), "{error}");
    }

    #[test]
    fn a_recipe_without_steps_is_refused() {
        assert!(matches!(Recipe::parse("r.toml", ""), Err(RecipeError::NoSteps { .. })));
    }

    #[test]
    fn writing_and_reading_again_gives_the_same_recipe() {
        let recipe = Recipe::parse("r.toml", TEXT).unwrap();
        let text = toml::to_string(&recipe).unwrap();
        assert_eq!(Recipe::parse("r.toml", &text).unwrap(), recipe);
    }
}
