#!/bin/sh
# A SentencePiece-like tokenizer.json and its GGUF form split chats differently: GGUF cannot say where spaces are put.
#
# Expected: with the same pieces, merges and special tokens, `tokenizers` and llama.cpp give the same ids; plain text
# does agree.
# Happens: llama.cpp puts a space before each stretch of text that follows a special token, always, on top of a space
# that is there. tokenizers has three ways: Metaspace "first" puts one at the very beginning only, Metaspace "always"
# one per stretch unless it begins with one, and only the old normalizer form (Prepend, Replace) does what llama.cpp
# does. `add_space_prefix` in GGUF is on or off.
#
# Versions: tokenizers 0.23.3, xllamacpp 2026.10.11549 (llama.cpp), gguf 0.19.0, Python 3.11. Machine: x86-64 Linux,
# CPU only. Seen 2026-11-27:
#     'hi yo'
#         llama.cpp  _hi _yo
#         first      _hi _yo
#         always     _hi _yo
#         normalizer _hi _yo
#     'hi</s>yo'
#         llama.cpp  _hi </s> _yo
#         first      _hi </s> yo
#         always     _hi </s> _yo
#         normalizer _hi </s> _yo
#     '<s>[INST] hi</s>yo'
#         llama.cpp  <s> [INST] _ _hi </s> _yo
#         first      <s> [INST] _hi </s> yo
#         always     <s> [INST] _hi </s> _yo
#         normalizer <s> [INST] _ _hi </s> _yo
# Means: perplexity on plain text agrees while each turn of a chat is split otherwise than in training; compare ids of
# a whole chat, special tokens included, before measuring a GGUF file of such a model.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT INT TERM
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet tokenizers==0.23.3 xllamacpp==2026.10.11549 gguf==0.19.0 numpy==2.4.6
cd "$dir"
"$dir/venv/bin/python" - <<'END'
import json, sys, urllib.request, numpy as np, gguf, xllamacpp
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

S = "\u2581"  # the sign for a space
merges = [(S, "h"), ("h", "i"), (S + "h", "i"), (S, "hi"), ("y", "o"), (S, "yo"), (S, S)]
pieces = ["<unk>", "<s>", "</s>", "[INST]", S, *"abcdefghijklmnopqrstuvwxyz", *dict.fromkeys(a + b for a, b in merges)]

def tokenizer(scheme):
    t = Tokenizer(models.BPE(vocab={p: i for i, p in enumerate(pieces)}, merges=merges, unk_token="<unk>"))
    if scheme == "normalizer":
        t.normalizer = normalizers.Sequence([normalizers.Prepend(S), normalizers.Replace(" ", S)])
    else:
        t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    t.add_special_tokens([AddedToken(p, normalized=False, special=True) for p in ("<s>", "</s>", "[INST]")])
    return lambda text: t.encode(text, add_special_tokens=False).ids

H, rank = 64, {}
for i, (a, b) in enumerate(merges): rank.setdefault(a + b, -float(i))
w = gguf.GGUFWriter("t.gguf", "llama")
w.add_context_length(64), w.add_embedding_length(H), w.add_block_count(1), w.add_feed_forward_length(H)
w.add_head_count(1), w.add_layer_norm_rms_eps(1e-5), w.add_vocab_size(len(pieces))
w.add_tokenizer_model("llama"), w.add_token_list(pieces)
w.add_token_types([2, 3, 3, 3] + [1] * (len(pieces) - 4)), w.add_token_scores([rank.get(p, -1e6) for p in pieces])
w.add_bos_token_id(1), w.add_eos_token_id(2), w.add_unk_token_id(0), w.add_add_bos_token(False)
w.add_add_space_prefix(True)
w.add_tensor("token_embd.weight", np.zeros((len(pieces), H), np.float32))
for n in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"): w.add_tensor(n + ".weight", np.ones(H, np.float32))
for n in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
    w.add_tensor(f"blk.0.{n}.weight", np.zeros((H, H), np.float32))
w.write_header_to_file(), w.write_kv_data_to_file(), w.write_tensors_to_file(), w.close()
p = xllamacpp.CommonParams()
p.model.path, p.n_ctx, p.cpuparams.n_threads, p.warmup, p.verbosity = "t.gguf", 64, 1, False, -1
server = xllamacpp.Server(p)

def llama_cpp(text):
    body = json.dumps({"content": text, "parse_special": True, "add_special": False}).encode()
    request = urllib.request.Request(server.listening_address + "/tokenize", body, {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request))["tokens"]

ways = {"llama.cpp": llama_cpp, **{s: tokenizer(s) for s in ("first", "always", "normalizer")}}
texts = ("hi yo", "hi</s>yo", "<s>[INST] hi</s>yo")
found = {name: [way(t) for t in texts] for name, way in ways.items()}
for i, text in enumerate(texts):
    print(repr(text))
    for name in ways: print(f"    {name:10}", " ".join(pieces[t] for t in found[name][i]).replace(S, "_"))
here, first, always, old = found.values()
same = here[0] == first[0] == always[0] and here == old and here[1] == always[1]
sys.exit(None if same and first[1] != here[1] and here[2] not in (first[2], always[2]) else "the behaviour has changed")
END
