"""Loads the encodings beside a float graph into AIMET, strictly, and compares its simulation. Run by hand.

aimet_encodings.py FOLDER LOGITS.safetensors BITS [BLOCK]

FOLDER is an export with `--graph float --encodings 2.0.0` of a package with positive scales, LOGITS.safetensors what
`milm-compress logits --backend reference` says of the package, BITS those of its weights, BLOCK its groups.
Prints how many quantizers were loaded, what did not match, and the largest difference of a logit.
"""
import logging
import sys

import numpy
import onnx
from safetensors.numpy import load_file

from aimet_onnx.quantsim import (
    QuantizationSimModel,
    load_encodings_to_sim,
    set_blockwise_quantization_for_weights,
)

logging.disable(logging.CRITICAL)
folder, logits, bits = sys.argv[1], load_file(sys.argv[2]), sys.argv[3]
ids = logits["input_ids"].reshape(-1).astype(numpy.int64)
graph = onnx.load(f"{folder}/model.onnx")
feeds = {
    "input_ids": ids[None],
    "attention_mask": numpy.ones((1, len(ids)), numpy.int64),
    "position_ids": numpy.arange(len(ids))[None],
}
for end in graph.graph.input:
    if end.name.startswith("past_key_values."):
        _, heads, _, width = (dim.dim_value for dim in end.type.tensor_type.shape.dim)
        feeds[end.name] = numpy.zeros((1, heads, 0, width), numpy.float32)
sim = QuantizationSimModel(
    graph,
    param_type=f"int{bits}",
    activation_type="float32",
    providers=["CPUExecutionProvider"],
    dummy_input=feeds,
)
head = next(node.name for node in sim.model.model.graph.node if node.name.startswith("head.product"))
if len(sys.argv) > 4:
    set_blockwise_quantization_for_weights(
        sim, ("MatMul",), int(bits), True, int(sys.argv[4]), excluded_nodes=[head]
    )
# Embeddings and head are int8.
for name, quantizer in sim.qc_quantize_op_dict.items():
    if name.endswith(("embed_tokens.weight.head", "lm_head.weight")):
        quantizer.set_bitwidth(8)
mismatches = load_encodings_to_sim(sim, f"{folder}/model.encodings", strict=True)
enabled = sum(quantizer.enabled and "int" in str(quantizer.data_type).lower() for quantizer in sim.qc_quantize_op_dict.values())
theirs = sim.session.run(["logits"], feeds)[0][0]
ours = logits["logits"].reshape(theirs.shape)
print(f"{enabled} quantizers of integers, {len(mismatches)} mismatches, logits differ by at most "
      f"{numpy.abs(theirs - ours).max():.1e} of {numpy.abs(ours).max():.1f}")
