//! What every form of models keeps, whichever it is.
use crate::{cli::program, util::golden};
use milm_compress::{
    checkpoint::BUILTINS,
    linalg::Team,
    package::{
        self, Opened,
        format::{FORMATS, Format, Place, Target, Wanted, Writer},
        onnx::GRAPH_FILE,
    },
    progress::Silent,
};
use predicates::{prelude::*, str::contains};
use std::{
    fs,
    path::{Path, PathBuf},
};

const MINI: &str = "builtin:milm-mini";

/// Names of the forms that claim a path.
fn claims(path: &str) -> Vec<&'static str> {
    let place = Place::of(path);
    FORMATS.iter().filter(|form| form.sniff(&place)).map(|form| form.name()).collect()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn writers() -> impl Iterator<Item = (&'static dyn Format, &'static dyn Writer)> {
    FORMATS.iter().filter_map(|form| Some((*form, form.writer()?)))
}

fn write(writer: &dyn Writer, opened: &Opened, path: &Path) -> Result<(), package::PackageError> {
    let target = Target { path, force: false, progress: &Silent, note: &|_| () };
    writer.write(opened, &Wanted::default(), &target)
}

/// The carried model in every form, and the form's name.
fn in_every_form(top: &Path) -> Vec<(&'static str, PathBuf)> {
    let folder = top.join("plain");
    fs::create_dir(&folder).unwrap();
    for (name, bytes) in BUILTINS[0].files {
        fs::write(folder.join(name), bytes).unwrap();
    }
    let opened = package::open(MINI).unwrap();
    let mut all = vec![(FORMATS[0].name(), folder)];
    for (form, writer) in writers() {
        let path = top.join(format!("model.{}", form.name()));
        write(writer, &opened, &path).unwrap();
        all.push((form.name(), path));
    }
    assert_eq!(all.len(), FORMATS.len(), "a form that nothing writes is not tried here");
    all
}

/// All files and folders below a folder.
fn below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            below(&path, found);
        }
        found.push(path);
    }
}

#[test]
fn every_model_is_claimed_by_its_form_alone() {
    let (top, mut paths) = (tempfile::tempdir().unwrap(), Vec::new());
    below(&golden(), &mut paths);
    let mut models = 0;
    for path in &paths {
        let has = |file| path.join(file).is_file();
        let checkpoint = has("model.safetensors") || has("model.safetensors.index.json");
        let gguf = path.extension().is_some_and(|it| it == "gguf");
        let expected: &[&str] = match (checkpoint, gguf) {
            (true, _) => &["hugging-face"],
            (_, true) => &["gguf"],
            // Numbers, scripts, texts, and folders of folders.
            _ => &[],
        };
        assert_eq!(claims(text(path)), expected, "{}", path.display());
        models += usize::from(!expected.is_empty());
    }
    assert!(models >= 17, "{models}");
    assert_eq!(claims(MINI), ["hugging-face"]);
    for (form, path) in in_every_form(top.path()) {
        assert_eq!(claims(text(&path)), [form], "{}", path.display());
    }
    assert_eq!(claims(text(&top.path().join("model.onnx").join(GRAPH_FILE))), ["onnx"]);
}

#[test]
fn a_folder_that_two_forms_claim_is_named_with_both() {
    let top = tempfile::tempdir().unwrap();
    let forms = in_every_form(top.path());
    let (_, folder) = forms.iter().find(|(form, _)| *form == "onnx").unwrap();
    let weights = folder.join("model.safetensors");
    fs::copy(top.path().join("plain/model.safetensors"), &weights).unwrap();
    for verb in ["inspect", "verify"] {
        let told = contains(text(folder)).and(contains("`hugging-face` and `onnx`"));
        let told = told.and(contains("hint: move the files of one of them"));
        program().arg(verb).arg(folder).assert().code(2).stderr(told);
    }
    assert!(package::open(text(folder)).is_err());
    fs::remove_file(weights).unwrap();
    package::open(text(folder)).unwrap();

    // Hubs put graphs of others beside checkpoints.
    let plain = top.path().join("plain");
    fs::write(plain.join(GRAPH_FILE), b"\x08\x08\x12\x05other").unwrap();
    assert_eq!(claims(text(&plain)), ["hugging-face"]);
    package::open(text(&plain)).unwrap();
    fs::copy(folder.join(GRAPH_FILE), plain.join(GRAPH_FILE)).unwrap();
    assert_eq!(claims(text(&plain)), ["hugging-face", "onnx"]);

    // Who names the graph means it.
    let (graph, team) = (plain.join(GRAPH_FILE), Team::new(1));
    assert_eq!(claims(text(&graph)), ["onnx"]);
    package::inspect(text(&graph), 1, &team, &Silent).unwrap_err();
    let graph = folder.join(GRAPH_FILE);
    package::inspect(text(&graph), 1, &team, &Silent).unwrap();
}

#[test]
fn forms_refuse_before_weights_are_read() {
    let top = tempfile::tempdir().unwrap();
    for (form, writer) in writers() {
        let path = top.path().join(form.name());
        let mut opened = package::open(MINI).unwrap();
        // Whoever reads a weight says that it is missing.
        opened.model.weights.raw.clear();
        let asked =
            |opened: &Opened| writer.accepts(&opened.model.spec, &[].into(), &Wanted::default());
        asked(&opened).unwrap();
        let missing = write(writer, &opened, &path).unwrap_err().to_string();
        assert!(missing.contains("model."), "{missing}");

        opened.model.spec.blocks.clear();
        let refused = asked(&opened).unwrap_err().to_string();
        assert!(refused.contains("no blocks") && refused.contains("hint: "), "{refused}");
        assert_eq!(write(writer, &opened, &path).unwrap_err().to_string(), refused);
        assert!(!path.exists(), "{}", path.display());
    }
}

#[test]
fn a_truncated_model_is_an_error_in_every_form() {
    let top = tempfile::tempdir().unwrap();
    let team = Team::new(1);
    for (form, path) in in_every_form(top.path()) {
        if let Err(error) = package::open(text(&path)) {
            // Graphs for one engine are no model to go on from, whole or not.
            assert!(
                ["hexagon", "openvino"].contains(&form)
                    && error.to_string().contains("for one engine"),
                "{form}: {error}"
            );
            continue;
        }
        let mut files = vec![path.clone()];
        if path.is_dir() {
            files.clear();
            below(&path, &mut files);
            // What a model is opened by; texts have tests of their own.
            let of_weights = |file: &&str| file.starts_with("model.");
            files.retain(|it| {
                it.file_name().and_then(|it| it.to_str()).as_ref().is_some_and(of_weights)
            });
        }
        assert!(!files.is_empty(), "{form}");
        for file in files {
            let whole = fs::read(&file).unwrap();
            let half = whole.len() / 2;
            for cut in [0, 1, 4, 8, 9, 100, half, whole.len() - 1] {
                fs::write(&file, &whole[..cut]).unwrap();
                let told = format!("{form}, {} at {cut}", file.display());
                assert!(package::open(text(&path)).is_err(), "{told}");
                assert!(package::inspect(text(&path), 1, &team, &Silent).is_err(), "{told}");
                // Without a manifest there is nothing to compare with; with one it tells.
                let verified = package::verify(text(&path), &team, &Silent);
                assert!(verified.is_err() || verified.is_ok_and(|it| !it.passed()), "{told}");
            }
            fs::write(&file, whole).unwrap();
        }
        package::open(text(&path)).unwrap();
    }
}
