#!/bin/sh
# transformers 5.23 and later refuse zero points as compressed-tensors itself packs them.
#
# One would expect: what compressed-tensors compresses and saves, transformers opens, as long as both are stock.
# Instead: with an asymmetric pack-quantized model, transformers 5.23.0 and 5.24.0 make the parameter
# `weight_zero_point` one row per output row, find the packed one (eight int4 codes in a word) of an eighth of the
# rows, and end with a RuntimeError about `ignore_mismatched_sizes`. 5.22.0 opens the same kind of file; a symmetric
# one opens everywhere (the control).
#
# Seen on 2026-11-27, x86-64 Linux, CPU, Python 3.11, torch 2.15.0, compressed-tensors 0.20.0:
#   5.22.0 symmetric: opened        5.24.0 symmetric: opened
#   5.22.0 asymmetric: opened       5.24.0 asymmetric: RuntimeError
#
# For whoever compresses: integer weights with zero points need transformers 5.22 or older today, or symmetric codes.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
pip() { "$dir/venv/bin/pip" install -q --disable-pip-version-check "$@"; }
pip torch==2.15.0 compressed-tensors==0.20.0 safetensors==0.8.0
cat >"$dir/try.py" <<'PYTHON'
import sys
import tempfile

import torch
import transformers
from compressed_tensors.compressors import ModelCompressor
from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config

symmetric = sys.argv[1] == "symmetric"
torch.manual_seed(0)
shape = dict(vocab_size=64, hidden_size=64, intermediate_size=96, num_hidden_layers=1)
heads = dict(num_attention_heads=4, num_key_value_heads=2, head_dim=16)
model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**shape, **heads)).eval()
weights = dict(num_bits=4, type="int", symmetric=symmetric, strategy="group", group_size=32)
groups = {"all": {"targets": ["Linear"], "weights": weights}}
config = dict(quant_method="compressed-tensors", format="pack-quantized", config_groups=groups, ignore=["lm_head"])
apply_quantization_config(model, QuantizationConfig.model_validate(config))
for module in model.modules():
    if hasattr(module, "weight_scale"):
        rows = module.weight.detach().unflatten(1, (-1, 32))
        low, step = rows.amin(-1), (rows.amax(-1) - rows.amin(-1)) / 15
        module.weight_scale.data = step
        if not symmetric:
            zero = torch.round(-8 - low / step).clamp(-8, 7)
            module.weight_zero_point.data = zero.to(module.weight_zero_point.dtype)
folder = tempfile.mkdtemp(dir=sys.argv[2])
compressor = ModelCompressor.from_pretrained_model(model)
compressor.compress_model(model)
model.save_pretrained(folder)
compressor.update_config(folder)
try:
    transformers.AutoModelForCausalLM.from_pretrained(folder)
    said = "opened"
except RuntimeError as error:
    said = "RuntimeError" if "ignore_mismatched_sizes" in str(error) else f"another error: {error}"
print(f"{transformers.__version__} {sys.argv[1]}: {said}")
PYTHON
for version in 5.22.0 5.24.0; do
  pip "transformers==$version"
  for form in symmetric asymmetric; do
    "$dir/venv/bin/python" "$dir/try.py" "$form" "$dir" 2>/dev/null
  done
done | tee "$dir/seen"
cat >"$dir/expected" <<'SEEN'
5.22.0 symmetric: opened
5.22.0 asymmetric: opened
5.24.0 symmetric: opened
5.24.0 asymmetric: RuntimeError
SEEN
cmp "$dir/expected" "$dir/seen" && echo "as on 2026-11-27"
