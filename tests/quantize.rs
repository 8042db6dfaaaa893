//! Packages of real models: what is planned, written, read back, verified.
use crate::util;
use milm_compress::{
    checkpoint::Folder,
    linalg::Team,
    model::{Input, Weight},
    package::{self, Job, MANIFEST_FILE, Opened, PackageError, Summary},
    progress::Silent,
    quantize::{Embeddings, GroupFallback, GroupSize, Method, Settings, TargetEngine, rtn::Rtn},
    scheme::Granularity,
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, fs, path::Path};

const MINI: &str = "builtin:milm-mini";

fn settings(change: impl Fn(&mut Settings)) -> Settings {
    let (method, engine) = (Some(Method::Minmax), Some(TargetEngine::Milm));
    let mut settings = Settings { method, engine, ..Settings::default() };
    change(&mut settings);
    settings
}

fn write_with(
    opened: &Opened,
    settings: &Settings,
    target: &Path,
    threads: usize,
) -> Result<Summary, PackageError> {
    let recipe = serde_json::to_value(settings).unwrap();
    let team = Team::new(threads);
    let job = Job { opened, settings, recipe: &recipe, team: &team, progress: &Silent };
    job.write(target, false)
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap())
        })
        .collect()
}

fn refused(opened: &Opened, settings: &Settings) -> String {
    let top = tempfile::tempdir().unwrap();
    let error = write_with(opened, settings, &top.path().join("out"), 1).unwrap_err();
    assert_eq!(fs::read_dir(top.path()).unwrap().count(), 0, "no partial output");
    error.to_string()
}

fn golden(name: &str) -> Opened {
    package::open(util::golden().join(name).to_str().unwrap()).unwrap()
}

#[test]
fn a_package_holds_the_codes_of_its_weights() {
    let opened = package::open(MINI).unwrap();
    for (scheme, group, asymmetric) in
        [("w4a16", 64, false), ("w4a8", 32, true), ("w8a8", 0, false), ("w8a16", 64, true)]
    {
        let settings = settings(|it| {
            it.scheme = scheme.into();
            it.asymmetric = asymmetric;
            it.group_size =
                Some(if group == 0 { GroupSize::Channel } else { GroupSize::Of(group) });
        });
        let top = tempfile::tempdir().unwrap();
        let target = top.path().join("out");
        let summary = write_with(&opened, &settings, &target, 2).unwrap();
        let size: usize = files(&target).values().map(Vec::len).sum();
        assert_eq!(summary.bytes, size as u64);

        let package = package::open(target.to_str().unwrap()).unwrap();
        assert_eq!(package.kind, package::Kind::Package);
        assert_eq!(summary.quantized, 8 * 7 + 1, "seven matrices a block, and the embedding");
        for (name, (scheme, shape)) in &package.model.weights.quantized {
            let Weight::Quantized { tensor, activations } =
                package.model.weights.get(name).unwrap()
            else {
                panic!("{name} is quantized");
            };
            let source = opened.model.weights.get(name).unwrap().to_f32();
            let rtn =
                Rtn { grid: scheme.weights, scale_type: scheme.scale_type, method: Method::Minmax };
            assert_eq!(tensor, rtn.tensor(&source, *shape), "{name}");
            let int8 = settings.scheme.ends_with("a8");
            assert_eq!(activations == Input::Int8PerToken, int8, "{name}: the tied head too");
        }
        for (name, raw) in &opened.model.weights.raw {
            if !package.model.weights.quantized.contains_key(name) {
                assert_eq!(*package.model.weights.raw[name].bytes, *raw.bytes, "{name} is kept");
            }
        }
        let source = Folder::open(MINI).unwrap();
        for file in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
            assert_eq!(files(&target)[file], &*source.read(file).unwrap().unwrap());
        }
        let verified = package::verify(target.to_str().unwrap(), &Team::new(2), &Silent).unwrap();
        assert!(verified.passed(), "{verified:?}");
    }
}

/// transformers 5.23 and 5.24 do not open zero points in packed words, and whoever makes them is told.
#[test]
fn packed_zero_points_are_told() {
    let opened = golden("llama");
    let top = tempfile::tempdir().unwrap();
    for (name, scheme, asymmetric, told) in [
        ("a", "w4a16", true, true),
        ("b", "w4a16", false, false),
        ("c", "w8a16", true, true),
        ("d", "w8a8", true, false),
    ] {
        let settings = settings(|it| {
            (it.scheme, it.asymmetric) = (scheme.into(), asymmetric);
            it.group_size = Some(GroupSize::Channel);
        });
        let summary = write_with(&opened, &settings, &top.path().join(name), 1).unwrap();
        let said = summary.beyond_standard.iter().any(|it| it.contains("zero points"));
        assert_eq!(said, told, "{scheme}: {:?}", summary.beyond_standard);
    }
}

#[test]
fn the_number_of_threads_does_not_change_a_byte() {
    let opened = package::open(MINI).unwrap();
    let top = tempfile::tempdir().unwrap();
    let made = |name: &str, threads, asymmetric| {
        let settings = settings(|it| {
            it.asymmetric = asymmetric;
            it.shard_size = "700KB".parse().unwrap();
        });
        let target = top.path().join(name);
        write_with(&opened, &settings, &target, threads).unwrap();
        files(&target)
    };
    let one = made("one", 1, false);
    assert!(one.len() > 6, "several shards");
    assert_eq!(one, made("three", 3, false));
    assert_ne!(one, made("other", 1, true), "another setting gives other bytes");
}

#[test]
fn every_family_is_packaged_and_read_by_the_standard_alone() {
    for name in ["llama", "qwen2", "qwen3-tied", "mixtral", "qwen2-moe", "qwen3-moe"] {
        let opened = golden(name);
        for scheme in ["w4a16", "w8a8", "w4a8"] {
            let settings = settings(|it| {
                it.scheme = scheme.into();
                it.group_size = Some(GroupSize::Of(32));
                it.group_fallback = GroupFallback::Channel;
            });
            let top = tempfile::tempdir().unwrap();
            let target = top.path().join("out");
            write_with(&opened, &settings, &target, 2).unwrap();
            let package = package::open(target.to_str().unwrap()).unwrap();
            fs::remove_file(target.join(MANIFEST_FILE)).unwrap();
            let bare = package::open(target.to_str().unwrap()).unwrap();
            let both = package.model.weights.quantized.iter().zip(&bare.model.weights.quantized);
            assert!(package.model.weights.quantized.len() > 10);
            for ((name, (with, shape)), (bare_name, (without, bare_shape))) in both {
                assert_eq!((name, shape), (bare_name, bare_shape));
                assert_eq!((with.weights, with.scale_type), (without.weights, without.scale_type));
                let says = with.weights.bits() == 8 && !name.contains("embed");
                assert!(!says || with.activations == without.activations, "{name}");
            }
        }
    }
}

#[test]
fn the_config_has_one_group_when_the_package_is_uniform() {
    let opened = golden("llama");
    let config = |change: &dyn Fn(&mut Settings)| -> Value {
        let top = tempfile::tempdir().unwrap();
        let target = top.path().join("out");
        write_with(&opened, &settings(|it| change(it)), &target, 1).unwrap();
        Folder::open(target.to_str().unwrap()).unwrap().config().unwrap()
    };
    let uniform = config(&|it| {
        it.embeddings = Some(Embeddings::Float);
        it.group_size = Some(GroupSize::Of(32));
    });
    let quantization = &uniform["quantization_config"];
    assert_eq!(quantization["format"], "pack-quantized");
    assert_eq!(quantization["ignore"], json!(["lm_head"]));
    let groups = quantization["config_groups"].as_object().unwrap();
    assert_eq!(groups.len(), 1);
    assert_eq!(groups["group_0"]["targets"], json!(["Linear"]));
    assert_eq!(groups["group_0"]["weights"]["group_size"], 32);
    assert_eq!(groups["group_0"]["input_activations"], Value::Null);
    let mixed = config(&|it| {
        it.scheme = "w4a8".into();
        it.group_size = Some(GroupSize::Of(32));
    });
    let quantization = &mixed["quantization_config"];
    assert_eq!(quantization["format"], "mixed-precision");
    let groups = quantization["config_groups"].as_object().unwrap();
    assert_eq!(groups["group_0"]["targets"], json!(["Linear"]));
    assert!(groups.values().any(|it| it["targets"] == json!(["model.embed_tokens"])));
    assert!(groups.values().any(|it| it["targets"] == json!(["lm_head"])));
}

#[test]
fn rules_choose_and_wrong_rules_are_told() {
    let opened = package::open(MINI).unwrap();
    let with = |rules: &[&str]| {
        settings(|it| it.rules = rules.iter().map(|rule| rule.parse().unwrap()).collect())
    };
    let plan = milm_compress::quantize::plan(
        &opened.model,
        &with(&[
            r"re:model\.layers\.0\..*=float",
            "model.layers.0.mlp.down_proj=w8a8-g32",
            "re:.*k_proj=w8a16",
        ]),
    )
    .unwrap();
    let scheme = |name: &str| plan.tensors[name].scheme;
    assert!(scheme("model.layers.0.self_attn.q_proj.weight").is_none());
    let down = scheme("model.layers.0.mlp.down_proj.weight").unwrap();
    assert_eq!((down.weights.bits(), down.weights.granularity()), (8, Granularity::Group(32)));
    let k = scheme("model.layers.0.self_attn.k_proj.weight").unwrap();
    assert_eq!((k.weights.bits(), k.weights.granularity()), (8, Granularity::Channel), "last wins");
    assert_eq!(scheme("model.layers.1.self_attn.q_proj.weight").unwrap().weights.bits(), 4);

    let told = |rule: &str| refused(&opened, &with(&[rule]));
    let typo = told("model.layers.0.self_attn.q_prj=w8a8");
    assert!(
        typo.contains("matches no weight") && typo.contains("`model.layers.0.self_attn.q_proj`")
    );
    assert!(told("re:(=w8a8").contains("regular expression"));
    assert!(told("model.norm=w8a8").contains("which is no weight matrix"));
}

#[test]
fn uneven_groups_are_refused_with_what_fits() {
    let opened = package::open(MINI).unwrap();
    let wide = settings(|it| it.group_size = Some(GroupSize::Of(128)));
    let told = refused(&opened, &wide);
    // 192 columns are 3 groups of 64; 512 fit.
    assert!(told.contains("192 columns, which groups of 128 do not divide"), "{told}");
    assert!(told.contains("--group-size 32 or 64 or channel fits"), "{told}");
    let plan = milm_compress::quantize::plan(
        &opened.model,
        &Settings { group_fallback: GroupFallback::Channel, ..wide },
    )
    .unwrap();
    let granularity = |name: &str| plan.tensors[name].scheme.unwrap().weights.granularity();
    assert_eq!(granularity("model.layers.3.self_attn.q_proj.weight"), Granularity::Channel);
    assert_eq!(granularity("model.layers.3.mlp.down_proj.weight"), Granularity::Group(128));
}

#[test]
fn a_plan_counts_what_is_written() {
    let opened = package::open(MINI).unwrap();
    let settings = settings(|_| ());
    let plan = milm_compress::quantize::plan(&opened.model, &settings).unwrap();
    let top = tempfile::tempdir().unwrap();
    write_with(&opened, &settings, &top.path().join("out"), 1).unwrap();
    let package = package::open(top.path().join("out").to_str().unwrap()).unwrap();
    let stored: usize = package.model.weights.raw.values().map(|raw| raw.bytes.len()).sum();
    assert_eq!(plan.bytes(), stored as u64);
    // int4 in groups of 64 with bf16 scales: 4 + 16 / 64 bits, and 128 for the shape.
    let q = &plan.tensors["model.layers.0.self_attn.q_proj.weight"];
    assert_eq!(q.bytes, 192 * 192 / 2 + 192 * 3 * 2 + 16);
}

#[test]
fn numbers_that_are_not_finite_are_named() {
    let source = Folder::open(MINI).unwrap();
    let top = tempfile::tempdir().unwrap();
    let model = top.path().join("model");
    fs::create_dir(&model).unwrap();
    for file in source.list().unwrap() {
        fs::write(model.join(&file), &*source.read(&file).unwrap().unwrap()).unwrap();
    }
    let name = "model.layers.2.mlp.up_proj.weight";
    let tensors = source.tensors().unwrap();
    let bytes = fs::read(model.join("model.safetensors")).unwrap();
    let place = &*tensors.raw[name].bytes;
    let at = bytes.windows(64).position(|window| *window == place[..64]).unwrap();
    let mut broken = bytes;
    let element = at + 2 * (5 * 192 + 7);
    broken[element..element + 2].copy_from_slice(&0x7fc0_u16.to_le_bytes());
    fs::write(model.join("model.safetensors"), broken).unwrap();
    let opened = package::open(model.to_str().unwrap()).unwrap();
    let told = refused(&opened, &settings(|_| ()));
    assert!(told.contains(&format!("`{name}` holds NaN at [5, 7]")), "{told}");
    let allowed = settings(|it| it.allow_nonfinite = true);
    write_with(&opened, &allowed, &top.path().join("out"), 2).unwrap();
    let package = package::open(top.path().join("out").to_str().unwrap()).unwrap();
    let Weight::Quantized { tensor, .. } = package.model.weights.get(name).unwrap() else {
        panic!("quantized");
    };
    assert_eq!(tensor.codes[5 * 192 + 7], 0, "NaN becomes 0");
}

#[test]
fn what_cannot_be_quantized_is_refused() {
    let opened = package::open(MINI).unwrap();
    let top = tempfile::tempdir().unwrap();
    let target = top.path().join("out");
    write_with(&opened, &settings(|_| ()), &target, 1).unwrap();
    let package = package::open(target.to_str().unwrap()).unwrap();
    assert!(refused(&package, &settings(|_| ())).contains("quantized already"));
    assert!(
        refused(&opened, &settings(|it| it.scheme = "w2a16".into())).contains("known are w8a16")
    );
    let again = write_with(&opened, &settings(|_| ()), &target, 1).unwrap_err().to_string();
    assert!(again.contains("exists\nhint:"), "{again}");
}

#[test]
fn unknown_tensors_are_carried_through_and_listed() {
    let mut opened = golden("llama");
    let extra = milm_compress::tensor::RawTensor::from_f32(vec![3, 5], &[0.5; 15]);
    opened.model.weights.raw.insert("mtp.layers.0.weight".into(), extra.clone());
    let settings = settings(|it| it.group_size = Some(GroupSize::Of(32)));
    let top = tempfile::tempdir().unwrap();
    let target = top.path().join("out");
    let summary = write_with(&opened, &settings, &target, 2).unwrap();
    assert_eq!(summary.carried, ["mtp.layers.0.weight"]);
    let package = package::open(target.to_str().unwrap()).unwrap();
    assert_eq!(*package.model.weights.raw["mtp.layers.0.weight"].bytes, *extra.bytes);
    assert_eq!(package.manifest.unwrap().carried, summary.carried);
    assert_eq!(package.model.extras(), ["mtp.layers.0.weight"]);
}

/// What `--dry-run` says of memory is what the system counts in the end, within 1.3 either way:
/// pages of files, codes that are written and what the allocator keeps are not all foreseen.
#[test]
#[cfg(target_os = "linux")]
fn a_dry_run_foresees_the_memory() {
    let memory = |arguments: &[&str], more: &[&str]| {
        let mut command = crate::cli::program();
        command.args(["quantize", "builtin:milm-mini", "--for=milm", "--json", "--quiet"]);
        let done = command.args(arguments).args(more).assert().success();
        serde_json::from_slice::<serde_json::Value>(&done.get_output().stdout).unwrap()
    };
    let top = tempfile::tempdir().unwrap();
    let ways: [&[&str]; 5] = [
        &["--preset", "fast"],
        &["--preset", "fast", "--scheme", "w8a8"],
        &[],
        &["--avg-bits", "5"],
        &["--preset", "vendor-standard"],
    ];
    for (at, (way, threads)) in ways.iter().flat_map(|it| [(it, "1"), (it, "2")]).enumerate() {
        let arguments = [way, ["--threads", threads].as_slice()].concat();
        let promised = memory(&arguments, &["--dry-run"])["estimate"]["memory_bytes"].clone();
        let output = top.path().join(at.to_string());
        let measured = &memory(&arguments, &["-o", output.to_str().unwrap()])["memory_bytes"];
        let ratio = promised.as_f64().unwrap() / measured.as_f64().unwrap();
        assert!((1.0 / 1.3..=1.3).contains(&ratio), "{arguments:?}: {promised} for {measured}");
    }
}

/// No promise is made for what nobody has worked out.
#[test]
fn a_dry_run_promises_only_what_it_knows() {
    let told = |more: &[&str]| {
        let mut command = crate::cli::program();
        command.args(["quantize", "builtin:milm-mini", "--for=milm", "--dry-run"]);
        let done = command.args(more).assert().success();
        String::from_utf8(done.get_output().stdout.clone()).unwrap()
    };
    let fast = told(&["--preset", "fast"]);
    assert!(fast.contains("memory about") && fast.contains(" s\n"), "{fast}");
    let text = told(&[]);
    assert!(text.contains("memory about") && text.contains("time not estimated"), "{text}");
    for more in [["--rotate", "pca"].as_slice(), &["--self-generate"]] {
        let text = told(more);
        assert!(text.contains("memory not estimated"), "{more:?}: {text}");
    }
}
