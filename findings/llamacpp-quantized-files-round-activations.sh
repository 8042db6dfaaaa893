#!/bin/sh
# llama.cpp computes with 8-bit activations wherever weights are quantized, which costs as much as Q8_0 itself.
#
# Expected: a Q8_0 file gives the numbers of its own dequantized weights, up to float rounding: the format stores
# weights only.
# Happens: activations are rounded to 8 bits in blocks of 32 for products with quantized weights. On the same weights,
# written as F32, log-probabilities differ about as much as rounding the weights to Q8_0 changes them, 13 times as
# much as F16 does (whose activations are F16).
#
# Versions: xllamacpp 2026.10.11549 (llama.cpp), gguf 0.19.0, numpy 2.4.6, Python 3.11. Machine: x86-64 Linux, CPU
# only. Seen 2026-11-27:
#     Q8_0, rms over 300 log-probabilities: rounded weights in F32 against the original 0.03833; run as Q8_0
#         against F32 of the same weights 0.03364, as F16 0.00264
#     Q4_0, rms over 300 log-probabilities: rounded weights in F32 against the original 0.61080; run as Q4_0
#         against F32 of the same weights 0.04236, as F16 0.00251
# Means: what a compressor measures on dequantized weights leaves out part of the loss in llama.cpp, and a converter
# is checked against an F32 file of the same values, not against the quantized run.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT INT TERM
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet xllamacpp==2026.10.11549 gguf==0.19.0 numpy==2.4.6
cd "$dir"
"$dir/venv/bin/python" - <<'END'
import sys, numpy as np, gguf
from gguf import GGMLQuantizationType as Q

H, FF, LAYERS, HEADS, V = 256, 512, 2, 4, 300
rng = np.random.default_rng(0)
def matrix(o, i, gain=1.0): return (gain * rng.standard_normal((o, i)) / np.sqrt(i)).astype(np.float32)

def llama():
    t = {"token_embd.weight": matrix(V, H, 16), "output.weight": matrix(V, H, 3),
         "output_norm.weight": np.ones(H, np.float32)}
    shapes = {"attn_q": (H, H), "attn_k": (H, H), "attn_v": (H, H), "attn_output": (H, H), "ffn_gate": (FF, H),
              "ffn_up": (FF, H), "ffn_down": (H, FF)}
    for b in range(LAYERS):
        t.update({f"blk.{b}.{name}.weight": matrix(*shape) for name, shape in shapes.items()})
        t.update({f"blk.{b}.{name}.weight": np.ones(H, np.float32) for name in ("attn_norm", "ffn_norm")})
    return t

def save(path, tensors, kind):
    w = gguf.GGUFWriter(path, "llama")
    w.add_context_length(256), w.add_embedding_length(H), w.add_block_count(LAYERS), w.add_feed_forward_length(FF)
    w.add_head_count(HEADS), w.add_head_count_kv(HEADS), w.add_layer_norm_rms_eps(1e-5), w.add_vocab_size(V)
    w.add_rope_dimension_count(H // HEADS), w.add_rope_freq_base(10000.0), w.add_file_type(1)
    w.add_key_length(H // HEADS), w.add_value_length(H // HEADS)
    printable = [b for b in range(256) if 33 <= b < 127 or 161 <= b < 173 or b > 173]
    others = iter(range(256, 512))
    w.add_tokenizer_model("gpt2"), w.add_tokenizer_pre("gpt-2"), w.add_add_bos_token(False)
    letters = [chr(b if b in printable else next(others)) for b in range(256)]
    w.add_token_list(letters + [f"<{i}>" for i in range(V - 257)] + ["ab"]), w.add_token_merges(["a b"])
    w.add_token_types([1] * 256 + [3] * (V - 257) + [1]), w.add_bos_token_id(256), w.add_eos_token_id(257)
    for name, t in tensors.items():
        if t.ndim == 1 or kind == Q.F32: w.add_tensor(name, t)
        else: w.add_tensor(name, gguf.quants.quantize(t, kind), raw_dtype=kind)
    w.write_header_to_file(), w.write_kv_data_to_file(), w.write_tensors_to_file(), w.close()

import xllamacpp
def llama_cpp(path, **request):
    p = xllamacpp.CommonParams()
    p.model.path, p.n_ctx, p.cpuparams.n_threads, p.warmup, p.verbosity = path, 256, 1, False, -1
    server = xllamacpp.Server(p)
    request = {"prompt": "the quick brown fox", "temperature": 0.0, "ignore_eos": True, **request}
    return server.handle_completions(request)["choices"][0]

def log_probabilities(path):
    top = llama_cpp(path, n_predict=1, logprobs=V)["logprobs"]["content"][0]["top_logprobs"]
    return np.array([t["logprob"] for t in sorted(top, key=lambda t: t["id"])])

original = llama()
save("original.gguf", original, Q.F32)
base, found = log_probabilities("original.gguf"), {}
for kind in (Q.Q8_0, Q.Q4_0):
    same = {k: t if t.ndim == 1 else gguf.quants.dequantize(gguf.quants.quantize(t, kind), kind)
            for k, t in original.items()}
    save("q.gguf", original, kind), save("f32.gguf", same, Q.F32), save("f16.gguf", same, Q.F16)
    q, f32, f16 = map(log_probabilities, ("q.gguf", "f32.gguf", "f16.gguf"))
    found[kind] = [float(np.sqrt(np.mean(d ** 2))) for d in (f32 - base, q - f32, f16 - f32)]
    print(f"{kind.name}, rms over {len(q)} log-probabilities: rounded weights in F32 against the original "
          f"{found[kind][0]:.5f}; run as {kind.name} against F32 of the same weights {found[kind][1]:.5f}, as F16 "
          f"{found[kind][2]:.5f}")
weights, engine, half = found[Q.Q8_0]
sys.exit(None if engine > 0.5 * weights and engine > 5 * half else "the behaviour has changed")
END
