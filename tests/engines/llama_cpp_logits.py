"""Logits of a GGUF file as stock llama.cpp computes them (package cyllama, a binding with a wheel).

llama_cpp_logits.py FILE.gguf OUT --ids 5,9,2     or     --text "Once upon a time"     [--greedy 16]

OUT gets float32 [tokens, vocabulary], little-endian; standard output the token ids as JSON. With
--greedy both go on with the likeliest tokens, up to one that ends the text.
"""
import argparse
import json
import sys

import numpy
from cyllama.llama import llama_cpp as llama

WINDOW = 256

parser = argparse.ArgumentParser()
parser.add_argument("file")
parser.add_argument("out")
parser.add_argument("--ids")
parser.add_argument("--text")
parser.add_argument("--greedy", type=int, default=0)
args = parser.parse_args()


class Model(llama.LlamaModel):
    """The binding's own getter of logits asks its model for a count that it does not have."""

    n_vocab = property(lambda self: self.get_vocab().n_vocab)


llama.llama_backend_init()
loading = llama.LlamaModelParams()
loading.n_gpu_layers = 0
model = Model(args.file, loading, verbose=False)
settings = llama.LlamaContextParams()
settings.n_ctx = settings.n_batch = settings.n_ubatch = WINDOW
settings.n_threads = settings.n_threads_batch = 2
# Keys and values in float32: the cache's float16 would be the largest difference.
settings.type_k = settings.type_v = 0
settings.flash_attn_type = 0
context = llama.LlamaContext(model, settings, verbose=False)
vocabulary = model.get_vocab()

if args.text is None:
    ids = [int(word) for word in args.ids.split(",")]
else:
    ids = vocabulary.tokenize(args.text, True, True)


def rows(tokens, past):
    """Logits behind each of these tokens, which follow `past` others."""
    batch = llama.LlamaBatch(n_tokens=len(tokens), embd=0, n_seq_max=1)
    batch.set_batch(tokens, past, True)
    context.decode(batch)
    return [context.get_logits_ith(at) for at in range(len(tokens))]


found = rows(ids, 0)
for _ in range(args.greedy):
    best = int(numpy.argmax(found[-1]))
    found += rows([best], len(ids))
    ids.append(best)
    if vocabulary.is_eog(best):
        break
numpy.asarray(found, dtype="<f4").tofile(args.out)
json.dump(ids, sys.stdout)
