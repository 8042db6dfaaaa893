//! Folders for OpenVINO among the forms of models.
use super::{
    super::{
        OnnxError,
        export::{Export, ExportOptions, accepts},
    },
    constants::Constants,
    ir::Network,
    strings::{Strings, detokenizer, tokenizer},
    translate::translate,
    words::Words,
};
use crate::{
    checkpoint::OutputDir,
    model::ModelSpec,
    package::{
        Declared, EngineFit, Opened, PackageError,
        format::{Format, GraphForm, Place, Target, Wanted, Writer},
        trust::{Contents, seal},
    },
    scheme::Schemes,
    tensor::FloatType,
    text::Tokenizer,
};

/// The network, which tells the form, and the names of both its files without their endings.
const NETWORK_FILE: &str = "openvino_model.xml";
const MODEL: &str = "openvino_model";

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
        let tensors = translated.constants.len();
        let mut put =
            |stem: &str, (network, constants): (&Network, &Constants<'_>), facts: &[_]| {
                let file = format!("{stem}.bin");
                let record = constants.write(&opened.model, (&output, &file), target.progress)?;
                files.insert(file, record);
                let settings: &[_] = if stem == MODEL { &SETTINGS } else { &[] };
                let (file, text) = (format!("{stem}.xml"), network.xml(facts, settings));
                let record = output.write(&file, text.as_bytes())?;
                files.insert(file, record);
                Ok::<_, PackageError>(())
            };
        put(MODEL, (&translated.network, &translated.constants), &[])?;
        match strings(opened) {
            Ok((texts, [tokenizer, detokenizer])) => {
                put("openvino_tokenizer", (&tokenizer.network, &tokenizer.constants), &texts)?;
                put(
                    "openvino_detokenizer",
                    (&detokenizer.network, &detokenizer.constants),
                    &texts,
                )?;
            }
            Err(reason) => (target.note)(&format!(
                "no openvino_tokenizer.xml ({reason}): `convert_tokenizer` of openvino-tokenizers may make it"
            )),
        }
        let contents = Contents { form: "openvino", tensors, coded: false };
        seal(opened, contents, files, &output, target.progress)?;
        output.commit()?;
        for note in export.notes() {
            (target.note)(&note);
        }
        (target.note)(&format!(
            "{}: {} layers, {tensors} constants, {:.1} MB",
            target.path.display(),
            translated.network.count(),
            translated.constants.bytes() as f64 / 1e6
        ));
        Ok(())
    }
}

/// Facts of a tokenizer.
type Facts = Vec<(&'static str, String)>;

/// The tokenizer as networks and what programs want to know of it, or why there are none.
fn strings(opened: &Opened) -> Result<(Facts, [Strings; 2]), String> {
    let told = |error: &dyn std::fmt::Display| {
        error.to_string().lines().next().unwrap_or_default().to_owned()
    };
    let own = opened.tokenizer().map_err(|error| told(&error))?;
    let bytes = opened.folder.read("tokenizer.json").map_err(|error| told(&error))?;
    let bytes = bytes.ok_or("no tokenizer.json")?;
    let json = serde_json::from_slice(&bytes).map_err(|error| told(&error))?;
    let words = Words::read(&json)?;
    let end = own.eos().first().copied().or(own.bos()).unwrap_or(0);
    let mut facts = vec![("eos_token_id", end.to_string()), ("pad_token_id", end.to_string())];
    facts.extend(own.bos().map(|id| ("bos_token_id", id.to_string())));
    let around = around(own).ok_or("no ids around a text")?;
    Ok((facts, [tokenizer(&words, &around, end as i32), detokenizer(&words)]))
}

/// Ids that a tokenizer puts before and behind a text.
fn around(tokenizer: &Tokenizer) -> Option<[Vec<i32>; 2]> {
    let (plain, whole) = (tokenizer.encode("a", false).ok()?, tokenizer.encode("a", true).ok()?);
    let mut places = whole.windows(plain.len().max(1));
    let at = places.position(|ids| ids == plain)?;
    let ids = |ids: &[u32]| ids.iter().map(|id| *id as i32).collect();
    Some([ids(&whole[..at]), ids(&whole[at + plain.len()..])])
}
