//! Which forms there are, and what is asked of the one that a model is in.
use super::{
    super::{
        Declared, EngineFit, Inspected, Opened, PackageError, Verification, compressed_tensors,
        gguf, onnx,
    },
    Format, Place,
};
use crate::{linalg::Team, progress::Progress};
use std::path::Path;

/// Every form. The first answers for what none claims: it tells best what is missing in a folder.
pub const FORMATS: &[&dyn Format] = &[
    &compressed_tensors::Form,
    &gguf::Form,
    &onnx::Form,
    &onnx::hexagon::Form,
    &onnx::openvino::Form,
];

/// The form that claims what stands at a path.
pub fn find(name: &str) -> Result<Option<&'static dyn Format>, PackageError> {
    claimed(FORMATS, name)
}

fn claimed(
    formats: &[&'static dyn Format],
    name: &str,
) -> Result<Option<&'static dyn Format>, PackageError> {
    let place = Place::of(name);
    let mut claims = formats.iter().filter(|format| format.sniff(&place));
    match (claims.next(), claims.next()) {
        (Some(first), Some(second)) => Err(PackageError::TwoForms {
            name: name.to_owned(),
            first: first.name(),
            second: second.name(),
        }),
        (claim, _) => Ok(claim.copied()),
    }
}

fn form(name: &str) -> Result<&'static dyn Format, PackageError> {
    Ok(find(name)?.unwrap_or(FORMATS[0]))
}

/// Opens a model: a path of any form, or `builtin:NAME`.
pub fn open(name: &str) -> Result<Opened, PackageError> {
    form(name)?.open(name)
}

/// Compares a model with the hashes that were recorded when this program wrote it.
pub fn verify(
    name: &str,
    team: &Team,
    progress: &dyn Progress,
) -> Result<Verification, PackageError> {
    form(name)?.verify(name, team, progress)
}

/// What [`verify`] does and, where nothing is wrong, decodes every weight: scales are finite and not 0,
/// parts are what their values encode to, values have the hash that was recorded.
pub fn verify_deep(
    name: &str,
    team: &Team,
    progress: &dyn Progress,
) -> Result<Verification, PackageError> {
    let form = form(name)?;
    let mut result = form.verify(name, team, progress)?;
    if result.passed() {
        form.decode(name, team, progress, &mut result)?;
    }
    Ok(result)
}

/// Looks at a model; at most about `sample` weights are read for the statistics. A file that no form claims
/// is asked of the form that is a file, whatever it is called.
pub fn inspect(
    name: &str,
    sample: u64,
    team: &Team,
    progress: &dyn Progress,
) -> Result<Inspected, PackageError> {
    let alone = Path::new(name).is_file();
    let files = || FORMATS.iter().copied().find(|format| alone && format.is_file());
    let form = find(name)?.or_else(files).unwrap_or(FORMATS[0]);
    form.inspect(name, sample, team, progress)
}

/// Which engines load a model, by the forms that they take.
pub fn engines(of: Declared<'_>) -> Vec<EngineFit> {
    let others = FORMATS.iter().flat_map(|format| format.engines(of));
    others.chain([EngineFit::new("milm-compress", None, "")]).collect()
}

/// Whether a file holds weights and nothing else, by its name.
pub fn holds_weights(path: &Path) -> bool {
    let ending = path.extension().and_then(|it| it.to_str());
    let mut endings = FORMATS.iter().flat_map(|format| format.weight_files());
    endings.any(|it| ending == Some(it))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::synth::Shape;
    use crate::tensor::FloatType;
    use crate::{model::ModelSpec, scheme::Schemes};
    use serde_json::{Value, json};

    fn fits(change: impl FnOnce(&mut Value)) -> Vec<bool> {
        let mut config = Shape::find("tiny").unwrap().config(FloatType::Bf16);
        change(&mut config);
        let spec = ModelSpec::from_config(&config).unwrap();
        let of = Declared { spec: &spec, config: &config, schemes: &Schemes::new() };
        engines(of).iter().map(|fit| fit.loads.is_ok()).collect()
    }

    #[test]
    fn engines_load_what_they_know() {
        assert_eq!(fits(|_| ()), [true; 7]);
        assert_eq!(fits(|c| c["head_dim"] = json!(6)), [true; 7]);
        // transformers, vLLM, llama.cpp, ONNX Runtime, Hexagon HTP, OpenVINO, here
        let list = fits(|c| c["intermediate_size"] = json!([256, 128]));
        assert_eq!(list, [false, false, true, true, true, true, true]);
        let three = |c: &mut Value| {
            (c["num_attention_heads"], c["num_key_value_heads"]) = (json!(3), json!(1));
        };
        assert_eq!(fits(three), [false, true, true, true, true, true, true]);
        let pairs = json!([[0], [1]]);
        let kept =
            json!({"rope_type": "kept-pairs", "original_head_dim": 32, "pairs": [pairs, pairs]});
        let by_head = |c: &mut Value| (c["head_dim"], c["rope_scaling"]) = (json!(2), kept);
        assert_eq!(fits(by_head), [false, false, false, true, true, true, true]);
        let long = json!({"rope_type": "longrope", "short_factor": [1.0], "long_factor": [1.0]});
        let qwen3 = |c: &mut Value| {
            c["architectures"] = json!(["Qwen3ForCausalLM"]);
            c["model_type"] = json!("qwen3");
            (c["head_dim"], c["rope_scaling"]) = (json!(2), long);
        };
        assert_eq!(fits(qwen3), [true, true, false, true, true, true, true]);
        let rotated = |c: &mut Value| c["milm_transform"] = json!({"rotation": "hadamard"});
        assert_eq!(fits(rotated), [true; 7]);
        let keys = |c: &mut Value| c["milm_transform"] = json!({"keys": true});
        assert_eq!(fits(keys), [false, false, false, true, true, true, true]);
        let experts = |c: &mut Value| {
            c["architectures"] = json!(["MixtralForCausalLM"]);
            c["model_type"] = json!("mixtral");
            (c["num_local_experts"], c["num_experts_per_tok"]) = (json!(4), json!(2));
        };
        assert_eq!(fits(experts), [true; 7]);
    }
}
