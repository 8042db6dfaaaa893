#!/usr/bin/env python3
"""Golden vectors of ggml's block formats: random blocks and what gguf-py makes of them.

    python3 make.py        (needs numpy, gguf and safetensors; writes blocks.safetensors beside it)
"""
import os
import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as T
from gguf.quants import dequantize
from safetensors.numpy import save_file

BLOCKS = 5
# Byte offsets of the float16 fields of a block, which are kept finite.
HALVES = {T.F16: [0], T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0],
          T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208], T.F32: [], T.BF16: [],
          T.Q2_K: [80, 82], T.Q3_K: [108], T.IQ4_NL: [0], T.IQ4_XS: [0], T.MXFP4: []}

rng = np.random.Generator(np.random.PCG64(20))
out = {}
for kind, halves in HALVES.items():
    length, size = GGML_QUANT_SIZES[kind]
    n = BLOCKS if length > 1 else 32
    raw = rng.integers(0, 256, (n, size), dtype=np.uint8)
    if kind == T.F32:
        raw = rng.standard_normal((n, 1), dtype=np.float32).view(np.uint8)
    if kind == T.BF16:
        raw = np.ascontiguousarray(rng.standard_normal((n, 1), dtype=np.float32).view(np.uint8)[:, 2:])
    if kind == T.MXFP4:  # the exponent: no NaN, and all values finite
        raw[:, 0] = rng.integers(0, 250, n)
    for at in halves:
        values = rng.standard_normal(n) * np.exp2(rng.integers(-20, 4, n).astype(float))
        raw[:, at:at + 2] = values.astype(np.float16).reshape(-1, 1).view(np.uint8)
    out[f"{kind.name}.bytes"] = raw
    out[f"{kind.name}.values"] = dequantize(raw.copy(), kind).astype(np.float32).reshape(n, length)
save_file(out, os.path.join(os.path.dirname(os.path.abspath(__file__)), "blocks.safetensors"))
