//! Forms that models are stored in: what each can do, [`Format`], and which there are, [`FORMATS`].
//!
//! Add a form: a folder in `package` with a type that is a [`Format`], and a line in `registry.rs`.
mod export;
mod place;
mod registry;

pub use export::{EncodingsVersion, GraphForm, Target, Wanted, Writer};
pub use place::Place;
pub use registry::{FORMATS, engines, find, holds_weights, inspect, open, verify, verify_deep};

use super::{
    Declared, EngineFit, Inspected, Opened, PackageError, Verification,
    inspect::inspect_model,
    trust::{by_manifest, decode},
};
use crate::{linalg::Team, progress::Progress};

/// A form that models are stored in.
pub trait Format: Sync {
    /// Its name.
    fn name(&self) -> &'static str;

    /// Whether this form is what stands at a place. A form tells its own from names; no weight is read.
    fn sniff(&self, place: &Place<'_>) -> bool;

    /// Whether a model is one file; else it is a folder.
    fn is_file(&self) -> bool {
        false
    }

    /// Endings of files that hold weights and nothing else.
    fn weight_files(&self) -> &'static [&'static str] {
        &[]
    }

    /// Opens a model.
    fn open(&self, name: &str) -> Result<Opened, PackageError>;

    /// Compares a model with the hashes that were recorded when it was made; by default file by file.
    fn verify(
        &self,
        name: &str,
        team: &Team,
        progress: &dyn Progress,
    ) -> Result<Verification, PackageError> {
        Ok(by_manifest(name, &|_, _, _, _| Vec::new(), team, progress)?.result)
    }

    /// Decodes every weight of a model that [`Format::verify`] found intact, and adds what it finds.
    fn decode(
        &self,
        name: &str,
        team: &Team,
        progress: &dyn Progress,
        result: &mut Verification,
    ) -> Result<(), PackageError> {
        decode(&self.open(name)?, team, progress, result);
        Ok(())
    }

    /// Looks at a model. At most about `sample` weights are read for the statistics.
    fn inspect(
        &self,
        name: &str,
        sample: u64,
        team: &Team,
        progress: &dyn Progress,
    ) -> Result<Inspected, PackageError> {
        let opened = self.open(name)?;
        let figures = inspect_model(&opened.model, sample, team, progress)?;
        Ok(Inspected { kind: opened.kind.name(), figures })
    }

    /// The form as `export` writes it, where it does.
    fn writer(&self) -> Option<&dyn Writer> {
        None
    }

    /// Engines that load this form, and whether they load a model in it.
    fn engines(&self, _of: Declared<'_>) -> Vec<EngineFit> {
        Vec::new()
    }
}
