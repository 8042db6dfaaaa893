#!/usr/bin/env python3
"""Make a tiny int4 checkpoint with compressed-tensors itself, and the logits that transformers gives it.

    pip install torch transformers compressed-tensors safetensors
    make.py ../llama-mha .        (the float checkpoint to quantize, where to write)
Weights are rounded to nearest in symmetric groups of 32; `lm_head` stays in float.
"""
import os
import sys

import torch
from compressed_tensors.compressors import ModelCompressor
from compressed_tensors.quantization import (QuantizationArgs, QuantizationConfig, QuantizationScheme,
                                             apply_quantization_config)
from compressed_tensors.quantization.utils import calculate_qparams
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

source, out = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
weights = QuantizationArgs(num_bits=4, type="int", symmetric=True, strategy="group", group_size=32)
config = QuantizationConfig(
    config_groups={"group_0": QuantizationScheme(targets=["Linear"], weights=weights)},
    ignore=["lm_head"], quantization_status="initialized", format="pack-quantized")
apply_quantization_config(model, config)
for module in model.modules():
    if hasattr(module, "weight_scale"):
        groups = module.weight.data.view(module.weight.shape[0], -1, 32)
        scale, _ = calculate_qparams(groups.amin(-1), groups.amax(-1), weights)
        module.weight_scale.data.copy_(scale)
        module.quantization_status = "frozen"
compressor = ModelCompressor(quantization_config=config)
compressor.compress_model(model)
model.save_pretrained(out)
compressor.update_config(out)
if os.path.exists(os.path.join(out, "generation_config.json")):
    os.remove(os.path.join(out, "generation_config.json"))

ids = torch.arange(3, 51)[None] * 7 % 125 + 3
again = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
with torch.no_grad():
    logits = again(ids).logits.float()
save_file({"input_ids": ids.contiguous(), "logits": logits.contiguous()}, os.path.join(out, "golden.safetensors"))
