//! Which architecture of llama.cpp can say a model.
use super::{
    arch::Arch,
    error::Unsupported,
    experts, gemma3,
    rope::{Rotation, rotation},
};
use crate::model::{Block, Mlp, ModelSpec, Part, Role};

/// The architecture under which stock llama.cpp computes what the model computes. A function of
/// shapes and switches alone: it can be asked before there are weights.
///
/// Sliding windows are written but llama.cpp does not look at them in these architectures: up to
/// the window's length it computes the same. Everything else that it cannot say is an error.
pub fn accepts(spec: &ModelSpec) -> Result<Arch, Unsupported> {
    let Some(first) = spec.blocks.first() else { return Err(Unsupported::NoBlocks) };
    online(spec)?;
    if spec.post_norm().is_some() {
        return gemma3::accepts(spec);
    }
    for (b, block) in spec.blocks.iter().enumerate() {
        if block.head_dim != first.head_dim {
            let (first, found) = (first.head_dim, block.head_dim);
            return Err(Unsupported::HeadWidths { block: b, first, found });
        }
        if block.window != first.window {
            return Err(Unsupported::Windows { block: b });
        }
    }
    let sizes = |b: &Block| (b.heads, b.kv_heads, b.mlp.clone());
    let differing = spec.blocks.iter().position(|b| sizes(b) != sizes(first));
    let factors = matches!(rotation(spec)?, Rotation::Factors(_));
    let mixture = spec.blocks.iter().any(|b| matches!(b.mlp, Mlp::Experts { .. }));
    let normed = spec.blocks.iter().any(Block::has_head_norms);
    if normed {
        if let Some(block) = differing.filter(|_| !mixture) {
            return Err(Unsupported::NormedBlocksDiffer { block });
        }
        if factors {
            return Err(Unsupported::NormedFactors);
        }
        if let Some(bias) = spec.tensors.iter().find(|t| t.part == Part::Bias) {
            return Err(Unsupported::NormedBias { tensor: bias.name.clone() });
        }
    }
    if mixture {
        return experts::accepts(spec, differing, factors);
    }
    if normed {
        return Ok(Arch::Qwen3);
    }
    if differing.is_some() {
        return Ok(Arch::Deci);
    }
    let has = |role| spec.find(Some(0), role, None, Part::Bias).is_some();
    let qwen2 = has(Role::Q) && !has(Role::O) && !has(Role::Gate);
    let fills = first.heads * first.head_dim == spec.hidden;
    Ok(if qwen2 && fills && !factors { Arch::Qwen2 } else { Arch::Llama })
}

/// Rotations that are left to the forward pass cannot be said.
fn online(spec: &ModelSpec) -> Result<(), Unsupported> {
    let Some(transformed) = &spec.transformed else { return Ok(()) };
    for (there, what, flag) in [
        (
            transformed.head_correction,
            "a matrix stands between the last norm and the head",
            "--tied-head correction (--tied-head untie)",
        ),
        (
            transformed.down_input,
            "the inputs of down projections are rotated at run time",
            "--rotate-down",
        ),
        (transformed.keys, "queries and keys are rotated at run time", "--rotate-keys"),
    ] {
        if there {
            return Err(Unsupported::Online { what, flag });
        }
    }
    Ok(())
}
