//! Quantized models as GGUF: the codes stay, and stock llama.cpp computes with them.
use super::export::{MODELS, cut, in_llama_cpp, logits, write};
use crate::{cli::program, prune::ids, util::engines};
use milm_compress::{
    checkpoint::sha256,
    forward::{self, Backend, Reference},
    linalg::Team,
    model::{Mlp, Model, Role, Weight},
    package::{
        self,
        gguf::{self, ExportError, ExportOptions, Unsupported},
    },
    quantize::{Method, rtn::Rtn},
    runtime::Kernels,
    scheme::{Activations, Granularity, IntScheme, TensorScheme, WeightGrid},
    tensor::FloatType,
};

pub(super) fn grid(bits: u32, symmetric: bool, group: usize) -> WeightGrid {
    IntScheme { bits, symmetric, granularity: Granularity::Group(group) }.into()
}

/// A golden model, with experts as wide as blocks of 32 want it.
fn fitting(name: &str) -> Model {
    cut(name, |config| {
        for (key, width) in [("moe_intermediate_size", 32), ("shared_expert_intermediate_size", 64)]
        {
            if config.get(key).is_some() {
                config[key] = width.into();
            }
        }
    })
}

/// The model with its linear layers on a grid, and int8 embeddings.
pub(super) fn quantized(name: &str, blocks: WeightGrid, scale_type: FloatType) -> Model {
    let mut model = fitting(name);
    let matrices = model.spec.tensors.iter().filter(|it| it.input.is_some());
    let matrices: Vec<_> = matrices.map(|it| (it.name.clone(), it.role)).collect();
    for (name, role) in matrices {
        if matches!(role, Role::Router | Role::SharedGate) {
            continue;
        }
        let ends = !role.is_block_linear();
        let weight = model.weights.get(&name).unwrap();
        let shape = [weight.shape()[0], weight.shape()[1]];
        let rows = || blocks.with(Granularity::Channel, blocks.symmetric());
        let fitted = blocks.groups(shape[1]).map(|_| blocks).or_else(rows);
        let weights = fitted.filter(|_| !ends).unwrap_or(WeightGrid::INT8);
        let rtn = Rtn { grid: weights, scale_type, method: Method::Minmax };
        let activations = Activations::Float;
        let scheme = TensorScheme {
            weights,
            scale_type,
            activations,
            format: weights.format(activations),
            outliers: 0,
        };
        model.weights.quantize(&name, scheme, &rtn.tensor(&weight.to_f32(), shape).into());
    }
    model
}

fn run(model: &Model, backend: &dyn Backend) -> ndarray::Array2<f32> {
    forward::logits(model, backend, &ids(3, 20), &Team::new(2)).unwrap()
}

#[test]
fn codes_survive_the_way_to_gguf_and_back() {
    let top = tempfile::tempdir().unwrap();
    for (name, _) in MODELS {
        for (at, blocks) in
            [grid(4, true, 32), grid(4, false, 32), grid(8, true, 32), WeightGrid::MXFP4]
                .into_iter()
                .enumerate()
        {
            let model = quantized(name, blocks, FloatType::F16);
            let file = top.path().join(format!("{name}-{at}.gguf"));
            write(&model, &file, ExportOptions::default()).unwrap();
            let back = package::open(file.to_str().unwrap()).unwrap().model;
            for tensor in &model.spec.tensors {
                let (a, b) = (model.weights.get(&tensor.name), back.weights.get(&tensor.name));
                let (a, b) = (a.unwrap(), b.unwrap());
                assert_eq!(a.to_f32(), b.to_f32(), "{name}: {}", tensor.name);
                if let Weight::Quantized { tensor: a, .. } = &a {
                    let Weight::Quantized { tensor: b, .. } = &b else {
                        panic!("{name}: {} lost its codes", tensor.name)
                    };
                    assert_eq!(a.codes, b.codes, "{name}: {}", tensor.name);
                    if a.scheme.granularity == b.scheme.granularity {
                        assert_eq!((&a.scales, &a.zero_points), (&b.scales, &b.zero_points));
                    }
                }
            }
            // Divisors of rotary frequencies are float32 in the file.
            let same = run(&model, &Reference) == run(&back, &Reference);
            assert!(same || name.contains("rope"), "{name}");
        }
    }
}

#[test]
fn a_larger_group_repeats_its_scale_and_rounded_scales_are_told() {
    let top = tempfile::tempdir().unwrap();
    let model = quantized("llama", grid(4, true, 64), FloatType::F32);
    let file = top.path().join("a.gguf");
    write(&model, &file, ExportOptions::default()).unwrap();
    let back = package::open(file.to_str().unwrap()).unwrap().model;
    for name in model.weights.quantized.keys() {
        let (a, b) = (model.weights.get(name).unwrap(), back.weights.get(name).unwrap());
        for (a, b) in a.to_f32().into_iter().zip(b.to_f32()) {
            // float16 has 11 bits.
            assert!((a - b).abs() <= a.abs() / 2048.0, "{name}: {a} {b}");
        }
    }
    let difference = (run(&model, &Reference) - run(&back, &Reference)).mapv(f32::abs);
    assert!(difference.iter().any(|it| *it > 0.0), "these scales are none of float16's");
}

#[test]
fn every_tensor_has_its_hash_and_the_same_model_the_same_bytes() {
    let top = tempfile::tempdir().unwrap();
    let model = quantized("qwen2", grid(4, false, 32), FloatType::F16);
    let files = ["a.gguf", "b.gguf"].map(|name| top.path().join(name));
    for file in &files {
        let chain = Some(("p", "s"));
        write(&model, file, ExportOptions { chain, ..ExportOptions::default() }).unwrap();
    }
    let [a, b] = files.each_ref().map(|file| std::fs::read(file).unwrap());
    assert!(a == b, "the same bytes");
    let gguf = gguf::open(&files[0]).unwrap();
    let Some(gguf::Value::Array(gguf::Array::Strings(hashes))) = gguf.metadata.get("milm.sha256")
    else {
        panic!("no hashes")
    };
    assert_eq!(hashes.len(), 1 + gguf.tensors.len(), "the header's is the first");
    for (hash, tensor) in hashes[1..].iter().zip(&gguf.tensors) {
        assert_eq!(*hash, sha256(&tensor.bytes), "{}", tensor.name);
    }
    assert!(gguf.tensors.iter().any(|it| it.format.name() == "Q4_1"));
    assert!(gguf.metadata.contains_key("milm.package_sha256"));
}

#[test]
fn what_blocks_cannot_say_is_refused_before_anything_is_written() {
    let top = tempfile::tempdir().unwrap();
    let file = top.path().join("a.gguf");
    let refused = |change: &dyn Fn(&mut Model)| {
        let mut model = quantized("llama", grid(4, true, 32), FloatType::F32);
        change(&mut model);
        let error = write(&model, &file, ExportOptions::default()).unwrap_err();
        assert!(!file.exists());
        error
    };
    let name = "model.layers.0.mlp.up_proj.weight";
    let scheme = |model: &mut Model, change: &dyn Fn(&mut TensorScheme)| {
        change(&mut model.weights.quantized.get_mut(name).unwrap().0);
    };
    let unsupported = |error| match error {
        ExportError::Unsupported(it) => it,
        other => panic!("{other}"),
    };
    let outliers = refused(&|model| scheme(model, &|it| it.outliers = 8));
    assert!(matches!(unsupported(outliers), Unsupported::Outliers { tensor } if tensor == name));
    let fixed = refused(&|model| scheme(model, &|it| it.activations = Activations::Int8Static));
    assert!(matches!(unsupported(fixed), Unsupported::StaticActivations { .. }));
    let asymmetric = refused(&|model| scheme(model, &|it| it.weights = grid(8, false, 32)));
    assert!(matches!(unsupported(asymmetric), Unsupported::Grid { .. }));
    let small = refused(&|model| scheme(model, &|it| it.weights = grid(4, true, 16)));
    assert!(unsupported(small).to_string().contains("int4 sym g16"));
    let scales = refused(&|model| {
        let part = "model.layers.0.mlp.up_proj.weight_scale";
        let count = model.weights.raw[part].to_f32().unwrap().len();
        model.weights.replace(part, std::iter::repeat_n(1e6, count));
    });
    assert!(matches!(scales, ExportError::Scale { tensor } if tensor == name));
}

/// llama.cpp multiplies quantized weights with activations that it rounds to 8 bits in blocks of 32;
/// our runtime's own int8 activations have one scale per token, and steps that are no smaller. Both are
/// draws of rounding noise through the whole model: the bound is half as much again as what int8
/// activations change in our runtime. The twin, the float model, is farther off than that at int4.
///
/// In a mixture noise also lets a router choose another expert for some positions, in either engine:
/// there the position in the middle is compared.
#[test]
fn llama_cpp_computes_with_our_codes() {
    let Some(python) = engines() else { return };
    let top = tempfile::tempdir().unwrap();
    for (name, _) in MODELS {
        for (label, blocks) in [
            ("q4_0", grid(4, true, 32)),
            ("q4_1", grid(4, false, 32)),
            ("q8_0", grid(8, true, 32)),
            ("mxfp4", WeightGrid::MXFP4),
        ] {
            let model = quantized(name, blocks, FloatType::F16);
            let file = top.path().join(format!("{name}-{label}.gguf"));
            write(&model, &file, ExportOptions::default()).unwrap();
            let said = ids(5, 12); // within the window of mistral-sliding, which llama.cpp ignores
            let list = said.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            let (_, got) = in_llama_cpp(&python, &file, &["--ids", &list]);
            let want = logits(&model, &said);
            let rounded = int8(&model);
            let team = Team::new(2);
            let with = forward::logits(&rounded, &Kernels::new(), &said, &team).unwrap();
            let mixture = matches!(model.spec.blocks[0].mlp, Mlp::Experts { .. });
            let far = |a: &[f32], b: &[f32]| {
                let square = |a: &[f32], b: &[f32]| {
                    a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>()
                };
                let width = model.spec.vocab;
                let rows = a.chunks(width).zip(b.chunks(width));
                let mut rows: Vec<f64> = rows.map(|(a, b)| square(a, b)).collect();
                rows.sort_by(f64::total_cmp);
                let mean = rows.iter().sum::<f64>() / rows.len() as f64;
                let square = if mixture { rows[rows.len() / 2] } else { mean };
                (square / width as f64).sqrt()
            };
            let ours: Vec<f32> = with.iter().copied().collect();
            let (found, bound) = (far(&got, &want), 1.5 * far(&ours, &want));
            println!("{name} {label}: {found:.2e} of {bound:.2e}");
            assert!(found <= bound, "{name} {label}: {found} {bound}");
            let float = logits(&fitting(name), &said);
            assert!(
                label == "q8_0" || far(&got, &float) > bound,
                "{name} {label}: the codes are seen"
            );
        }
    }
}

/// The same model with int8 activations.
fn int8(model: &Model) -> Model {
    let mut model = model.clone();
    for (scheme, _) in model.weights.quantized.values_mut() {
        scheme.activations = Activations::Int8PerToken;
    }
    model
}

/// A package by the command line, opened again, says the same: text and hashes.
#[test]
fn a_package_is_exported_and_run() {
    let top = tempfile::tempdir().unwrap();
    let path = |name: &str| top.path().join(name).display().to_string();
    let quantize = ["quantize", "builtin:milm-mini", "--rounding", "nearest", "--rotate", "none"];
    program().args(quantize).args(["-o", &path("package")]).assert().success();
    let export = ["export", &path("package"), "--to", "gguf", "-o", &path("a.gguf")];
    program().args(export).assert().success().stderr(predicates::str::contains("float16"));
    let text = |model: &str| {
        let flags =
            ["--prompt", "It was a dark night", "--max-tokens", "12", "--backend", "reference"];
        let done = program().arg("run").arg(model).args(flags).assert().success();
        String::from_utf8(done.get_output().stdout.clone()).unwrap()
    };
    assert_eq!(text(&path("package")), text(&path("a.gguf")));
    program().args(["verify", &path("a.gguf")]).assert().success();
    let mut bytes = std::fs::read(path("a.gguf")).unwrap();
    let last = bytes.len() - 100;
    bytes[last] ^= 1;
    std::fs::write(path("a.gguf"), bytes).unwrap();
    program()
        .args(["verify", &path("a.gguf")])
        .assert()
        .code(2)
        .stderr(predicates::str::contains("has changed"));
}
