#!/bin/sh
# OpenVINO GenAI reads GGUF files with `rope_freqs.weight` and ignores the tensor.
#
# Expected: the tensor divides the rotary frequencies (Llama 3.1's scaling is stored in it); an engine applies it, as
# llama.cpp does, or refuses the file, as llama.cpp refuses files with tensors that it does not know.
# Happens: the text with the tensor is the text without it. llama.cpp's text changes after a few tokens.
#
# Versions: openvino-genai 2026.4.1.0, xllamacpp 2026.10.11549 (llama.cpp), gguf 0.19.0, Python 3.11. Machine: x86-64
# Linux, CPU only. Seen 2026-11-27:
#     llama.cpp: without factors '~V<\x07J}0.~&a', with '~V<\x07J}0.~&.~M'
#     OpenVINO GenAI: without factors '~V<\x07J}0.~&a', with '~V<\x07J}0.~&a'
# Means: Llama 3.1 scaling, LongRoPE or kept rotary pairs written as frequency factors are lost there without a
# message: use its ONNX or IR path, or a plain base (`rope.freq_base`) where the frequencies allow it.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT INT TERM
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet openvino-genai==2026.4.1.0 xllamacpp==2026.10.11549 gguf==0.19.0 numpy==2.4.6
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

import openvino_genai
def genai(path):
    pipe = openvino_genai.LLMPipeline(path, "CPU", INFERENCE_PRECISION_HINT="f32")
    return str(pipe.generate("the quick brown fox", max_new_tokens=24, do_sample=False, ignore_eos=True,
                             apply_chat_template=False))

def characters(text): return "".join(c for c in text if c.isascii())
plain = llama()
factors = {**plain, "rope_freqs.weight": np.array([1.0] * 8 + [8.0] * (H // HEADS // 2 - 8), np.float32)}
save("plain.gguf", plain, Q.F16)
save("factors.gguf", factors, Q.F16)
found = {}
for label, engine in (("llama.cpp", lambda p: llama_cpp(p, n_predict=24)["text"]), ("OpenVINO GenAI", genai)):
    found[label] = [characters(engine(p)) for p in ("plain.gguf", "factors.gguf")]
    print(f"{label}: without factors {found[label][0]!r}, with {found[label][1]!r}")
stock, other = found["llama.cpp"], found["OpenVINO GenAI"]
ok = stock[0] != stock[1] and other[0] == other[1] and stock[0][:6] == other[0][:6]
sys.exit(None if ok else "the behaviour has changed")
END
