//! Hugging Face folders among the forms of models.
use super::{engines::engines, open::open, verify::verify};
use crate::{
    checkpoint::{INDEX_FILE, WEIGHTS_FILE},
    linalg::Team,
    package::{
        Declared, EngineFit, Opened, PackageError, Verification,
        format::{Format, Place},
    },
    progress::Progress,
};

/// A folder with `config.json` and safetensors: a checkpoint, or a package in compressed-tensors form.
#[derive(Debug)]
pub(in crate::package) struct Form;

impl Format for Form {
    fn name(&self) -> &'static str {
        "hugging-face"
    }

    fn sniff(&self, place: &Place<'_>) -> bool {
        place.has_any(&[WEIGHTS_FILE, INDEX_FILE])
    }

    fn weight_files(&self) -> &'static [&'static str] {
        &["safetensors"]
    }

    fn open(&self, name: &str) -> Result<Opened, PackageError> {
        open(name)
    }

    fn verify(
        &self,
        name: &str,
        team: &Team,
        progress: &dyn Progress,
    ) -> Result<Verification, PackageError> {
        verify(name, team, progress)
    }

    fn engines(&self, of: Declared<'_>) -> Vec<EngineFit> {
        engines(of)
    }
}
