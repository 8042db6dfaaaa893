//! Checkpoints whose weights are stored in other forms: read as transformers reads them, or refused
//! by name. tests/golden/stored holds what transformers says.
use crate::{cli::program, golden::difference, util};
use milm_compress::{
    model::{HEAD, Weight},
    package::{self, Opened},
    tensor::{Bytes, Dtype, RawTensor, sha256},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

type Tensors = BTreeMap<String, RawTensor>;

fn copy_of(name: &str) -> tempfile::TempDir {
    let top = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(util::golden().join(name)).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), top.path().join(entry.file_name())).unwrap();
    }
    top
}

fn save(folder: &Path, tensors: &Tensors) {
    let views = tensors.iter().map(|(name, raw)| {
        let view = safetensors::tensor::TensorView::new(raw.dtype, raw.shape.clone(), &raw.bytes);
        (name, view.unwrap())
    });
    let bytes = safetensors::serialize(views, None).unwrap();
    fs::write(folder.join("model.safetensors"), bytes).unwrap();
}

/// A golden model in one file, with its tensors and config changed.
fn changed(name: &str, change: impl FnOnce(&mut Tensors, &mut Value)) -> tempfile::TempDir {
    let top = copy_of(name);
    let path = top.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let mut tensors = util::tensors(&top.path().join("model.safetensors"));
    change(&mut tensors, &mut config);
    fs::write(path, config.to_string()).unwrap();
    save(top.path(), &tensors);
    top
}

fn open(folder: &Path) -> Opened {
    package::open(folder.to_str().unwrap()).unwrap()
}

fn refused(folder: &Path) -> String {
    package::open(folder.to_str().unwrap()).unwrap_err().to_string()
}

/// How far the logits are from those of transformers, over the largest.
fn off(folder: &Path, golden: &str) -> f32 {
    difference(&open(folder).model, &util::golden().join(golden).join("golden.safetensors"))
}

fn bytes_of(folder: &Path, file: &str) -> u64 {
    fs::metadata(folder.join(file)).unwrap().len()
}

fn quantized(folder: &Path) -> (PathBuf, Value) {
    let out = folder.join("out");
    let mut command = program();
    command.arg("quantize").arg(folder).args(["--preset=fast", "--rotate=none", "--quiet"]);
    command.args(["--scheme=w8a16", "--group-size=32"]).arg("-o").arg(&out).assert().success();
    let config = serde_json::from_slice(&fs::read(out.join("config.json")).unwrap()).unwrap();
    (out, config)
}

const FP8: &str = "stored/fp8";
const UP: &str = "model.layers.1.mlp.up_proj.weight";

#[test]
fn fp8_weights_are_those_that_transformers_makes_of_them() {
    let folder = util::golden().join(FP8);
    let opened = open(&folder);
    let hashes = fs::read(folder.join("dequantized.json")).unwrap();
    let hashes: BTreeMap<String, String> = serde_json::from_slice(&hashes).unwrap();
    let raw = &opened.model.weights.raw;
    let found: BTreeMap<String, String> =
        raw.iter().map(|(name, raw)| (name.clone(), sha256(&raw.bytes))).collect();
    assert_eq!(found, hashes, "every bit, and no scales left");
    assert_eq!(opened.kind, package::Kind::Checkpoint);
    assert!(opened.model.config.get("quantization_config").is_none());
    let off_by = off(&folder, FP8);
    assert!(off_by < 1e-4, "{off_by}");
    // The twin: scales of another block move the logits by far.
    let twin = changed(FP8, |tensors, _| {
        let scales = tensors.get_mut(&format!("{UP}_scale_inv")).unwrap();
        let mut values = scales.to_f32().unwrap();
        values.reverse();
        for value in &mut values {
            *value *= 2.0;
        }
        *scales = RawTensor::from_f32(scales.shape.clone(), &values);
    });
    assert!(off(twin.path(), FP8) > 1e-2);
}

#[test]
fn a_package_of_an_fp8_checkpoint_does_not_call_itself_fp8() {
    let top = copy_of(FP8);
    let (package, config) = quantized(top.path());
    assert_eq!(config["quantization_config"]["quant_method"], "compressed-tensors");
    program().arg("verify").arg(&package).args(["--deep"]).assert().success();
}

#[test]
fn fp8_that_is_damaged_or_not_understood_is_refused_by_name() {
    type Change = fn(&mut Tensors, &mut Value);
    let wrong: [(&str, Change); 9] = [
        ("holds NaN at element 70", |tensors, _| {
            let raw = tensors.get_mut(UP).unwrap();
            let mut bytes = raw.bytes.to_vec();
            bytes[70] = 0xff;
            raw.bytes = Bytes::owned(bytes);
        }),
        ("_scale_inv` is missing", |tensors, _| drop(tensors.remove(&format!("{UP}_scale_inv")))),
        ("expected F32, F16 or BF16 [3, 2]", |tensors, _| {
            tensors.insert(format!("{UP}_scale_inv"), RawTensor::from_f32(vec![2, 2], &[1.0; 4]));
        }),
        ("_scale_inv` holds NaN at element 1", |tensors, _| {
            let values = [1.0, f32::NAN, 1.0, 1.0, 1.0, 1.0];
            tensors.insert(format!("{UP}_scale_inv"), RawTensor::from_f32(vec![3, 2], &values));
        }),
        ("config.json has no `quantization_config`", |_, config| {
            drop(config.as_object_mut().unwrap().remove("quantization_config"));
        }),
        ("`e5m2` is not supported", |_, c| c["quantization_config"]["fmt"] = json!("e5m2")),
        ("expert_dtype `fp4`", |_, c| c["quantization_config"]["expert_dtype"] = json!("fp4")),
        ("weight_block_size `[0,32]`", |_, c| {
            c["quantization_config"]["weight_block_size"] = json!([0, 32]);
        }),
        ("lookup_table `x`", |_, c| c["quantization_config"]["lookup_table"] = json!("x")),
    ];
    for (told, change) in wrong {
        let error = refused(changed(FP8, change).path());
        assert!(error.contains(told) && error.contains("\nhint: "), "{told}: {error}");
    }
}

#[test]
fn one_fp8_scale_for_a_tensor_is_read() {
    let top = changed(FP8, |tensors, config| {
        config["quantization_config"]["weight_block_size"] = Value::Null;
        config["quantization_config"]["activation_scheme"] = json!("static");
        let names: Vec<String> = tensors.keys().cloned().collect();
        for name in names.iter().filter(|it| it.ends_with("_scale_inv")) {
            tensors.insert(name.clone(), RawTensor::from_f32(vec![], &[0.5]));
            let input = name.replace("weight_scale_inv", "activation_scale");
            tensors.insert(input, RawTensor::from_f32(vec![], &[0.1]));
        }
    });
    let opened = open(top.path());
    let codes = util::tensors(&top.path().join("model.safetensors"));
    let want: Vec<f32> = codes[UP]
        .bytes
        .iter()
        .map(|it| milm_compress::tensor::E4M3[usize::from(*it)] * 0.5)
        .collect();
    assert_eq!(opened.model.weights.raw[UP].to_f32().unwrap(), want, "a power of two is exact");
    assert!(opened.model.extras().is_empty(), "scales of activations are gone");
}

/// The tensors of a mixture as transformers joins them: gates above ups, experts in a stack.
fn join(tensors: &mut Tensors, blocks: usize, [gate, up, down]: [&str; 3], first: &str) {
    for b in 0..blocks {
        let at = |form: &str, e: usize| {
            format!("model.layers.{b}.{}.weight", form.replace("{}", &e.to_string()))
        };
        let (mut gate_up, mut downs, mut count) = (Vec::new(), Vec::new(), 0);
        let mut shapes = (vec![], vec![]);
        while let Some(one) = tensors.remove(&at(gate, count)) {
            let two = tensors.remove(&at(up, count)).unwrap();
            let three = tensors.remove(&at(down, count)).unwrap();
            let (upper, lower) = if first == "gate" { (one, two) } else { (two, one) };
            gate_up.extend_from_slice(&upper.bytes);
            gate_up.extend_from_slice(&lower.bytes);
            downs.extend_from_slice(&three.bytes);
            shapes = (vec![2 * upper.shape[0], upper.shape[1]], three.shape);
            count += 1;
        }
        if count == 0 {
            continue;
        }
        let stack = |shape: Vec<usize>, bytes: Vec<u8>| RawTensor {
            dtype: Dtype::F32,
            shape: [vec![count], shape].concat(),
            bytes: Bytes::owned(bytes),
        };
        let name = |leaf: &str| format!("model.layers.{b}.mlp.{leaf}");
        tensors.insert(name("experts.gate_up_proj"), stack(shapes.0, gate_up));
        tensors.insert(name("experts.down_proj"), stack(shapes.1, downs));
        if let Some(router) =
            tensors.remove(&format!("model.layers.{b}.block_sparse_moe.gate.weight"))
        {
            tensors.insert(name("gate.weight"), router);
        }
    }
}

const QWEN: [&str; 3] =
    ["mlp.experts.{}.gate_proj", "mlp.experts.{}.up_proj", "mlp.experts.{}.down_proj"];
const MIXTRAL: [&str; 3] = [
    "block_sparse_moe.experts.{}.w1",
    "block_sparse_moe.experts.{}.w3",
    "block_sparse_moe.experts.{}.w2",
];

#[test]
fn joined_experts_are_read_as_transformers_saves_them() {
    let saved = fs::read(util::golden().join("stored/joined.json")).unwrap();
    let saved: BTreeMap<String, BTreeMap<String, Value>> = serde_json::from_slice(&saved).unwrap();
    for (family, names) in [("mixtral", MIXTRAL), ("qwen2-moe", QWEN), ("qwen3-moe", QWEN)] {
        let top = changed(family, |tensors, _| join(tensors, 3, names, "gate"));
        let tensors = util::tensors(&top.path().join("model.safetensors"));
        for (name, theirs) in &saved[family] {
            let ours =
                json!({"shape": tensors[name].shape, "sha256": sha256(&tensors[name].bytes)});
            assert_eq!(&ours, theirs, "{family}: {name} is as transformers saves it");
        }
        let off_by = off(top.path(), family);
        assert!(off_by < 1e-4, "{family}: {off_by}");
        assert!(open(top.path()).model.extras().is_empty());
        // The twin: ups above gates are another model.
        let twin = changed(family, |tensors, _| join(tensors, 3, names, "up"));
        assert!(off(twin.path(), family) > 1e-2, "{family}");
    }
}

#[test]
fn joined_experts_of_another_layout_are_refused() {
    let top = changed("qwen3-moe", |tensors, _| {
        join(tensors, 3, QWEN, "gate");
        tensors.get_mut("model.layers.1.mlp.experts.down_proj").unwrap().shape.swap(1, 2);
    });
    let error = refused(top.path());
    assert!(error.contains("experts.down_proj`") && error.contains("[4, 48, 64]"), "{error}");
    let top = changed("qwen3-moe", |tensors, _| {
        let one = "model.layers.1.mlp.experts.2.up_proj.weight";
        let kept = tensors[one].clone();
        join(tensors, 3, QWEN, "gate");
        tensors.insert(one.into(), kept);
    });
    assert!(refused(top.path()).contains("and again as a part of"));
}

const EMBED: &str = "model.embed_tokens.weight";

#[test]
fn a_head_that_equals_the_embedding_costs_nothing() {
    let plain = changed("qwen3-tied", |_, _| ());
    let twice = changed("qwen3-tied", |tensors, _| {
        tensors.insert(HEAD.into(), tensors[EMBED].clone());
    });
    let opened = open(twice.path());
    assert!(opened.model.spec.tied && opened.model.extras().is_empty());
    let sizes = [plain.path(), twice.path()].map(|folder| {
        let (out, config) = quantized(folder);
        assert_eq!(config["tie_word_embeddings"], true);
        bytes_of(&out, "model.safetensors")
    });
    assert_eq!(sizes[0], sizes[1]);
    let note = program().arg("inspect").arg(twice.path()).assert().success();
    let note = String::from_utf8_lossy(&note.get_output().stderr).into_owned();
    assert!(note.contains("`lm_head.weight`") && note.contains("left out"), "{note}");
}

#[test]
fn a_head_of_its_own_is_used_whatever_config_says() {
    let other = |tensors: &Tensors| {
        let values = tensors[EMBED].to_f32().unwrap();
        let values: Vec<f32> = values.iter().rev().copied().collect();
        RawTensor::from_f32(tensors[EMBED].shape.clone(), &values)
    };
    let wrong = changed("qwen3-tied", |tensors, _| {
        let head = other(tensors);
        tensors.insert(HEAD.into(), head);
    });
    let right = changed("qwen3-tied", |tensors, config| {
        let head = other(tensors);
        tensors.insert(HEAD.into(), head);
        config["tie_word_embeddings"] = json!(false);
    });
    let logits = |folder: &Path| crate::gguf::export::logits(&open(folder).model, &[5, 9, 2]);
    assert_eq!(logits(wrong.path()), logits(right.path()), "as of an untied model");
    assert!(off(wrong.path(), "qwen3-tied") > 1e-2, "the twin: tied, it would be another model");
    let (out, config) = quantized(wrong.path());
    assert_eq!(config["tie_word_embeddings"], false);
    let again = open(&out);
    assert!(!again.model.spec.tied && again.model.extras().is_empty());
}

#[test]
fn a_tied_model_may_hold_its_embedding_under_the_name_of_the_head() {
    let top = changed("qwen3-tied", |tensors, _| {
        let embed = tensors.remove(EMBED).unwrap();
        tensors.insert(HEAD.into(), embed);
    });
    let off_by = off(top.path(), "qwen3-tied");
    assert!(off_by < 1e-4, "{off_by}");
}

#[test]
fn an_unsharded_file_is_read_rather_than_an_index_beside_it() {
    let top = copy_of("llama");
    let mut newer = open(top.path()).model.weights.raw;
    let norm = newer.get_mut("model.norm.weight").unwrap();
    let values: Vec<f32> = norm.to_f32().unwrap().iter().map(|it| it * 2.0).collect();
    *norm = RawTensor::from_f32(norm.shape.clone(), &values);
    save(top.path(), &newer);
    let read =
        |folder: &Path| open(folder).model.weights.raw["model.norm.weight"].to_f32().unwrap();
    assert_eq!(read(top.path()), values);
    let note = program().arg("inspect").arg(top.path()).assert().success();
    let note = String::from_utf8_lossy(&note.get_output().stderr).into_owned();
    assert!(note.contains("model.safetensors` is read"), "{note}");
    assert!(note.contains("model.safetensors.index.json` beside it is not"), "{note}");
    for shard in 1..=4 {
        fs::remove_file(top.path().join(format!("model-0000{shard}-of-00004.safetensors")))
            .unwrap();
    }
    assert_eq!(read(top.path()), values, "shards that are gone are not missed");
}

const CODES: &str = "compressed-tensors";
const Q: &str = "model.layers.0.self_attn.q_proj.weight";

fn groups(groups: &[i32]) -> RawTensor {
    let bytes = groups.iter().flat_map(|it| it.to_le_bytes()).collect();
    RawTensor { dtype: Dtype::I32, shape: vec![groups.len()], bytes: Bytes::owned(bytes) }
}

#[test]
fn an_order_of_columns_is_read_and_none_is_dropped() {
    let (order, plain) = ((0..64).map(|i| i % 2), (0..64).map(|i| i / 32));
    let with = |order: Vec<i32>| {
        changed(CODES, |tensors, config| {
            config["quantization_config"]["config_groups"]["group_0"]["weights"]["actorder"] =
                json!("dynamic");
            tensors.insert(format!("{Q}_g_idx"), groups(&order));
        })
    };
    let stored = open(&util::golden().join(CODES));
    for none in [plain.collect(), vec![-1; 64]] {
        let top = with(none);
        let off_by = off(top.path(), CODES);
        assert!(off_by < 1e-4, "{off_by}");
        assert_eq!(open(top.path()).model.extras(), stored.model.extras());
    }
    let top = with(order.clone().collect());
    let read = open(top.path());
    let Weight::Quantized { tensor, .. } = stored.model.weights.get(Q).unwrap() else { panic!() };
    let want: Vec<f32> = tensor
        .codes
        .chunks(64)
        .zip(tensor.scales.chunks(2))
        .flat_map(|(codes, scales)| {
            let pairs = codes.iter().zip(order.clone());
            pairs.map(|(code, group)| f32::from(*code) * scales[group as usize]).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(read.model.weights.get(Q).unwrap().to_f32(), want);
    assert!(read.model.extras().is_empty() && read.kind == package::Kind::Package);
    assert!(off(top.path(), CODES) > 1e-2, "the twin: left out, it would be another model");
    // Groups of other sizes have no meaning.
    let error = refused(with((0..64).map(|i| i32::from(i > 3)).collect()).path());
    assert!(error.contains("q_proj.weight_g_idx`"), "{error}");
}

#[test]
fn tensors_of_quantized_modules_that_are_not_understood_are_refused() {
    for (leaf, value) in
        [("weight_global_scale", 1.0), ("input_scale", 0.5), ("weight_zero_point", 1.0)]
    {
        let name = Q.replace("weight", leaf);
        let top = changed(CODES, |tensors, _| {
            tensors.insert(name.clone(), RawTensor::from_f32(vec![1], &[value]));
        });
        let error = refused(top.path());
        assert!(error.contains(&name) && error.contains("not understood"), "{error}");
    }
    let zeros = changed(CODES, |tensors, _| {
        tensors.insert(format!("{Q}_zero_point"), RawTensor::from_f32(vec![64, 2], &[0.0; 128]));
    });
    assert!(off(zeros.path(), CODES) < 1e-4, "zero points of nothing say nothing");
}

#[test]
fn keys_of_quantization_config_that_are_not_understood_are_refused() {
    let at = |pointer: &str, value: Value| {
        changed(CODES, |_, config| {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            let parent = format!("/quantization_config{parent}");
            config.pointer_mut(&parent).unwrap()[key] = value;
        })
    };
    let (weights, group) = ("/config_groups/group_0/weights", "/config_groups/group_0");
    let refusals = [
        (format!("{weights}/type"), json!("float")),
        (format!("{weights}/num_bits"), json!(3)),
        (format!("{weights}/strategy"), json!("tensor")),
        (format!("{weights}/strategy"), json!("block")),
        (format!("{weights}/strategy"), json!("tensor_group")),
        (format!("{weights}/block_structure"), json!([128, 128])),
        (format!("{weights}/dynamic"), json!(true)),
        (format!("{weights}/actorder"), json!("other")),
        (format!("{weights}/codebook"), json!("x")),
        (format!("{group}/output_activations"), json!({"num_bits": 8})),
        (
            format!("{group}/input_activations"),
            json!({"num_bits": 8, "type": "float", "strategy": "token", "dynamic": true}),
        ),
        (
            format!("{group}/input_activations"),
            json!({"num_bits": 8, "strategy": "group", "dynamic": true}),
        ),
        (format!("{group}/format"), json!("marlin-24")),
        (format!("{group}/rotation"), json!(true)),
        ("/format".into(), json!("nvfp4-pack-quantized")),
        ("/quantization_status".into(), json!("thawed")),
        ("/sparsity_config".into(), json!({"format": "sparse-24-bitmask"})),
        ("/smoothing".into(), json!({"alpha": 0.5})),
    ];
    for (pointer, value) in refusals {
        let error = refused(at(&pointer, value.clone()).path());
        let key = pointer.rsplit('/').next().unwrap();
        assert!(error.contains(key) && error.contains("\nhint: "), "{pointer} {value}: {error}");
    }
    let taken = [
        (format!("{weights}/observer"), json!("mse")),
        (format!("{weights}/observer_kwargs"), json!({"maxshrink": 0.2})),
        (format!("{weights}/actorder"), json!("static")),
        (format!("{weights}/actorder"), json!("weight")),
        ("/global_compression_ratio".into(), json!(1.5)),
        ("/sparsity_config".into(), json!({})),
        ("/version".into(), json!("0.9")),
    ];
    for (pointer, value) in taken {
        let off_by = off(at(&pointer, value).path(), CODES);
        assert!(off_by < 1e-4, "{pointer}: {off_by}");
    }
}

#[test]
fn other_quantizations_are_refused_by_name_with_what_to_do() {
    for (method, told) in
        [("gptq", "float checkpoint"), ("awq", "float checkpoint"), ("mxfp4", "Mxfp4Config")]
    {
        let top = changed("llama-mha", |_, config| {
            config["quantization_config"] = json!({"quant_method": method, "bits": 4});
        });
        let error = refused(top.path());
        assert!(error.contains(&format!("`{method}`")) && error.contains(told), "{error}");
    }
    let top = changed("llama-mha", |_, config| {
        config["quantization_config"] = json!({"load_in_4bit": true});
    });
    assert!(refused(top.path()).contains("`bitsandbytes`"));
}

type Files<'a> = &'a [(&'a str, &'a [u8])];

#[test]
fn what_is_no_checkpoint_is_told_what_to_do() {
    let config = fs::read(util::golden().join("llama-mha/config.json")).unwrap();
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 488184\n";
    let folders: [(Files<'_>, &str); 9] = [
        (&[("adapter_config.json", b"{}"), ("adapter_model.safetensors", b"")], "merge_and_unload"),
        (&[("config.json", &config), ("adapter_model.safetensors", b"")], "merge_and_unload"),
        (&[("config.json", &config), ("pytorch_model.bin", b"x")], "save_pretrained"),
        (&[("config.json", &config), ("consolidated.00.pth", b"x")], "save_pretrained"),
        (&[("config.json", &config), ("model.safetensors", pointer)], "git lfs pull"),
        (&[("config.json", pointer)], "git lfs pull"),
        (&[("config.json", &config), ("other.safetensors", b"")], "rename the file"),
        (&[("model.safetensors", b"")], "fetch config.json"),
        (&[], "the folder is empty"),
    ];
    for (files, told) in folders {
        let top = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            fs::write(top.path().join(name), bytes).unwrap();
        }
        let error = refused(top.path());
        assert!(error.contains(told) && error.contains("\nhint: "), "{told}: {error}");
    }
    let file = util::golden().join("llama-mha/model.safetensors");
    assert!(refused(&file).contains("the folder that holds this file"));
}

#[test]
fn tensors_of_another_tool_are_told_what_to_do() {
    let signs = [
        ("model.layers.0.self_attn.q_proj.qweight", "GPTQ"),
        ("model.layers.0.self_attn.q_proj.lora_A.weight", "merge_and_unload"),
        ("model.language_model.norm.weight", "language part"),
        ("_orig_mod.model.norm.weight", "_orig_mod"),
    ];
    for (name, told) in signs {
        let top = changed("llama-mha", |tensors, _| {
            let moved = tensors.remove(Q).unwrap();
            tensors.insert(name.into(), moved);
        });
        let error = refused(top.path());
        assert!(error.contains(told) && error.contains(name) && error.contains(Q), "{error}");
    }
    let top = changed(CODES, |_, config| {
        config.as_object_mut().unwrap().remove("quantization_config");
    });
    assert!(refused(top.path()).contains("has no `quantization_config`"));
}

#[test]
fn links_out_of_the_folder_are_refused_or_left_behind() {
    let (store, model) = (copy_of("llama-mha"), tempfile::tempdir().unwrap());
    fs::write(store.path().join("README.md"), "a card").unwrap();
    fs::copy(store.path().join("config.json"), model.path().join("config.json")).unwrap();
    let link = |name: &str| {
        std::os::unix::fs::symlink(store.path().join(name), model.path().join(name)).unwrap();
    };
    link("model.safetensors");
    let error = refused(model.path());
    let target = store.path().canonicalize().unwrap().join("model.safetensors");
    assert!(error.contains(target.to_str().unwrap()) && error.contains("cp -rL"), "{error}");
    fs::remove_file(model.path().join("model.safetensors")).unwrap();
    fs::copy(store.path().join("model.safetensors"), model.path().join("model.safetensors"))
        .unwrap();
    link("README.md");
    let (out, _) = quantized(model.path());
    let card = fs::read_to_string(out.join("README.md")).unwrap();
    assert!(!card.contains("a card"), "the card is ours: what the link leads to is not copied");
}

#[test]
fn files_of_the_hub_beside_a_package_are_noted() {
    let top = copy_of("llama-mha");
    let (out, _) = quantized(top.path());
    fs::write(out.join(".gitattributes"), "*.safetensors filter=lfs").unwrap();
    fs::create_dir(out.join(".git")).unwrap();
    fs::create_dir_all(out.join(".cache/huggingface/download")).unwrap();
    let said = program().arg("verify").arg(&out).assert().success();
    let note = String::from_utf8_lossy(&said.get_output().stderr).into_owned();
    for name in [".gitattributes", ".git/", ".cache/"] {
        assert!(note.contains(&format!("`{name}`")), "{name}: {note}");
    }
    fs::write(out.join(".cache/other"), "x").unwrap();
    program().arg("verify").arg(&out).assert().code(2);
    fs::remove_file(out.join(".cache/other")).unwrap();
    fs::write(out.join("modeling.py"), "x").unwrap();
    program().arg("verify").arg(&out).assert().code(2);
}
