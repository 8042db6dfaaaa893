//! Mixtures of experts as GGUF: stacks, what they say, and what is refused.
use super::{
    build::Field,
    export::{MODELS, cut, named, write},
    quantized::{grid, quantized},
};
use crate::util;
use milm_compress::{
    model::{Expert, Mlp, Model, Role},
    package::gguf::{self, Arch, ExportError, ExportOptions, Unsupported, accepts},
    tensor::{FloatType, RawTensor},
};
use serde_json::json;

const MIXTURES: [&str; 3] = ["mixtral", "qwen2-moe", "qwen3-moe"];

fn mixture(arch: &'static str, what: &str) -> Result<Arch, Unsupported> {
    Err(Unsupported::Form { arch, what: what.to_owned() })
}

/// The golden mixtures are among the models of the other tests.
#[test]
fn mixtures_are_tried() {
    for name in MIXTURES {
        assert!(MODELS.iter().any(|(it, _)| *it == name), "{name}");
    }
}

/// Experts lie in a stack one behind the other; routers and gates are float32, a gate a vector.
#[test]
fn stacks_hold_every_expert() {
    let top = tempfile::tempdir().unwrap();
    for name in MIXTURES {
        let (model, file) = (named(name), top.path().join(format!("{name}.gguf")));
        let half = ExportOptions { float: Some(FloatType::Bf16), ..ExportOptions::default() };
        write(&model, &file, half).unwrap();
        let gguf = gguf::open(&file).unwrap();
        let block = &model.spec.blocks[1];
        let Mlp::Experts { count, width, shared, per_token, .. } = block.mlp else { panic!() };
        let stack = gguf.tensor("blk.1.ffn_down_exps.weight").unwrap();
        assert_eq!(stack.shape, [count, model.spec.hidden, width], "{name}");
        let mut bytes = Vec::new();
        for tensor in &model.spec.tensors {
            if tensor.block == Some(1)
                && tensor.role == Role::Down
                && matches!(tensor.expert, Some(Expert::Routed(_)))
            {
                let values = model.weights.raw[&tensor.name].to_f32().unwrap();
                FloatType::Bf16.encode(&values, &mut bytes);
            }
        }
        assert!(*stack.bytes == bytes[..], "{name}");
        let router = gguf.tensor("blk.1.ffn_gate_inp.weight").unwrap();
        assert_eq!((router.format.name(), router.shape[0]), ("F32", count));
        let gate = gguf.tensor("blk.1.ffn_gate_inp_shexp.weight");
        assert_eq!(gate.map(|it| it.shape.clone()), shared.map(|_| vec![model.spec.hidden]));
        let key = |leaf: &str| {
            let arch = gguf.architecture().unwrap();
            gguf.metadata.get(&format!("{arch}.{leaf}")).and_then(gguf::Value::as_u64)
        };
        assert_eq!(key("expert_count"), Some(count as u64));
        assert_eq!(key("expert_used_count"), Some(per_token as u64));
        assert_eq!(key("expert_feed_forward_length"), Some(width as u64));
        assert_eq!(key("expert_shared_feed_forward_length"), shared.map(|it| it as u64));
    }
}

/// Each architecture of llama.cpp weighs experts in one way, and has them in every block.
#[test]
fn what_an_architecture_does_not_compute_is_refused() {
    let with = |name, key: &str, value: serde_json::Value| {
        accepts(&cut(name, |config| config[key] = value.clone()).spec)
    };
    let scaled = "weights of the chosen experts are scaled to sum to 1 (`norm_topk_prob`)";
    let plain = "weights of the chosen experts stay what the router gives (`norm_topk_prob`)";
    assert_eq!(with("qwen2-moe", "norm_topk_prob", json!(true)), mixture("qwen2moe", scaled));
    assert_eq!(with("qwen3-moe", "norm_topk_prob", json!(false)), mixture("qwen3moe", plain));
    let dense = "block 1 is another than block 0, dense or of other sizes";
    let golden = util::open(&util::golden().join("qwen3-moe"));
    assert_eq!(accepts(&golden.spec), mixture("qwen3moe", dense));
    let widths = with("mixtral", "intermediate_size", json!([96, 64, 96]));
    assert_eq!(widths, mixture("llama", dense));
    let mut tied = named("qwen2-moe").spec;
    tied.tied = true;
    let told = accepts(&tied).unwrap_err().to_string();
    assert!(told.contains("--tied-head untie") && told.contains("hint: "), "{told}");
    assert_eq!(accepts(&named("mixtral").spec), Ok(Arch::Llama));
}

/// One expert on another grid, or in float, has no place in its stack.
#[test]
fn experts_of_a_stack_have_one_type() {
    let top = tempfile::tempdir().unwrap();
    let file = top.path().join("a.gguf");
    let name = "model.layers.1.mlp.experts.2.up_proj.weight";
    let refused = |change: &dyn Fn(&mut Model)| {
        let mut model = quantized("qwen2-moe", grid(4, true, 32), FloatType::F16);
        change(&mut model);
        match write(&model, &file, ExportOptions::default()) {
            Err(ExportError::Unsupported(Unsupported::Stack { tensor, stack, first, found })) => {
                assert_eq!((&*tensor, &*stack), (name, "blk.1.ffn_up_exps.weight"));
                assert!(!file.exists());
                (first, found)
            }
            other => panic!("{other:?}"),
        }
    };
    let other = quantized("qwen2-moe", grid(8, true, 32), FloatType::F16);
    let eight = refused(&|model| {
        model.weights.quantized.insert(name.into(), other.weights.quantized[name]);
    });
    assert_eq!(eight, ("Q4_0", "Q8_0"));
    let float = refused(&|model| {
        let (_, shape) = model.weights.quantized.remove(name).unwrap();
        let raw = RawTensor::from_f32(shape.to_vec(), &vec![0.0; shape[0] * shape[1]]);
        model.weights.raw.insert(name.into(), raw);
    });
    assert_eq!(float, ("Q4_0", "float"));
}

/// A number that no engine computes with is named with its expert.
#[test]
fn an_infinite_weight_is_named_with_its_expert() {
    let top = tempfile::tempdir().unwrap();
    let mut model = named("mixtral");
    let name = "model.layers.0.block_sparse_moe.experts.3.w3.weight";
    let raw = &model.weights.raw[name];
    let mut values = raw.to_f32().unwrap();
    values[64 + 5] = f32::INFINITY;
    let raw = RawTensor::from_f32(raw.shape.clone(), &values);
    model.weights.raw.insert(name.into(), raw);
    let error = write(&model, &top.path().join("a.gguf"), ExportOptions::default());
    let error = error.unwrap_err().to_string();
    assert!(error.contains("`blk.0.ffn_up_exps.weight` holds inf at [3, 1, 5]"), "{error}");
}

/// Files of strangers: experts that are said but not there, or of another number.
#[test]
fn stacks_of_another_shape_are_told() {
    let refusal = |count: u32| {
        let build = super::tokenizers::tiny()
            .with("llama.expert_count", Field::U32(count))
            .with("llama.expert_used_count", Field::U32(1))
            .floats("blk.0.ffn_gate_inp.weight", &[2, 4], &[0.0; 8]);
        super::tokenizers::refusal(&build)
    };
    assert!(refusal(2).contains("no tensor for"), "{}", refusal(2));
    assert!(refusal(3).contains("[3, "), "{}", refusal(3));
    assert!(refusal(0).contains("no such tensor"), "{}", refusal(0));
}
