#!/usr/bin/env python3
"""Make a tiny random MiMo checkpoint with a layer for multi-token prediction.

    pip install torch transformers safetensors
    make.py            (writes config.json, model.safetensors and golden.safetensors beside itself)
MiMo's own code is Qwen2 with `mtp_layers`, which the main path does not use: the logits are Qwen2's.
The names and shapes of an MTP layer are those that MiMo-7B publishes.
"""
import json
import os

import torch
import transformers
from safetensors.torch import save_file
from transformers import Qwen2Config, Qwen2ForCausalLM

HERE = os.path.dirname(os.path.abspath(__file__))


def main():
    torch.manual_seed(70)
    config = Qwen2Config(hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
                         num_key_value_heads=2, vocab_size=128, max_position_embeddings=256, rms_norm_eps=1e-5,
                         bos_token_id=1, eos_token_id=2, pad_token_id=0, tie_word_embeddings=False,
                         rope_parameters={"rope_type": "default", "rope_theta": 640000.0})
    config._attn_implementation = "eager"
    model = Qwen2ForCausalLM(config).eval()
    names = {"token_layernorm.weight": (32,), "hidden_layernorm.weight": (32,), "final_layernorm.weight": (32,),
             "input_proj.weight": (32, 64)}
    block = "model.layers.0."
    names.update({k[len(block):]: tuple(v.shape) for k, v in model.state_dict().items() if k.startswith(block)})
    draw = lambda name, shape: (1 if "norm" in name else 0) + (0.2 if "norm" in name else 0.15) * torch.randn(shape)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(draw(name, weight.shape))
        ids = torch.randint(3, 128, (2, 48))
        logits = model.double()(ids).logits.float()
    tensors = {k: v.float().contiguous() for k, v in model.state_dict().items()}
    tensors.update({f"model.mtp_layers.0.{name}": draw(name, shape) for name, shape in names.items()})
    save_file(tensors, os.path.join(HERE, "model.safetensors"), metadata={"format": "pt"})
    save_file({"input_ids": ids, "logits": logits.contiguous()}, os.path.join(HERE, "golden.safetensors"),
              metadata={"transformers": transformers.__version__, "torch": torch.__version__})
    # As MiMo-7B publishes it: the form from before transformers 5, no head_dim.
    published = {
        "architectures": ["MiMoForCausalLM"],
        "auto_map": {"AutoConfig": "configuration_mimo.MiMoConfig", "AutoModelForCausalLM": "modeling_mimo.MiMoForCausalLM"},
        "attention_bias": True, "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
        "hidden_act": "silu", "hidden_size": 32, "intermediate_size": 48, "max_position_embeddings": 256,
        "max_window_layers": 3, "model_type": "mimo", "num_attention_heads": 4, "num_hidden_layers": 3,
        "num_key_value_heads": 2, "num_nextn_predict_layers": 1, "rms_norm_eps": 1e-05, "rope_scaling": None,
        "rope_theta": 640000.0, "sliding_window": None, "tie_word_embeddings": False, "torch_dtype": "float32",
        "use_cache": True, "use_sliding_window": False, "vocab_size": 128,
    }
    with open(os.path.join(HERE, "config.json"), "w") as file:
        json.dump(published, file, indent=2)


if __name__ == "__main__":
    main()
