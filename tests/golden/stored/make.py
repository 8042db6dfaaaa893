#!/usr/bin/env python3
"""Make what transformers says of weights that are stored in other forms.

    pip install torch transformers safetensors
    make.py ..        (the folder of golden models; writes beside this file)

`fp8/`: ../qwen3-tied with E4M3 weights in blocks of 32 × 32 and scales in F32, cut to two blocks;
the logits are those of the weights that transformers' own `Fp8Dequantize` makes of them, in
float64, and `dequantized.json` has the SHA-256 of each.
`joined.json`: shape and SHA-256 of the tensors that transformers saves of the golden mixtures with
`save_original_format=False`.
"""
import hashlib
import json
import os
import shutil
import sys
import tempfile

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers.integrations.finegrained_fp8 import Fp8Dequantize

golden, here = sys.argv[1], os.path.dirname(os.path.abspath(__file__))
BLOCK = 32
BLOCKS = 2


def sha(tensor):
    return hashlib.sha256(tensor.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()


def logits(model, ids):
    with torch.no_grad():
        return model.double().eval()(ids).logits.float().contiguous()


# fp8
out = os.path.join(here, "fp8")
os.makedirs(out, exist_ok=True)
config = json.load(open(os.path.join(golden, "qwen3-tied/config.json")))
for key in ("torch_dtype", "dtype"):
    config.pop(key, None)
config["torch_dtype"] = "bfloat16"
config["num_hidden_layers"] = BLOCKS
if "layer_types" in config:
    config["layer_types"] = config["layer_types"][:BLOCKS]
stored, plain = {}, {}
for name, weight in load_file(os.path.join(golden, "qwen3-tied/model.safetensors")).items():
    if name.startswith("model.layers.") and int(name.split(".")[2]) >= BLOCKS:
        continue
    if not name.endswith("proj.weight"):
        stored[name] = plain[name] = weight.bfloat16().contiguous()
        continue
    rows, columns = weight.shape
    blocks = weight.reshape(rows // BLOCK, BLOCK, columns // BLOCK, BLOCK)
    scale = blocks.abs().amax(dim=(1, 3)).clamp(min=1e-12) / 448
    codes = (blocks / scale[:, None, :, None]).reshape(rows, columns).to(torch.float8_e4m3fn)
    stored[name], stored[name + "_scale_inv"] = codes.contiguous(), scale.contiguous()
    plain[name] = Fp8Dequantize(None)._dequantize_one(codes, scale, torch.bfloat16).contiguous()
save_file(stored, os.path.join(out, "model.safetensors"), metadata={"format": "pt"})
with tempfile.TemporaryDirectory() as folder:
    json.dump(config, open(os.path.join(folder, "config.json"), "w"))
    save_file(plain, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.arange(3, 27)[None] * 7 % 125 + 3
    save_file({"input_ids": ids.contiguous(), "logits": logits(model, ids)}, os.path.join(out, "golden.safetensors"))
config["quantization_config"] = {
    "activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
    "weight_block_size": [BLOCK, BLOCK], "modules_to_not_convert": ["lm_head"],
}
json.dump(config, open(os.path.join(out, "config.json"), "w"), indent=1)
hashes = {name: sha(plain[name]) for name in stored if name in plain}
json.dump(hashes, open(os.path.join(out, "dequantized.json"), "w"), indent=1)

# joined experts
joined = {}
for family in ("mixtral", "qwen2-moe", "qwen3-moe"):
    model = AutoModelForCausalLM.from_pretrained(os.path.join(golden, family), dtype=torch.float32)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder, save_original_format=False)
        tensors = load_file(os.path.join(folder, "model.safetensors"))
    joined[family] = {name: {"shape": list(it.shape), "sha256": sha(it)} for name, it in sorted(tensors.items()) if ".mlp." in name}
json.dump(joined, open(os.path.join(here, "joined.json"), "w"), indent=1)
