"""Logits of a GGUF file as stock llama.cpp computes them (package llama-cpp-python).

llama_cpp_logits.py FILE.gguf OUT --ids 5,9,2     or     --text "Once upon a time"     [--greedy 16]

OUT gets float32 [tokens, vocabulary], little-endian; standard output the token ids as JSON. With
--greedy both go on with the likeliest tokens, up to one that ends the text.
"""
import argparse
import json
import sys

import llama_cpp
import numpy

parser = argparse.ArgumentParser()
parser.add_argument("file")
parser.add_argument("out")
parser.add_argument("--ids")
parser.add_argument("--text")
parser.add_argument("--greedy", type=int, default=0)
args = parser.parse_args()

# Keys and values in float32: the cache's float16 would be the largest difference.
model = llama_cpp.Llama(
    args.file, n_ctx=256, n_threads=2, logits_all=True, type_k=0, type_v=0, flash_attn=False, verbose=False
)
if args.text is None:
    ids = [int(word) for word in args.ids.split(",")]
else:
    ids = model.tokenize(args.text.encode(), add_bos=True, special=True)
model.eval(ids)
for _ in range(args.greedy):
    best = int(numpy.argmax(model.scores[len(ids) - 1]))
    ids.append(best)
    model.eval([best])
    if best == model.token_eos():
        break
numpy.asarray(model.scores[: len(ids)], dtype="<f4").tofile(args.out)
json.dump(ids, sys.stdout)
