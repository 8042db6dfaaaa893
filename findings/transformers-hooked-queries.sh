#!/bin/sh
# With transformers 5.24, compressed-tensors' rotation of queries and keys (R3) is no identity any more.
#
# One would expect: R3 turns queries and keys by the same orthogonal matrix, so that no score and no logit changes;
# it is there for the sake of a quantized KV cache. Stock compressed-tensors has it as a `transform_config` with the
# locations `q_attn` and `k_cache`.
# Instead: on transformers 5.24.0 the logits of the model become others altogether, without an error or a warning.
# With 5.23.0 and older they stay (the control).
#
# Seen on 2026-11-27, x86-64 Linux, CPU, Python 3.11, torch 2.15.0, compressed-tensors 0.20.0 (0.19.0 alike):
#   5.23.0: largest change 0.000009 of logits up to 8.49
#   5.24.0: largest change 13.070572 of logits up to 8.49
#
# For whoever compresses: a package that says R3 in `transform_config` is right, and computed wrongly there; leave R3
# to runtimes that are known to apply it (it changes nothing where keys stay in float).
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
pip() { "$dir/venv/bin/pip" install -q --disable-pip-version-check "$@"; }
pip torch==2.15.0 compressed-tensors==0.20.0
cat >"$dir/try.py" <<'PYTHON'
import sys

import torch
import transformers
from compressed_tensors.transform import TransformConfig, apply_transform_config

torch.manual_seed(0)
shape = dict(vocab_size=64, hidden_size=64, intermediate_size=96, num_hidden_layers=2)
heads = dict(num_attention_heads=4, num_key_value_heads=2, head_dim=16)
model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**shape, **heads)).eval()
for weight in model.parameters():
    if weight.ndim == 2:
        torch.nn.init.normal_(weight, std=0.3)
ids = torch.arange(12)[None]
with torch.no_grad():
    before = model(ids).logits
    where = [{"targets": ["re:.*self_attn$"], "location": it} for it in ("q_attn", "k_cache")]
    groups = {"R3": {"type": "hadamard", "head_dim": 16, "apply": where}}
    apply_transform_config(model, TransformConfig.model_validate({"config_groups": groups}))
    change = (model(ids).logits - before).abs().max().item()
print(f"{transformers.__version__}: largest change {change:.6f} of logits up to {before.abs().max().item():.2f}")
same = change < 1e-3
sys.exit(same != (sys.argv[1] == "same"))
PYTHON
pip transformers==5.23.0
"$dir/venv/bin/python" "$dir/try.py" same 2>/dev/null
pip transformers==5.24.0
"$dir/venv/bin/python" "$dir/try.py" other 2>/dev/null
echo "as on 2026-11-27"
