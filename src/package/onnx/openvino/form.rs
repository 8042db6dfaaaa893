//! Folders for OpenVINO among the forms of models.
use super::{
    super::{
        OnnxError, data,
        export::{Export, ExportOptions, accepts},
    },
    translate::{Translated, translate},
};
use crate::{
    checkpoint::{FileRecord, OutputDir},
    linalg::Team,
    model::ModelSpec,
    package::{
        Declared, EngineFit, Opened, PackageError, Verification,
        format::{Format, GraphForm, Place, Target, Wanted, Writer},
        trust::{Contents, by_manifest, seal},
    },
    progress::{Progress, Unit},
    scheme::Schemes,
    tensor::FloatType,
};

/// The network, which tells the form, and its constants.
const NETWORK_FILE: &str = "openvino_model.xml";
const CONSTANTS_FILE: &str = "openvino_model.bin";

/// Float activations of products with codes, as the package says; OpenVINO's own is int8 in groups of 32.
const SETTINGS: [(&str, &str); 1] = [("DYNAMIC_QUANTIZATION_GROUP_SIZE", "0")];

/// A folder with a decoder as OpenVINO's IR.
#[derive(Debug)]
pub(in crate::package) struct Form;

impl Format for Form {
    fn name(&self) -> &'static str {
        "openvino"
    }

    fn sniff(&self, place: &Place<'_>) -> bool {
        place.has_any(&[NETWORK_FILE])
    }

    /// Its network is for one engine: there is nothing to go on from.
    fn open(&self, name: &str) -> Result<Opened, PackageError> {
        Err(OnnxError::Compiled { folder: name.to_owned() }.into())
    }

    fn verify(
        &self,
        name: &str,
        team: &Team,
        progress: &dyn Progress,
    ) -> Result<Verification, PackageError> {
        Ok(by_manifest(name, &|_, _, _, _| Vec::new(), team, progress)?.result)
    }

    fn decode(
        &self,
        name: &str,
        _team: &Team,
        _progress: &dyn Progress,
        _result: &mut Verification,
    ) -> Result<(), PackageError> {
        self.open(name).map(|_| ())
    }

    fn engines(&self, of: Declared<'_>) -> Vec<EngineFit> {
        vec![EngineFit::of("OpenVINO", accepts(of.spec), "by export --to openvino")]
    }

    fn writer(&self) -> Option<&dyn Writer> {
        Some(self)
    }
}

impl Writer for Form {
    fn about(&self) -> &'static str {
        "A folder for OpenVINO and OpenVINO GenAI"
    }

    fn misplaced(&self, wanted: &Wanted<'_>) -> Option<&'static str> {
        wanted.beside(&["dtype"])
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
        let options = ExportOptions { form: GraphForm::Qdq, float, chain: opened.chain() };
        let export = Export::plan(&opened.model, options)?;
        let translated = translate(&export)?;
        let output = OutputDir::create(target.path, target.force)?;
        let mut files = export.write_beside(&output, &opened.folder)?;
        let record = constants(&translated, opened, &output, target.progress)?;
        files.insert(CONSTANTS_FILE.to_owned(), record);
        let network = translated.network.xml(&SETTINGS);
        files.insert(NETWORK_FILE.to_owned(), output.write(NETWORK_FILE, network.as_bytes())?);
        let tensors = translated.constants.len();
        let contents = Contents { form: "openvino", tensors, coded: false };
        seal(opened, contents, files, &output, target.progress)?;
        output.commit()?;
        for note in export.notes() {
            (target.note)(&note);
        }
        let bytes: u64 = translated.constants.iter().map(|(_, it)| it.bytes() as u64).sum();
        (target.note)(&format!(
            "{}: {} layers, {tensors} constants, {:.1} MB",
            target.path.display(),
            translated.network.count(),
            bytes as f64 / 1e6
        ));
        Ok(())
    }
}

/// Writes the constants, each at its place.
fn constants(
    translated: &Translated<'_>,
    opened: &Opened,
    output: &OutputDir,
    progress: &dyn Progress,
) -> Result<FileRecord, OnnxError> {
    let sizes = translated.constants.iter().map(|(_, it)| it.bytes() as u64);
    progress.start("export", sizes.sum(), Unit::Bytes);
    let file = output.hashed(CONSTANTS_FILE)?;
    let written = data::write(file, |queue| {
        let mut end = 0;
        for (offset, stored) in &translated.constants {
            queue.gap((offset - end) as usize);
            end = *offset;
            stored.write(&opened.model, &mut |piece| {
                queue.append(piece);
                end += piece.len() as u64;
                progress.advance(piece.len() as u64);
                Ok(())
            })?;
            if end - offset != stored.bytes() as u64 {
                return Err(OnnxError::Form { what: format!("tensor `{}`", stored.name) });
            }
            queue.end();
        }
        Ok(())
    });
    progress.finish();
    Ok(written?.2)
}
