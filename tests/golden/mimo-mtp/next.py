#!/usr/bin/env python3
"""What the layer for multi-token prediction of this checkpoint guesses, by torch.

    pip install torch transformers safetensors
    next.py            (reads config.json, model.safetensors and golden.safetensors, writes next.safetensors)
As vLLM runs MiMo's layer: row p is `input_proj([hidden_layernorm(h_p); token_layernorm(e_p)])`, where h is the
stream behind the main path's last norm and e_p the embedding of token p + 1, zero in row 0; then a Qwen2 block at
position p, `final_layernorm`, and the shared head, whose logits say token p + 2.
    logits     float32 [batch, tokens - 1, vocab], computed in float64
"""
import json
import os

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import Qwen2Config, Qwen2ForCausalLM

HERE = os.path.dirname(os.path.abspath(__file__))
LAYER = "model.mtp_layers.0."


def qwen2(published, layers, tensors):
    keep = ["hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "vocab_size",
            "max_position_embeddings", "rms_norm_eps"]
    config = Qwen2Config(**{key: published[key] for key in keep}, num_hidden_layers=layers, tie_word_embeddings=False,
                         rope_parameters={"rope_type": "default", "rope_theta": published["rope_theta"]})
    config._attn_implementation = "eager"
    model = Qwen2ForCausalLM(config).eval().double()
    model.load_state_dict({name: tensor.double() for name, tensor in tensors.items()})
    return model


def main():
    with open(os.path.join(HERE, "config.json")) as file:
        published = json.load(file)
    tensors = load_file(os.path.join(HERE, "model.safetensors"))
    ids = load_file(os.path.join(HERE, "golden.safetensors"))["input_ids"]
    main_path = {name: tensor for name, tensor in tensors.items() if not name.startswith(LAYER)}
    layer = {name[len(LAYER):]: tensor.double() for name, tensor in tensors.items() if name.startswith(LAYER)}
    around = {"token_layernorm.weight", "hidden_layernorm.weight", "final_layernorm.weight", "input_proj.weight"}
    block = {f"model.layers.0.{name}": tensor for name, tensor in layer.items() if name not in around}
    ends = {name: main_path[name] for name in ["model.embed_tokens.weight", "lm_head.weight"]}
    norm = {"model.norm.weight": layer["final_layernorm.weight"]}
    base = qwen2(published, published["num_hidden_layers"], main_path)
    head = qwen2(published, 1, {**block, **ends, **norm})

    def normed(x, name):
        return x / (x.square().mean(-1, keepdim=True) + published["rms_norm_eps"]).sqrt() * layer[f"{name}.weight"]

    with torch.no_grad():
        states = base.model(ids).last_hidden_state[:, :-1]
        embeddings = base.model.embed_tokens(ids[:, 1:])
        embeddings[:, 0] = 0
        both = torch.cat([normed(states, "hidden_layernorm"), normed(embeddings, "token_layernorm")], -1)
        logits = head(inputs_embeds=both @ layer["input_proj.weight"].T).logits.float()
    save_file({"logits": logits.contiguous()}, os.path.join(HERE, "next.safetensors"),
              metadata={"transformers": transformers.__version__, "torch": torch.__version__})
    print(logits.shape, float(logits.std()))


if __name__ == "__main__":
    main()
