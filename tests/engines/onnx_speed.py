"""Greedy tokens per second of an ONNX folder in onnxruntime, and its memory. A benchmark, run by hand.

onnx_speed.py FOLDER TOKENS [LEVEL]

17 tokens of prompt, 2 threads; LEVEL is session.qdq_matmulnbits_accuracy_level (4, onnxruntime's own,
unless another is given). Prints tokens per second, the peak resident memory in MB, and the first tokens.
"""
import os
import resource
import sys
import time

import numpy
import onnxruntime

folder, tokens = sys.argv[1], int(sys.argv[2])
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 2
options.log_severity_level = 3
level = sys.argv[3] if len(sys.argv) > 3 else "4"
options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", level)
path = os.path.join(folder, "model.onnx")
session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
cache = {}
for end in session.get_inputs():
    if end.name.startswith("past_key_values."):
        _, heads, _, width = end.shape
        cache[end.name] = numpy.zeros((1, heads, 0, width), numpy.float32)
names = [end.name for end in session.get_outputs()]


def run(ids, position, cache):
    end = position + len(ids)
    feeds = {
        "input_ids": numpy.array([ids], numpy.int64),
        "attention_mask": numpy.ones((1, end), numpy.int64),
        "position_ids": numpy.arange(position, end, dtype=numpy.int64)[None],
        **cache,
    }
    made = dict(zip(names, session.run(names, feeds)))
    cache = {name: made[name.replace("past_key_values", "present")] for name in cache}
    return int(made["logits"][0, -1].argmax()), cache


prompt = list(range(100, 117))
token, cache = run(prompt, 0, cache)
written, began = [], time.perf_counter()
for at in range(tokens):
    written.append(token)
    token, cache = run([token], len(prompt) + at, cache)
rate = tokens / (time.perf_counter() - began)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(f"{rate:.1f} tokens/s, {peak:.0f} MB, {written[:8]}")
