"""Logits of an OpenVINO folder as its CPU plugin computes them, keys and values held by the network.

openvino_logits.py FOLDER OUT --ids 5,9,2 [--prefill 2] [--set KEY=VALUE]

The first tokens (all of them without --prefill) go in at once, the others one by one. OUT gets float32
[tokens, vocabulary], little-endian; standard output a line of JSON: how many constants the compiled network
holds in each element type.
"""
import argparse
import collections
import json
import os

import numpy
import openvino

parser = argparse.ArgumentParser()
parser.add_argument("folder")
parser.add_argument("out")
parser.add_argument("--ids", required=True)
parser.add_argument("--prefill", type=int)
parser.add_argument("--set", action="append", default=[])
args = parser.parse_args()

# Left alone, OpenVINO computes in bfloat16 on processors that have it.
settings = {"EXECUTION_MODE_HINT": "ACCURACY", "INFERENCE_NUM_THREADS": "2"}
settings.update(word.split("=", 1) for word in args.set)
path = os.path.join(args.folder, "openvino_model.xml")
compiled = openvino.Core().compile_model(path, "CPU", settings)
request = compiled.create_infer_request()
ids = numpy.array([[int(word) for word in args.ids.split(",")]], dtype=numpy.int64)
tokens = ids.shape[1]
first = tokens if args.prefill is None else min(args.prefill, tokens)
logits = []
for start, stop in [(0, first)] + [(at, at + 1) for at in range(first, tokens)]:
    request.infer({
        "input_ids": ids[:, start:stop],
        "attention_mask": numpy.ones((1, stop), dtype=numpy.int64),
        "position_ids": numpy.arange(start, stop, dtype=numpy.int64)[None],
        "beam_idx": numpy.zeros(1, dtype=numpy.int32),
    })
    logits.append(request.get_tensor("logits").data[0].copy())
numpy.concatenate(logits).astype("<f4").tofile(args.out)
kinds = collections.Counter()
for layer in compiled.get_runtime_model().get_ops():
    facts = layer.get_rt_info()
    if "layerType" in facts and facts["layerType"].astype(str) == "Const":
        kinds[facts["outputPrecisions"].astype(str)] += 1
print(json.dumps(kinds))
