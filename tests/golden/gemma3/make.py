#!/usr/bin/env python3
"""Make a tiny random Gemma 3 text checkpoint with the logits that transformers gives it.

    pip install torch transformers safetensors
    make.py            (writes config.json, model.safetensors and golden.safetensors beside itself)
Seven blocks, of which the sixth sees everything and the others 16 tokens; `query_pre_attn_scalar` is not the
width of a head; config.json is in the form that Gemma 3 was published in, before transformers 5.
"""
import json
import os

import torch
import transformers
from safetensors.torch import save_file
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

HERE = os.path.dirname(os.path.abspath(__file__))
PUBLISHED = {
    "architectures": ["Gemma3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
    "attn_logit_softcapping": None, "bos_token_id": 2, "cache_implementation": "hybrid", "eos_token_id": 1,
    "final_logit_softcapping": None, "head_dim": 16, "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 32,
    "initializer_range": 0.02, "intermediate_size": 48, "max_position_embeddings": 256, "model_type": "gemma3_text",
    "num_attention_heads": 2, "num_hidden_layers": 7, "num_key_value_heads": 1, "pad_token_id": 0,
    "query_pre_attn_scalar": 24, "rms_norm_eps": 1e-06, "rope_local_base_freq": 10000, "rope_scaling": None,
    "rope_theta": 1000000, "sliding_window": 16, "sliding_window_pattern": 6, "torch_dtype": "float32",
    "use_cache": True, "vocab_size": 128,
}


def main():
    torch.manual_seed(3)
    with open(os.path.join(HERE, "config.json"), "w") as file:
        json.dump(PUBLISHED, file, indent=2)
    config = Gemma3TextConfig.from_pretrained(HERE)
    config._attn_implementation = "eager"
    model = Gemma3ForCausalLM(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            # Gains are stored about 0; one such norm is in float32 whatever the model is in.
            weight.copy_((0.3 if "norm" in name else 0.15) * torch.randn_like(weight))
        ids = torch.randint(3, 128, (2, 48))
        logits = model.double()(ids).logits.float()
    tensors = {k: v.float().contiguous() for k, v in model.state_dict().items() if k != "lm_head.weight"}
    save_file(tensors, os.path.join(HERE, "model.safetensors"), metadata={"format": "pt"})
    save_file({"input_ids": ids, "logits": logits.contiguous()}, os.path.join(HERE, "golden.safetensors"),
              metadata={"transformers": transformers.__version__, "torch": torch.__version__})
    print("layer types", config.layer_types, "logit std", float(logits.std()))


if __name__ == "__main__":
    main()
