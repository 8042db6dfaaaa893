//! Device profiles: what fits, what does not and why, and the recipe that a budget leaves.
use crate::cli::program;
use milm_compress::{
    device::{Candidate, Misfit, PROFILES, Profile},
    model::Model,
    package,
    quantize::{self, Settings},
};
use predicates::{prelude::*, str::contains};
use std::{fs, path::Path};

fn mini() -> Model {
    package::open("builtin:milm-mini").unwrap().model
}

fn profile(name: &str) -> Profile {
    Profile::carried(name).unwrap().unwrap()
}

/// What a chip does not take of a plan.
fn planned(chip: &Profile, change: impl FnOnce(&mut Settings), memory: Option<u64>) -> Vec<Misfit> {
    let (group_size, engine) = ("32".parse().ok(), Some(chip.engine));
    let mut settings = Settings { group_size, engine, ..Settings::default() };
    change(&mut settings);
    let model = mini();
    let plan = quantize::plan(&model, &settings).unwrap();
    let schemes = plan.schemes();
    let of = Candidate { spec: &model.spec, schemes: &schemes, bytes: plan.bytes() };
    chip.misfits(of, memory)
}

#[test]
fn every_profile_says_where_its_limits_stand() {
    for (name, text) in PROFILES {
        assert!(text.starts_with("# "), "{name} begins with what it is");
        let chip = profile(name);
        assert!(
            !chip.sources.is_empty() && !chip.description.is_empty() && !chip.weights.is_empty()
        );
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/devices.md");
        assert!(fs::read_to_string(docs).unwrap().contains(name), "{name} has its row");
    }
    for (wrong, what) in [
        ("description = 3", "description"),
        ("description = ''\nsources = []\nfor = 'llama.cpp'\nweights = []\nspeed = 3", "speed"),
        (
            "description = ''\nsources = []\nfor = 'llama.cpp'\nweights = []\ncolumns-multiple = 0",
            "columns",
        ),
        (
            "description = ''\nsources = []\nfor = 'llama.cpp'\n[[weights]]\nbits = 3\nactivations = []",
            "`bits` is 3",
        ),
    ] {
        let error = Profile::parse("own", wrong).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    }
}

#[test]
fn each_limit_once_kept_and_once_broken() {
    let hexagon = profile("hexagon-llama.cpp");
    assert_eq!(planned(&hexagon, |_| (), None), []);
    let found = planned(&hexagon, |it| it.asymmetric = true, None);
    assert!(!found.is_empty() && found.iter().all(|it| it.change == "without --asymmetric"));
    assert!(found[0].expected.contains("int4 sym in groups of 32·k or rows"), "{}", found[0]);
    let found = planned(&hexagon, |it| it.outliers = Some(0.25), None);
    assert!(found.iter().any(|it| it.change == "without --outliers"), "{found:?}");
    // The NPU of MediaTek has no groups and no scales by token.
    let mediatek = profile("mediatek-npu");
    let found = planned(&mediatek, |_| (), None);
    assert!(found.iter().any(|it| it.change == "--group-size channel"), "{found:?}");
    let rows = |it: &mut Settings| it.group_size = "channel".parse().ok();
    assert_eq!(planned(&mediatek, rows, None), []);
    let both =
        |it: &mut Settings| (it.scheme, it.group_size) = ("w8a8".into(), "channel".parse().ok());
    let found = planned(&mediatek, both, None);
    assert!(found.iter().any(|it| it.change.contains("float activations")), "{found:?}");
    assert_eq!(planned(&profile("x86"), |it| it.asymmetric = true, None), []);
    // Sizes: the weights, and with keys and values.
    let small = Profile { max_bytes: "1MB".parse().ok(), ..hexagon.clone() };
    let found = planned(&small, |_| (), None);
    assert_eq!((found.len(), found[0].tensor.as_str()), (1, "all tensors"));
    let found = planned(&hexagon, |_| (), Some(1_000_000));
    assert_eq!((found.len(), found[0].tensor.as_str()), (1, "memory"));
    assert_eq!(planned(&hexagon, |_| (), Some(100_000_000)), []);
    // Widths: none of 192 and 512 is a multiple of 100; rows that run elsewhere are told apart.
    let odd = Profile { columns_multiple: 100, ..hexagon.clone() };
    assert!(!planned(&odd, |_| (), None).is_empty());
    let low = Profile { npu_rows: Some(1000), ..hexagon };
    let found = planned(&low, |_| (), None);
    assert!(!found.is_empty() && found.iter().all(|it| it.elsewhere), "{found:?}");
}

fn run(verb: &str, args: &[&str]) -> assert_cmd::assert::Assert {
    let mut command = program();
    command.arg(verb).args(args);
    command.assert()
}

#[test]
fn verbs_refuse_what_a_chip_does_not_take() {
    let top = tempfile::tempdir().unwrap();
    let (package, file) = (top.path().join("package"), top.path().join("model.gguf"));
    let (package, file) = (package.to_str().unwrap(), file.to_str().unwrap());
    let quantize = ["builtin:milm-mini", "--preset=fast", "--rotate=none", "--group-size=32"];
    let with = |more: &[&'static str]| [&quantize[..], more, &["-o", package]].concat();
    run("quantize", &with(&["--asymmetric", "--device=hexagon-llama.cpp"]))
        .code(2)
        .stderr(contains("without --asymmetric").and(contains("more")));
    assert!(!Path::new(package).exists(), "before any work");
    run("quantize", &with(&["--device=hexagon-llama.cpp"])).success().stderr(contains("takes it"));
    run("verify", &[package, "--device=hexagon-llama.cpp"]).success();
    run("verify", &[package, "--device=mediatek-npu"])
        .code(2)
        .stderr(contains("`model.layers.0.").and(contains("--group-size channel")));
    run("verify", &[package, "--device=hexagon-llama.cpp", "--memory=1MB"])
        .code(2)
        .stderr(contains("`memory`: expected at most 1.0 MB"));
    run("verify", &[package, "--device=tpu"]).code(2).stderr(contains("hexagon-npu, mediatek-npu"));
    run("verify", &[package, "--memory=1MB"]).code(2).stderr(contains("--device"));
    let export = |device| run("export", &[package, "--to=gguf", "-o", file, device]);
    export("--device=mediatek-npu").code(2);
    assert!(!Path::new(file).exists());
    export("--device=arm-cpu").success();
    run("verify", &[file, "--device=arm-cpu"]).success();
    // A profile of one's own.
    let own = top.path().join("own.toml");
    let text = PROFILES.iter().find(|(name, _)| *name == "arm-cpu").unwrap().1;
    fs::write(&own, text.replace("group-multiple = 32", "group-multiple = 64")).unwrap();
    let device = format!("--device={}", own.display());
    run("verify", &[package, &device]).code(2).stderr(contains("groups of 64·k"));
}

/// 3.9 million weights and 2.1 MB of keys and values: 6.2 MB as int8 in groups of 32, 4.7 as int4.
#[test]
fn a_budget_chooses_a_recipe() {
    let top = tempfile::tempdir().unwrap();
    let target = top.path().join("package");
    let compress = |device: &str, memory: &str| {
        let output = target.to_str().unwrap();
        let mut all = vec!["--model=builtin:milm-mini", "-o", output, "--force"];
        all.extend(["--device", device, "--memory", memory]);
        // Quick, and measured hardly at all.
        all.extend(["--set=quantize.preset=fast", "--set=eval.windows=1", "--set=eval.ctx=64"]);
        run("compress", &all)
    };
    let bytes = package::open("builtin:milm-mini").unwrap().model.spec.parameters();
    assert!((3_900_000..4_000_000).contains(&bytes));
    compress("hexagon-llama.cpp", "1MB")
        .code(2)
        .stderr(contains("no recipe fits").and(contains("recipes/w4a16.toml: `memory`")));
    assert!(!target.exists());
    let chosen = |device, memory| {
        let done = compress(device, memory).success();
        let text = String::from_utf8(done.get_output().stderr.clone()).unwrap();
        text.lines().find(|line| line.contains("best that fits")).unwrap().to_owned()
    };
    assert!(chosen("hexagon-llama.cpp", "20MB").starts_with("recipes/w8a16.toml"));
    let small = chosen("hexagon-llama.cpp", "5500KB");
    assert!(
        small.starts_with("recipes/w4a16.toml"),
        "outliers and zero points do not fit: {small}"
    );
    let manifest = package::open(target.to_str().unwrap()).unwrap().manifest.unwrap();
    let settings = &manifest.recipe["step"][0]["settings"];
    assert_eq!(settings["group-size"], "32", "the profile's own: {settings}");
}
