"""Logits of an ONNX folder as onnxruntime computes them.

onnx_logits.py FOLDER OUT --ids 5,9,2 [--prefill 2]

The first tokens (all of them without --prefill) go in at once, the others one by one with the cache.
OUT gets float32 [tokens, vocabulary], little-endian; standard output what onnx.checker says ("ok").
"""
import argparse
import os

import numpy
import onnx
import onnxruntime

parser = argparse.ArgumentParser()
parser.add_argument("folder")
parser.add_argument("out")
parser.add_argument("--ids", required=True)
parser.add_argument("--prefill", type=int)
args = parser.parse_args()

path = os.path.join(args.folder, "model.onnx")
onnx.checker.check_model(path, full_check=True)
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 2
options.log_severity_level = 3
# Left alone, onnxruntime rounds the inputs of products with int4 weights to int8 (level 4).
options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
ids = numpy.array([[int(word) for word in args.ids.split(",")]], dtype=numpy.int64)
cache = {}
for end in session.get_inputs():
    if end.name.startswith("past_key_values."):
        _, heads, _, width = end.shape
        cache[end.name] = numpy.zeros((1, heads, 0, width), dtype=numpy.float32)
names = [end.name for end in session.get_outputs()]
tokens = ids.shape[1]
first = tokens if args.prefill is None else min(args.prefill, tokens)
logits = []
for start, stop in [(0, first)] + [(at, at + 1) for at in range(first, tokens)]:
    inputs = {
        "input_ids": ids[:, start:stop],
        "attention_mask": numpy.ones((1, stop), dtype=numpy.int64),
        "position_ids": numpy.arange(start, stop, dtype=numpy.int64)[None],
        **cache,
    }
    outputs = dict(zip(names, session.run(names, inputs)))
    logits.append(outputs["logits"][0])
    cache = {name: outputs[name.replace("past_key_values", "present")] for name in cache}
numpy.concatenate(logits).astype("<f4").tofile(args.out)
print("ok")
