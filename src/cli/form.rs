//! The forms that `export` writes, by their names in the registry.
use crate::package::format::{FORMATS, Format, Writer};
use clap::{ValueEnum, builder::PossibleValue};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::{fmt, sync::LazyLock};

/// A form that is written.
#[derive(Clone, Copy)]
pub(super) struct Form {
    /// The form.
    pub(super) format: &'static dyn Format,
    /// How it is written.
    pub(super) writer: &'static dyn Writer,
}

static FORMS: LazyLock<Vec<Form>> = LazyLock::new(|| {
    let written = |format: &&'static dyn Format| {
        let (format, writer) = (*format, format.writer()?);
        Some(Form { format, writer })
    };
    FORMATS.iter().filter_map(written).collect()
});
static NAMES: LazyLock<Vec<&str>> =
    LazyLock::new(|| FORMS.iter().map(|form| form.format.name()).collect());

impl ValueEnum for Form {
    fn value_variants<'a>() -> &'a [Self] {
        &FORMS
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.format.name()).help(self.writer.about()))
    }
}

/// The first of the registry.
impl Default for Form {
    fn default() -> Self {
        FORMS[0]
    }
}

impl PartialEq for Form {
    fn eq(&self, other: &Self) -> bool {
        self.format.name() == other.format.name()
    }
}

impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.format.name())
    }
}

impl Serialize for Form {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.format.name())
    }
}

impl<'de> Deserialize<'de> for Form {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let form = FORMS.iter().copied().find(|form| form.format.name() == name);
        form.ok_or_else(|| D::Error::unknown_variant(&name, &NAMES))
    }
}
