//! Forms that weights are stored in and models are not read in, and how they become plain: fp8
//! codes, experts joined into one tensor, a tied head that stands in the file again.
//!
//! Add a form: one file here and one line in [`plain`].

mod error;
mod experts;
mod foreign;
mod fp8;
mod head;
mod method;

pub use error::StoredError;
pub(super) use foreign::model;

use crate::{
    checkpoint::Tensors,
    model::{ConfigError, ModelSpec},
};
use serde_json::Value;

/// Why tensors cannot be brought into the plain form.
#[derive(Debug)]
pub(super) enum Fault {
    Config(ConfigError),
    Stored(StoredError),
}

impl From<ConfigError> for Fault {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl From<StoredError> for Fault {
    fn from(error: StoredError) -> Self {
        Self::Stored(error)
    }
}

/// Brings config and tensors of the folder `name` into the form that models are read in. What is
/// plain already is left as it is.
pub(super) fn plain(
    name: &str,
    config: &mut Value,
    tensors: &mut Tensors,
) -> Result<ModelSpec, Fault> {
    method::check(config)?;
    fp8::decode(config, tensors)?;
    let spec = ModelSpec::from_config(config)?;
    experts::split(&spec, tensors)?;
    head::settle(name, config, &spec, tensors);
    Ok(spec)
}
