//! GGUF files among the forms of models.
use super::{
    accepts::accepts,
    ends::Ends,
    error::{ExportError, GgufError},
    export::{Export, ExportOptions},
    inspect,
    model::model,
    schemes::accepts_schemes,
    split::open,
    verify,
};
use crate::{
    checkpoint::OutputFile,
    linalg::Team,
    model::{Block, ModelSpec, RopeScaling},
    package::{
        Declared, EngineFit, Inspected, Opened, PackageError, Verification,
        engines::{first_line, kept_pairs},
        format::{Format, Place, Target, Wanted, Writer},
        opened::Parts,
    },
    progress::Progress,
    scheme::Schemes,
};
use std::path::Path;

/// The ending of the files.
const ENDING: &str = "gguf";

/// A file with metadata, tokenizer and weights in blocks of ggml.
#[derive(Debug)]
pub(in crate::package) struct Form;

impl Format for Form {
    fn name(&self) -> &'static str {
        "gguf"
    }

    fn sniff(&self, place: &Place<'_>) -> bool {
        place.file().and_then(Path::extension).is_some_and(|it| it == ENDING)
    }

    fn is_file(&self) -> bool {
        true
    }

    fn weight_files(&self) -> &'static [&'static str] {
        &[ENDING]
    }

    /// The model with the file's codes; all of it is in memory.
    fn open(&self, name: &str) -> Result<Opened, PackageError> {
        let gguf = open(Path::new(name))?;
        let (folder, weights) = model(&gguf)?;
        let (config, file) = (folder.config()?, gguf.file);
        let parts = Parts { config, weights, file: file.clone(), folder, manifest: None };
        Opened::in_memory(&file, parts)
    }

    fn verify(
        &self,
        name: &str,
        _team: &Team,
        progress: &dyn Progress,
    ) -> Result<Verification, PackageError> {
        verify::verify(name, progress)
    }

    fn decode(
        &self,
        name: &str,
        team: &Team,
        progress: &dyn Progress,
        result: &mut Verification,
    ) -> Result<(), PackageError> {
        verify::decode(name, team, progress, result)
    }

    fn inspect(
        &self,
        name: &str,
        sample: u64,
        team: &Team,
        progress: &dyn Progress,
    ) -> Result<Inspected, PackageError> {
        let figures = inspect::inspect(&open(Path::new(name))?, sample, team, progress)?;
        Ok(Inspected { kind: self.name(), figures })
    }

    fn engines(&self, of: Declared<'_>) -> Vec<EngineFit> {
        vec![EngineFit::new("llama.cpp", llama_cpp(of), "as GGUF")]
    }

    fn writer(&self) -> Option<&dyn Writer> {
        Some(self)
    }
}

impl Writer for Form {
    fn about(&self) -> &'static str {
        "One file for llama.cpp"
    }

    fn misplaced(&self, wanted: &Wanted<'_>) -> Option<&'static str> {
        wanted.beside(&["dtype", "embeddings", "head", "pre"])
    }

    fn accepts(
        &self,
        spec: &ModelSpec,
        schemes: &Schemes,
        wanted: &Wanted<'_>,
    ) -> Result<(), PackageError> {
        let refused = accepts(spec).and_then(|_| accepts_schemes(spec, schemes));
        let refused = refused.and_then(|()| ends(wanted).accepts(spec));
        Ok(refused.map_err(ExportError::from)?)
    }

    fn write(
        &self,
        opened: &Opened,
        wanted: &Wanted<'_>,
        target: &Target<'_>,
    ) -> Result<(), PackageError> {
        let text = opened.text()?;
        let (float, pre) = (wanted.float, wanted.pre);
        let options = ExportOptions { float, pre, chain: opened.chain(), ends: ends(wanted) };
        let export = Export::plan(&opened.model, &text.files(), options)?;
        let mut file = OutputFile::create(target.path, target.force)?;
        let rounded = export.write(&mut file, target.progress)?;
        file.commit()?;
        for note in export.notes() {
            (target.note)(note);
        }
        for it in rounded {
            let twice = if it.twice { ", of what it was rounded to before" } else { "" };
            (target.note)(&format!(
                "tensor `{}` rounded to {}: relative error {:.4}{twice}",
                it.name, it.format, it.error
            ));
        }
        (target.note)(&format!(
            "{}: {} tensors, {}, architecture {}, {:.1} MB",
            target.path.display(),
            export.tensors(),
            export.common_format(),
            export.arch().name(),
            export.bytes() as f64 / 1e6
        ));
        Ok(())
    }
}

/// What embeddings and head are rounded to.
fn ends(wanted: &Wanted<'_>) -> Ends {
    Ends { embeddings: wanted.embeddings, head: wanted.head }
}

/// What the export would say of the file.
fn llama_cpp(of: Declared<'_>) -> Option<String> {
    let Declared { spec, config, schemes } = of;
    // Divisors that are only planned are ones, which the export would leave out.
    let divisors = matches!(spec.rope.scaling, RopeScaling::LongRope { .. });
    if divisors && spec.blocks.iter().any(Block::has_head_norms) {
        return Some(format!("`{}` takes no rotary divisors there: cut whole heads", spec.family));
    }
    kept_pairs(spec, config).or_else(|| {
        let refused = accepts(spec).and_then(|_| accepts_schemes(spec, schemes));
        refused.err().and_then(first_line)
    })
}

impl From<GgufError> for PackageError {
    fn from(error: GgufError) -> Self {
        Self::Form(Box::new(error))
    }
}

impl From<ExportError> for PackageError {
    fn from(error: ExportError) -> Self {
        Self::Form(Box::new(error))
    }
}
