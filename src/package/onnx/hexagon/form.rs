//! Folders for the HTP among the forms of models.
use super::{
    super::{
        OnnxError,
        export::{Export, ExportOptions},
    },
    rules::{HexagonError, Lengths, accepts},
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
};
use serde_json::{Value, json};

/// What the sessions want; it tells the form, too.
const OPTIONS_FILE: &str = "hexagon.json";
/// The graphs.
const PROMPT_FILE: &str = "prompt.onnx";
const TOKEN_FILE: &str = "token.onnx";
/// Writes text with both.
const PROGRAM_FILE: &str = "run.py";
const PROGRAM: &str = include_str!("run.py");

/// A folder with graphs for prompts and for a token, and a program that runs them.
#[derive(Debug)]
pub(in crate::package) struct Form;

impl Format for Form {
    fn name(&self) -> &'static str {
        "hexagon"
    }

    fn sniff(&self, place: &Place<'_>) -> bool {
        place.has_any(&[OPTIONS_FILE])
    }

    /// Its graphs are for one chip: there is nothing to go on from.
    fn open(&self, name: &str) -> Result<Opened, PackageError> {
        Err(OnnxError::Compiled { folder: name.to_owned() }.into())
    }

    fn engines(&self, of: Declared<'_>) -> Vec<EngineFit> {
        let accepted = accepts(of.spec, of.schemes);
        vec![EngineFit::of("Hexagon HTP", accepted, "by onnxruntime-qnn, in its emulator")]
    }

    fn writer(&self) -> Option<&dyn Writer> {
        Some(self)
    }
}

impl Writer for Form {
    fn about(&self) -> &'static str {
        "A folder for Qualcomm's HTP by onnxruntime-qnn"
    }

    fn misplaced(&self, wanted: &Wanted<'_>) -> Option<&'static str> {
        wanted.beside(&["context", "prompt"])
    }

    fn accepts(
        &self,
        spec: &ModelSpec,
        schemes: &Schemes,
        wanted: &Wanted<'_>,
    ) -> Result<(), PackageError> {
        accepts(spec, schemes)?;
        Lengths::of(spec, wanted.context, wanted.prompt)?;
        Ok(())
    }

    fn write(
        &self,
        opened: &Opened,
        wanted: &Wanted<'_>,
        target: &Target<'_>,
    ) -> Result<(), PackageError> {
        let Lengths { context, prompt } =
            Lengths::of(&opened.model.spec, wanted.context, wanted.prompt)?;
        let options = |tokens| ExportOptions {
            form: GraphForm::Fixed { tokens, past: context - tokens },
            float: FloatType::F16,
            chain: opened.chain(),
        };
        let [reads, writes] =
            [prompt, 1].map(|tokens| Export::plan(&opened.model, options(tokens)));
        let (reads, writes) = (reads?, writes?);
        let output = OutputDir::create(target.path, target.force)?;
        let graphs = [(PROMPT_FILE, &reads), (TOKEN_FILE, &writes)];
        let mut files = Export::write_all(&graphs, &output, &opened.folder, target.progress)?;
        let mut text = |name: &str, text: &str| -> Result<(), PackageError> {
            files.insert(name.to_owned(), output.write(name, text.as_bytes())?);
            Ok(())
        };
        text(OPTIONS_FILE, &format!("{:#}\n", sessions(opened, (context, prompt))))?;
        text(PROGRAM_FILE, PROGRAM)?;
        let contents = Contents { form: "hexagon", tensors: reads.tensors(), coded: false };
        seal(opened, contents, files, &output, target.progress)?;
        output.commit()?;
        for note in reads.notes() {
            (target.note)(&note);
        }
        (target.note)(&format!(
            "{}: {} and {} nodes, {} tensors, {:.1} MB, {prompt} tokens of {context} at once",
            target.path.display(),
            reads.nodes(),
            writes.nodes(),
            reads.tensors(),
            reads.bytes() as f64 / 1e6
        ));
        Ok(())
    }
}

/// Options of the sessions, and what a program has to know of the graphs.
fn sessions(opened: &Opened, (context, prompt): (usize, usize)) -> Value {
    let tokenizer = opened.tokenizer().ok();
    json!({
        "engine": "onnxruntime 1.32.0 with onnxruntime-qnn 2.7.0 (QNN 2.51.0)",
        "context": context,
        "prompt": prompt,
        "graphs": { "prompt": PROMPT_FILE, "token": TOKEN_FILE },
        // Snapdragon 8 Gen 3; one of the two is enough, none stands for a chip without blocks.
        "options": { "soc_model": "57", "htp_arch": "75", "enable_htp_fp16_precision": "1" },
        // What the tokenizer puts before a text.
        "prefix_ids": tokenizer.and_then(|it| it.encode("", true).ok()).unwrap_or_default(),
        "eos_token_id": tokenizer.map(|it| it.eos().to_vec()).unwrap_or_default(),
    })
}

impl From<HexagonError> for PackageError {
    fn from(error: HexagonError) -> Self {
        Self::Form(Box::new(error))
    }
}
