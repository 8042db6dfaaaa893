//! ONNX folders among the forms of models.
use super::{
    OnnxError,
    encodings::{ENCODINGS_FILE, UNCOVERED_FILE},
    export::{Export, ExportOptions, accepts},
    genai::{self, GENAI_FILE},
    names::{DATA_FILE, GRAPH_FILE},
    read::{changed_tensors, is_own, model},
};
use crate::{
    checkpoint::{Folder, INDEX_FILE, OutputDir, WEIGHTS_FILE},
    linalg::Team,
    model::ModelSpec,
    package::{
        Declared, EngineFit, Manifest, Opened, PackageError, Verification,
        format::{EncodingsVersion, Format, GraphForm, Place, Target, Wanted, Writer},
        opened::Parts,
        trust::{Contents, by_manifest, seal},
    },
    progress::Progress,
    scheme::Schemes,
    tensor::{Bytes, FloatType},
};
use std::path::Path;

/// A folder with a decoder as a graph and its weights beside it.
#[derive(Debug)]
pub(in crate::package) struct Form;

impl Format for Form {
    fn name(&self) -> &'static str {
        "onnx"
    }

    /// A graph, or a folder with one. Beside other weights it is this program's own that claims the
    /// folder: hubs put graphs of others beside checkpoints.
    fn sniff(&self, place: &Place<'_>) -> bool {
        let named = place.file().and_then(Path::file_name).is_some_and(|it| it == GRAPH_FILE);
        let alone = !place.has_any(&[WEIGHTS_FILE, INDEX_FILE]);
        let has_graph = place.has_any(&[GRAPH_FILE]);
        named || has_graph && (alone || place.folder().is_some_and(is_own))
    }

    /// The model of a folder that this program wrote, or of its graph; all of it is in memory.
    fn open(&self, name: &str) -> Result<Opened, PackageError> {
        let path = Path::new(name);
        let folder = match path.parent().filter(|_| path.is_file()) {
            Some(parent) => Folder::open(&parent.join(".").to_string_lossy())?,
            None => Folder::open(name)?,
        };
        let manifest = Manifest::read(&folder)?;
        let (config, weights) = model(&folder)?;
        if let Some((point, _)) = weights.activations.iter().find(|(_, grid)| !grid.is_sound()) {
            return Err(PackageError::Unsupported { key: "activations", found: point.clone() });
        }
        let (name, file) = (folder.name().to_owned(), GRAPH_FILE.to_owned());
        Opened::in_memory(&name, Parts { config, weights, file, folder, manifest })
    }

    fn verify(
        &self,
        name: &str,
        team: &Team,
        progress: &dyn Progress,
    ) -> Result<Verification, PackageError> {
        let changed = |folder: &Folder, _: &Manifest, file: &str, _: &Bytes| {
            let names = if file == DATA_FILE { changed_tensors(folder) } else { Vec::new() };
            names.into_iter().map(|name| format!("tensor `{name}`")).collect()
        };
        Ok(by_manifest(name, &changed, team, progress)?.result)
    }

    fn engines(&self, of: Declared<'_>) -> Vec<EngineFit> {
        vec![EngineFit::of("ONNX Runtime", accepts(of.spec), "as ONNX")]
    }

    fn writer(&self) -> Option<&dyn Writer> {
        Some(self)
    }
}

impl Writer for Form {
    fn about(&self) -> &'static str {
        "A folder for ONNX Runtime and converters of devices"
    }

    fn misplaced(&self, wanted: &Wanted<'_>) -> Option<&'static str> {
        let beside_codes = wanted.graph != Some(GraphForm::Float);
        let taken: &[_] =
            if beside_codes { &["dtype", "graph"] } else { &["dtype", "graph", "encodings"] };
        wanted.beside(taken)
    }

    fn accepts(
        &self,
        spec: &ModelSpec,
        _schemes: &Schemes,
        _wanted: &Wanted<'_>,
    ) -> Result<(), PackageError> {
        Ok(accepts(spec)?)
    }

    fn write(
        &self,
        opened: &Opened,
        wanted: &Wanted<'_>,
        target: &Target<'_>,
    ) -> Result<(), PackageError> {
        let float = wanted.float.unwrap_or(FloatType::F32);
        let quantized = !opened.model.weights.quantized.is_empty();
        let form = if quantized { GraphForm::Qdq } else { GraphForm::Float };
        let form = wanted.graph.unwrap_or(form);
        let export =
            Export::plan(&opened.model, ExportOptions { form, float, chain: opened.chain() })?;
        let output = OutputDir::create(target.path, target.force)?;
        let mut files = export.write(&output, &opened.folder, target.progress)?;
        let grids = quantized || !opened.model.weights.activations.is_empty();
        if form == GraphForm::Float && grids {
            let version = wanted.encodings.unwrap_or(EncodingsVersion::V1);
            let covered = export.write_encodings_file(&output, version, &mut files)?;
            (target.note)(&format!(
                "{ENCODINGS_FILE}: {} weights and {} activations; {} listed in {UNCOVERED_FILE} have none",
                covered.weights,
                covered.activations,
                covered.open_weights.len() + covered.open_activations.len(),
            ));
        }
        match genai::config(opened, GRAPH_FILE) {
            Ok(config) => {
                let text = format!("{config:#}\n");
                files.insert(GENAI_FILE.to_owned(), output.write(GENAI_FILE, text.as_bytes())?);
            }
            Err(reason) => {
                let reason = reason.lines().next().unwrap_or_default().to_owned();
                (target.note)(&format!("no {GENAI_FILE} for onnxruntime-genai: {reason}"));
            }
        }
        let coded = form == GraphForm::Qdq;
        let contents = Contents { form: form.name(), tensors: export.tensors(), coded };
        seal(opened, contents, files, &output, target.progress)?;
        output.commit()?;
        for note in export.notes() {
            (target.note)(&note);
        }
        (target.note)(&format!(
            "{}: {} nodes, {} tensors, {:.1} MB",
            target.path.display(),
            export.nodes(),
            export.tensors(),
            export.bytes() as f64 / 1e6
        ));
        Ok(())
    }
}

impl From<OnnxError> for PackageError {
    fn from(error: OnnxError) -> Self {
        Self::Form(Box::new(error))
    }
}
