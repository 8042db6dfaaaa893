#!/usr/bin/env python3
"""Ask transformers what a config.json means whose keys are absent, null, old, nested or at odds.

    pip install torch transformers safetensors
    make.py            (writes rows.json beside itself, from the checkpoints of ../)
Each row changes the config.json of a golden checkpoint (`remove`, then `set`) and holds either
    logits    16 float64 logits of the first 48 ids of its golden.safetensors: tokens 0, 16, … 112 at positions 24 and 47
    windows   per block: tokens that a query sees, null for all
    eps, theta, positions
or
    error     the class of the exception that transformers raises
and, where this program differs on purpose, `ours`: `refused: why`, or `taken: why` with the logits of what is `meant`.
"""
import copy
import json
import os
import sys
import tempfile

import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

HERE = os.path.dirname(os.path.abspath(__file__))
FOLDER = os.path.dirname(HERE)
transformers.logging.set_verbosity_error()


class MiMoConfig(Qwen2Config):
    model_type = "mimo"


class MiMoForCausalLM(Qwen2ForCausalLM):
    config_class = MiMoConfig


AutoConfig.register("mimo", MiMoConfig)
AutoModelForCausalLM.register(MiMoConfig, MiMoForCausalLM)

BASES = {"llama": "llama", "mistral": "mistral-sliding", "qwen2": "qwen2", "qwen3": "qwen3-tied",
         "mimo": "mimo-mtp", "mixtral": "mixtral", "qwen2-moe": "qwen2-moe", "qwen3-moe": "qwen3-moe"}
LAYERED = ("qwen2", "qwen3", "mimo", "qwen2-moe")
ROPE = ["rope_theta", "rope_scaling", "rope_parameters"]
YARN = {"type": "yarn", "factor": 4.0}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 32}
NULL = "null counts as absent"
EVEN = [1.0, 1.3, 1.0, 2.1, 0.7, 1.5, 1.0, 3.0]
rows = []


def row(family, what, set=None, remove=(), ours=None, base=None, meant=None):
    rows.append({"base": base or BASES[family], "row": f"{family}: {what}", "remove": list(remove),
                 "set": set or {}, **({"ours": ours} if ours else {}), **({"meant": meant} if meant else {})})


def filled(value):
    """Without what is null: so `taken: null counts as absent` is meant."""
    return {k: filled(v) if isinstance(v, dict) else v for k, v in value.items() if v is not None}


def rope_rows(family):
    def rope(what, ours=None, meant=None, **new):
        row(family, what, new, [key for key in ROPE if key not in new], ours, meant=meant)
    rope("no rope key at all")
    rope("rope_theta null", rope_theta=None, ours=f"taken: {NULL}")
    rope("rope_theta at the top, rope_scaling null", rope_theta=500.0, rope_scaling=None)
    rope("rope_theta in rope_parameters", rope_parameters={"rope_type": "default", "rope_theta": 500.0})
    rope("rope_theta in rope_scaling", rope_scaling={"type": "linear", "factor": 2.0, "rope_theta": 500.0})
    rope("rope_theta beside rope_parameters", rope_theta=500.0, rope_parameters={"rope_type": "default"})
    rope("rope_theta inside and outside", rope_theta=9.0, rope_parameters={"rope_type": "default", "rope_theta": 500.0})
    rope("rope_parameters without rope_theta", rope_parameters={"rope_type": "linear", "factor": 3.0})
    rope("rope_parameters empty", rope_parameters={})
    rope("rope_scaling empty", rope_theta=500.0, rope_scaling={})
    rope("rope_scaling and rope_parameters at odds", rope_scaling={"type": "linear", "factor": 2.0},
         rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 500.0})
    rope("rope_scaling null beside rope_parameters", rope_scaling=None,
         rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 500.0})
    rope("rope_type and type at odds", rope_scaling={"type": "linear", "rope_type": "default", "factor": 4.0})
    rope("rope_type null, type said", rope_scaling={"type": "linear", "rope_type": None, "factor": 4.0},
         ours=f"taken: {NULL}")
    rope("factor without a type", rope_scaling={"factor": 4.0})
    rope("linear without a factor", rope_scaling={"type": "linear"})
    rope("linear, factor null", rope_scaling={"type": "linear", "factor": None})
    rope("an unknown rope_type", rope_scaling={"rope_type": "spiral", "factor": 4.0})
    rope("dynamic beyond the positions", rope_theta=500.0, max_position_embeddings=16,
         rope_scaling={"type": "dynamic", "factor": 2.0})
    rope("yarn, original positions inside", rope_scaling={**YARN, "original_max_position_embeddings": 16})
    rope("yarn, original positions at the top", rope_scaling=YARN, original_max_position_embeddings=16)
    rope("yarn, original positions at the top beside rope_parameters", original_max_position_embeddings=16,
         rope_parameters={"rope_type": "yarn", "factor": 4.0, "rope_theta": 500.0})
    rope("yarn, original positions inside and outside", original_max_position_embeddings=16,
         rope_scaling={**YARN, "original_max_position_embeddings": 64})
    rope("yarn, original positions null at the top", original_max_position_embeddings=None,
         rope_scaling={**YARN, "original_max_position_embeddings": 16}, ours=f"taken: {NULL}")
    rope("yarn without original positions", rope_scaling=YARN, max_position_embeddings=64)
    rope("yarn, factor null", rope_scaling={"type": "yarn", "factor": None, "original_max_position_embeddings": 16})
    rope("yarn without a factor", rope_scaling={"type": "yarn", "original_max_position_embeddings": 16},
         ours="taken: as where it is null, the ratio of the positions",
         meant={"rope_scaling": {"type": "yarn", "factor": None, "original_max_position_embeddings": 16}})
    rope("yarn, beta_fast null", rope_scaling={**YARN, "original_max_position_embeddings": 32, "beta_fast": None})
    rope("yarn, one mscale", rope_scaling={**YARN, "original_max_position_embeddings": 32, "mscale": 2.0})
    rope("yarn, two mscales", rope_scaling={**YARN, "original_max_position_embeddings": 32, "mscale": 2.0,
                                            "mscale_all_dim": 1.0})
    rope("yarn, truncate false", rope_scaling={**YARN, "original_max_position_embeddings": 32, "truncate": False})
    rope("yarn, truncate null", rope_scaling={**YARN, "original_max_position_embeddings": 32, "truncate": None})
    rope("llama3", rope_theta=500.0, rope_scaling=LLAMA3)
    rope("llama3, original positions at the top", original_max_position_embeddings=64, rope_scaling=LLAMA3)
    for key in ["factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"]:
        less = {k: v for k, v in LLAMA3.items() if k != key}
        rope(f"llama3 without {key}", rope_scaling=less)
    rope("llama3, low_freq_factor null", rope_scaling={**LLAMA3, "low_freq_factor": None})
    rope("a rope per kind of layer", None if family in (*LAYERED, "mistral") else
         "refused: other engines read the rope of each layer", rope_parameters={"full_attention": {"rope_type": "default", "rope_theta": 500.0}},
         **({} if family in LAYERED else {"layer_types": ["full_attention"] * 3}))
    rope("half of the head turns, default", rope_parameters={"rope_type": "default", "rope_theta": 500.0,
         "partial_rotary_factor": 0.5}, ours="refused: other engines turn half of the head")
    rope("half of the head turns, linear", partial_rotary_factor=0.5, rope_scaling={"type": "linear", "factor": 2.0})


def long_rope_rows(family):
    long = {"rope_type": "longrope", "short_factor": EVEN, "long_factor": EVEN[::-1]}
    row(family, "longrope, original positions inside", {"rope_scaling": {**long, "original_max_position_embeddings": 32}},
        ROPE)
    row(family, "longrope, original positions at the top", {"rope_scaling": long, "original_max_position_embeddings": 32},
        ROPE)
    row(family, "longrope, original positions inside and outside",
        {"rope_scaling": {**long, "original_max_position_embeddings": 64}, "original_max_position_embeddings": 32}, ROPE)
    row(family, "longrope without original positions", {"rope_scaling": long}, ROPE)
    row(family, "longrope, factor said", {"rope_scaling": {**long, "factor": 3.0, "original_max_position_embeddings": 64}},
        ROPE)
    row(family, "longrope without long_factor", {"rope_scaling": {k: v for k, v in long.items() if k != "long_factor"}},
        ROPE)
    row(family, "longrope as su", {"rope_scaling": {**long, "rope_type": "su", "original_max_position_embeddings": 32}},
        ROPE, "taken: its name before it was longrope",
        meant={"rope_scaling": {**long, "original_max_position_embeddings": 32}})


def plain_rows(family):
    for key in ["rms_norm_eps", "tie_word_embeddings", "hidden_act", "attention_dropout", "num_key_value_heads",
                "head_dim", "max_position_embeddings"]:
        row(family, f"{key} absent", {}, [key])
        row(family, f"{key} null", {key: None}, [], f"taken: {NULL}")
    for key in ["vocab_size", "hidden_size", "num_attention_heads", "num_hidden_layers", "intermediate_size"]:
        row(family, f"{key} absent", {}, [key])
    row(family, "sizes in text_config", {"text_config": {"hidden_size": 64, "vocab_size": 128}},
        ["hidden_size", "vocab_size"])
    row(family, "positions absent under yarn", {"rope_scaling": YARN}, [*ROPE, "max_position_embeddings"])
    row(family, "hidden_act by another name", {"hidden_act": "swish"})
    row(family, "another hidden_act", {"hidden_act": "gelu"}, (), "refused: only SiLU is computed")
    row(family, "attention_dropout 0.5", {"attention_dropout": 0.5})
    row(family, "fewer layers than the file", {"num_hidden_layers": 2, **(
        {"layer_types": ["full_attention"] * 2} if family in LAYERED else {})})
    row(family, "torch_dtype", {"torch_dtype": "float32"}, ["dtype"])
    row(family, "neither dtype nor torch_dtype", {}, ["dtype", "torch_dtype"])
    row(family, "architectures absent", {}, ["architectures"])
    row(family, "model_type absent", {}, ["model_type"], "taken: by the architecture", meant={"model_type": family.replace("-", "_")})
    other = "MistralForCausalLM" if family != "mistral" else "LlamaForCausalLM"
    row(family, "architectures and model_type at odds", {"architectures": [other]}, (),
        "refused: engines do not agree on which holds")
    row(family, "sizes of a layer of its own", {"per_layer_config": {"1": {"rms_norm_eps": 0.1}}})


def bias_rows(family):
    for key in ["attention_bias", "mlp_bias", "qkv_bias"]:
        row(family, f"{key} absent", {}, [key])
        row(family, f"{key} null", {key: None}, [], f"taken: {NULL}")
        if (family, key) != ("qwen2-moe", "qkv_bias"):
            row(family, f"{key} true", {key: True})
        row(family, f"{key} false", {key: False})


def window_rows(family):
    keys = ["sliding_window", "use_sliding_window", "max_window_layers", "layer_types"]

    def window(what, ours=None, meant=None, **new):
        row(family, what, new, [key for key in keys if key not in new], ours, meant=meant)
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    window("no key of a window")
    window("sliding_window 8", sliding_window=8)
    window("sliding_window null", sliding_window=None)
    window("sliding_window 0", sliding_window=0, **({"ours": "taken: Llama has no window", "meant": {"use_cache": True}}
                                                    if family == "llama" else {}))
    window("use_sliding_window without a window", use_sliding_window=True)
    window("use_sliding_window, window null", use_sliding_window=True, sliding_window=None)
    window("use_sliding_window false", use_sliding_window=False, sliding_window=8, max_window_layers=0)
    window("use_sliding_window null", use_sliding_window=None, sliding_window=8, max_window_layers=0,
           ours=f"taken: {NULL}")
    window("window, max_window_layers absent", use_sliding_window=True, sliding_window=8)
    window("window, max_window_layers null", use_sliding_window=True, sliding_window=8, max_window_layers=None,
           ours=f"taken: {NULL}")
    window("window, max_window_layers 0", use_sliding_window=True, sliding_window=8, max_window_layers=0)
    window("window, max_window_layers 1", use_sliding_window=True, sliding_window=8, max_window_layers=1)
    window("window, layer_types", use_sliding_window=True, sliding_window=8, layer_types=kinds)
    window("window, layer_types at odds with max_window_layers", use_sliding_window=True, sliding_window=8,
           max_window_layers=1, layer_types=kinds)
    window("layer_types null", use_sliding_window=True, sliding_window=8, max_window_layers=1, layer_types=None)
    window("layer_types without use_sliding_window", sliding_window=8, layer_types=kinds, **(
        {"ours": "taken: Qwen3-MoE's layers are all alike", "meant": {"sliding_window": 8}}
        if family == "qwen3-moe" else {}))
    window("layer_types of the old name", layer_types=["attention"] * 3)
    window("layer_types too short", layer_types=["full_attention"] * 2)
    window("layer_types unknown", layer_types=["full_attention", "round_attention", "full_attention"])
    window("layer_types not of this family", layer_types=["full_attention", "linear_attention", "full_attention"])


def expert_rows(family):
    count = "num_local_experts"
    for key in ["num_experts", "num_local_experts"]:
        other = (family, key) == ("qwen2-moe", count)
        row(family, f"{key} alone", {key: 4}, [k for k in ["num_experts", count] if k != key],
            "taken: the other name of the same number" if other else None, meant={"num_experts": 4} if other else None)
    row(family, "neither count of experts", {}, ["num_experts", count])
    row(family, "num_local_experts wins or loses", {"num_experts": 3, "num_local_experts": 4}, (),
        "refused: which of the two holds depends on the family")
    row(family, "num_experts wins or loses", {"num_experts": 4, "num_local_experts": 3}, (),
        "refused: which of the two holds depends on the family")
    for key in ["num_experts_per_tok", "norm_topk_prob", "decoder_sparse_step", "mlp_only_layers",
                "moe_intermediate_size", "shared_expert_intermediate_size"]:
        row(family, f"{key} absent", {}, [key])
        row(family, f"{key} null", {key: None}, [], f"taken: {NULL}")
    row(family, "num_experts_per_tok 3", {"num_experts_per_tok": 3})
    row(family, "norm_topk_prob true", {"norm_topk_prob": True})
    row(family, "norm_topk_prob false", {"norm_topk_prob": False})
    row(family, "mlp_only_layers where the file has experts", {"mlp_only_layers": [1]})
    row(family, "decoder_sparse_step where the file has experts", {"decoder_sparse_step": 2})
    row(family, "decoder_sparse_step 0", {"decoder_sparse_step": 0})
    row(family, "no experts", {"num_experts": 0, "num_local_experts": 0})


def windows(model, config):
    found = []
    for layer in model.model.layers:
        attention = layer.self_attn
        own = getattr(attention, "sliding_window", None)
        if model.config.model_type in ("mistral", "mixtral"):
            own = config.sliding_window
        found.append(own)
    return found


def ask(item, change, absent=()):
    source = os.path.join(FOLDER, item["base"])
    with open(os.path.join(source, "config.json")) as file:
        config = json.load(file)
    for key in (*item["remove"], *absent):
        config.pop(key, None)
    config.update(copy.deepcopy(change))
    ids = load_file(os.path.join(source, "golden.safetensors"))["input_ids"][:1]
    with tempfile.TemporaryDirectory() as folder:
        for name in os.listdir(source):
            if name.startswith("model"):
                os.symlink(os.path.join(source, name), os.path.join(folder, name))
        with open(os.path.join(folder, "config.json"), "w") as file:
            json.dump(config, file)
        try:
            options = {"experts_implementation": "eager"} if "experts" in json.dumps(config) else {}
            model, info = AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float64, attn_implementation="eager", output_loading_info=True, **options)
            if info["missing_keys"]:
                return {"error": "missing tensors"}
            with torch.no_grad():
                logits = model.eval()(ids).logits[0]
        except Exception as error:  # whatever it is, the row says its class
            if "-v" in sys.argv:
                print("   ", type(error).__name__, str(error)[:200].replace("\n", " "))
            return {"error": type(error).__name__}
    if not torch.isfinite(logits).all():
        return {"error": "not finite"}
    parameters = model.config.rope_parameters
    return {"logits": [round(float(logits[at, token]), 6) for at in (24, 47) for token in range(0, 128, 16)],
            "windows": windows(model, model.config), "eps": model.model.norm.variance_epsilon,
            "theta": parameters["rope_theta"], "positions": model.config.max_position_embeddings}


def answered(item):
    answer = ask(item, item["set"])
    taken = "error" in answer and item.get("ours", "").startswith("taken")
    if taken:
        nulls = [key for key, value in item["set"].items() if value is None]
        meant = item.get("meant")
        answer.update(ask(item, meant) if meant else ask(item, filled(item["set"]), nulls))
    # Only what is left of a difference is said.
    if not taken or "logits" not in answer:
        item.pop("meant", None)
        if "error" in answer or item.get("ours", "").startswith("taken"):
            item.pop("ours", None)
    return answer


def table():
    for family in BASES:
        rope_rows(family)
        plain_rows(family)
        bias_rows(family)
        window_rows(family)
    long_rope_rows("llama")
    for family in ["mixtral", "qwen2-moe", "qwen3-moe"]:
        expert_rows(family)
    for key in ["attention_bias", "mlp_bias"]:
        row("llama", f"{key} absent, the file has them", {}, [key], base="llama-tied-bias")
    for key in ["num_key_value_heads", "rope_theta"]:
        row("llama", f"{key} absent, a head each", {}, [key], base="llama-mha")
        row("llama", f"{key} null, a head each", {key: None}, [], f"taken: {NULL}", base="llama-mha")
    row("llama", "tie_word_embeddings absent, the file has no head", {}, ["tie_word_embeddings"], base="llama-tied-bias")


def main():
    table()
    done = []
    for item in rows:
        answer = answered(item)
        if "-v" in sys.argv:
            print(item["row"], "→", answer.get("error") or [answer["windows"], answer["eps"], answer["theta"],
                                                             answer["positions"], answer["logits"][0]])
        done.append({**item, **answer})
    with open(os.path.join(HERE, "rows.json"), "w") as file:
        file.write("[\n" + ",\n".join(json.dumps(item) for item in done) + "\n]\n")
    print(len(done), "rows by transformers", transformers.__version__, "torch", torch.__version__)


if __name__ == "__main__":
    main()
