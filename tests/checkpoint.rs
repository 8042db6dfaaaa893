//! Folders in and out: shards, hostile files, outputs that are whole or absent.
use milm_compress::checkpoint::{
    Folder, INDEX_FILE, OutputDir, ShardWriter, TensorPlan, WEIGHTS_FILE, parse_safetensors, sha256,
};
use milm_compress::tensor::{Bytes, Dtype};
use std::{fs, path::Path};

fn golden(name: &str) -> String {
    format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn copy_of(name: &str) -> tempfile::TempDir {
    let top = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(golden(name)).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), top.path().join(entry.file_name())).unwrap();
    }
    top
}

fn open(path: &Path) -> Folder {
    Folder::open(path.to_str().unwrap()).unwrap()
}

fn error(path: &Path) -> String {
    open(path).tensors().unwrap_err().to_string()
}

#[test]
fn shards_and_single_files_are_read() {
    let sharded = Folder::open(&golden("llama")).unwrap().tensors().unwrap();
    assert!(sharded.files.values().collect::<std::collections::BTreeSet<_>>().len() == 4);
    assert!(sharded.unlisted.is_empty());
    assert!(sharded.raw.contains_key("model.norm.weight"));
    let carried = Folder::open("builtin:milm-mini").unwrap();
    let tensors = carried.tensors().unwrap();
    let parameters: usize = tensors.raw.values().map(milm_compress::tensor::RawTensor::len).sum();
    assert_eq!(parameters, 3_935_424, "as the model's card says");
    assert_eq!(
        carried.side_files().unwrap(),
        ["README.md", "generation_config.json", "tokenizer.json", "tokenizer_config.json"]
    );
}

#[test]
fn a_wrong_name_is_told_with_what_to_do() {
    let told = |name| Folder::open(name).unwrap_err().to_string();
    assert!(told("/nowhere").contains("no checkpoint folder at `/nowhere`\nhint:"));
    assert!(told("builtin:milm-maxi").contains("`builtin:milm-mini` is known"));
    let empty = tempfile::tempdir().unwrap();
    assert!(error(empty.path()).contains("has no `model.safetensors`"));
    assert!(open(empty.path()).config().unwrap_err().to_string().contains("`config.json`"));
}

#[test]
fn a_wrong_index_is_told() {
    let top = copy_of("llama");
    let index = top.path().join(INDEX_FILE);
    let text = fs::read_to_string(&index).unwrap();
    let with = |from: &str, to: &str| {
        assert!(text.contains(from));
        fs::write(&index, text.replace(from, to)).unwrap();
        error(top.path())
    };
    assert!(with("00004-of", "00009-of").contains("is missing\nhint: fetch"));
    assert!(with("model-00004", "/etc/model-00004").contains("outside the folder"));
    assert!(with("model-00004", "../model-00004").contains("outside the folder"));
    assert!(with("model.norm.weight", "model.norm.bias").contains("`model.norm.bias` is not in"));
    assert!(with("weight_map", "map").contains("`weight_map` is missing"));
    assert!(with("{", "[").contains("is not valid JSON"));
    // A tensor that the index forgets is read and listed.
    let mut index_json: serde_json::Value = serde_json::from_str(&text).unwrap();
    index_json["weight_map"].as_object_mut().unwrap().shift_remove("model.norm.weight").unwrap();
    fs::write(&index, index_json.to_string()).unwrap();
    assert_eq!(open(top.path()).tensors().unwrap().unlisted, ["model.norm.weight"]);
}

#[test]
fn a_truncated_file_is_named() {
    let top = copy_of("qwen2");
    let file = top.path().join(WEIGHTS_FILE);
    let bytes = fs::read(&file).unwrap();
    for keep in [0, 5, 8, 100, bytes.len() - 1] {
        fs::write(&file, &bytes[..keep]).unwrap();
        let told = error(top.path());
        assert!(told.contains(WEIGHTS_FILE) && told.contains("hint:"), "{keep}: {told}");
    }
}

fn plan(name: &str, dtype: Dtype, shape: &[usize]) -> TensorPlan {
    TensorPlan { name: name.into(), dtype, shape: shape.to_vec() }
}

#[test]
fn what_is_written_is_read_back_in_one_file_and_in_shards() {
    let plans = [
        plan("b", Dtype::I8, &[3, 5]),
        plan("a", Dtype::F32, &[4]),
        plan("c", Dtype::BF16, &[2, 2]),
        plan("empty", Dtype::F16, &[0, 7]),
    ];
    let bytes_of = |it: &TensorPlan| vec![it.name.as_bytes()[0]; it.bytes() as usize];
    for limit in [1 << 30, 20] {
        let top = tempfile::tempdir().unwrap();
        let target = top.path().join("out");
        let output = OutputDir::create(&target, false).unwrap();
        let mut writer = ShardWriter::create(&output, plans.to_vec(), limit);
        for it in &plans {
            for chunk in bytes_of(it).chunks(7) {
                writer.write(&it.name, chunk.to_vec()).unwrap();
            }
        }
        let written = writer.finish().unwrap();
        output.commit().unwrap();
        for (name, record) in &written.files {
            let bytes = fs::read(target.join(name)).unwrap();
            assert_eq!((record.bytes, &record.sha256), (bytes.len() as u64, &sha256(&bytes)));
        }
        assert_eq!(written.files.len(), if limit == 20 { 4 } else { 1 }, "{written:?}");
        let back = open(&target).tensors().unwrap();
        assert_eq!((back.raw.len(), back.unlisted.len()), (4, 0));
        for it in &plans {
            let (tensor, record) = (&back.raw[&it.name], &written.tensors[&it.name]);
            assert_eq!((tensor.dtype, &tensor.shape), (it.dtype, &it.shape));
            assert_eq!(&*tensor.bytes, bytes_of(it));
            assert_eq!(
                (&record.file, &record.sha256),
                (&back.files[&it.name], &sha256(&tensor.bytes))
            );
        }
    }
}

#[test]
fn the_crate_that_others_read_with_accepts_our_files() {
    let top = tempfile::tempdir().unwrap();
    let target = top.path().join("out");
    let output = OutputDir::create(&target, false).unwrap();
    let mut writer = ShardWriter::create(&output, vec![plan("a", Dtype::F16, &[3])], 1 << 20);
    writer.write("a", vec![1, 2, 3, 4, 5, 6]).unwrap();
    writer.finish().unwrap();
    output.commit().unwrap();
    let bytes = fs::read(target.join(WEIGHTS_FILE)).unwrap();
    let theirs = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(theirs.tensor("a").unwrap().data(), [1, 2, 3, 4, 5, 6]);
    assert_eq!(parse_safetensors(&Bytes::owned(bytes)).unwrap()["a"].shape, [3]);
}

#[test]
fn a_departure_from_the_plan_is_an_error_and_leaves_nothing() {
    let top = tempfile::tempdir().unwrap();
    let target = top.path().join("out");
    for (name, length) in [("a", 9), ("b", 4), ("a", 4)] {
        let output = OutputDir::create(&target, false).unwrap();
        let mut writer = ShardWriter::create(&output, vec![plan("a", Dtype::F32, &[2])], 1 << 20);
        let written = writer.write(name, vec![0; length]).and_then(|()| writer.finish());
        assert!(written.unwrap_err().to_string().contains("planned"), "{name} {length}");
        drop(output);
        assert_eq!(fs::read_dir(top.path()).unwrap().count(), 0);
    }
}

#[test]
fn a_full_disk_and_a_read_only_folder_are_told() {
    let top = tempfile::tempdir().unwrap();
    let output = OutputDir::create(&top.path().join("out"), false).unwrap();
    // Every write to this device fails with "no space left".
    if std::os::unix::fs::symlink("/dev/full", output.path().join(WEIGHTS_FILE)).is_ok()
        && Path::new("/dev/full").exists()
    {
        let mut writer = ShardWriter::create(&output, vec![plan("a", Dtype::U8, &[8])], 1 << 20);
        let told = writer.write("a", vec![0; 8]).and_then(|()| writer.finish()).unwrap_err();
        let told = told.to_string();
        assert!(
            told.contains("out/model.safetensors") && told.contains("free some space"),
            "{told}"
        );
    } else {
        crate::util::skip("there is no /dev/full");
    }
    drop(output);
    if Path::new("/proc/version").exists() {
        let told = OutputDir::create(Path::new("/proc/out"), false).unwrap_err().to_string();
        assert!(told.contains("cannot write `/proc`"), "{told}");
    }
}
