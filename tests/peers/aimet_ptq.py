"""What AIMET's own post-training quantization makes of a float graph: how far its simulation is from the float model.

aimet_ptq.py FOLDER --calibration TEXT --text TEXT --weights 4|8 --activations 8|16 [--ends 4|8]

Run by hand, in an environment of aimet-requirements.txt.

FOLDER is `milm-compress export MODEL --to onnx` of a float model. Both texts are tokenized whole by its tokenizer and
cut into disjoint windows, an incomplete last one dropped: of the one all, or the first --samples, of the other the
first --windows, as `eval` takes them (protocol gptq, plain). All else is what AIMET does by default for Qualcomm's HTP:
its configuration (per channel where the HTP has that), ranges from the least to the largest value, no other technique.
The graph hides tokens by -1e30, beside which no grid of 16 bits can hold a score: --mask takes what exporters for
AIMET write.
Figures are those of docs/evaluation.md: the KL divergence in nats over all positions but each window's last, its
interval of 95 % by a bootstrap over windows (2000 draws, percentiles), perplexities of both.
"""
import argparse
import json
import logging
import pathlib
import re
import time

import numpy
import onnx
import onnxruntime
from onnx import numpy_helper
from tokenizers import Tokenizer

from aimet_onnx.quantsim import QuantizationSimModel
from aimet_onnx.utils import duplicate_shared_initializers

parser = argparse.ArgumentParser()
parser.add_argument("folder", type=pathlib.Path)
parser.add_argument("--calibration", type=pathlib.Path, required=True)
parser.add_argument("--calibration-tokens", type=int, default=512, help="tokens of a calibration window")
parser.add_argument("--samples", type=int, help="only the first windows of the calibration text")
parser.add_argument("--text", type=pathlib.Path, required=True)
parser.add_argument("--ctx", type=int, default=512, help="tokens of a window that is measured")
parser.add_argument("--windows", type=int, default=32)
parser.add_argument("--weights", type=int, choices=(4, 8), required=True)
parser.add_argument("--activations", type=int, choices=(8, 16), required=True)
parser.add_argument("--ends", type=int, choices=(4, 8),
                    help="bits of table and head [default: AIMET's, the head as weights, the table as activations]")
parser.add_argument("--config", default="htp_v75", help="AIMET's configuration")
parser.add_argument("--mask", type=float, default=-100.0, help="what the graph adds to the scores of hidden tokens")
parser.add_argument("--off", help="regular expression: quantizers whose names hold it are switched off")
parser.add_argument("--show", type=pathlib.Path, help="write every quantizer with its range to this file")
args = parser.parse_args()
logging.disable(logging.CRITICAL)


def windows(text, length, count):
    """Disjoint windows of a text, `[count, length]`."""
    tokenizer = Tokenizer.from_file(str(args.folder / "tokenizer.json"))
    ids = tokenizer.encode(text.read_text(encoding="utf-8")).ids
    count = min(count or len(ids), len(ids) // length)
    return numpy.array(ids[: count * length], numpy.int64).reshape(count, length)


def prepared(graph):
    """The graph as a vendor's exporter gives it: a head of its own, a mask that 16 bits can say beside scores."""
    constants = {it.name: it for it in graph.initializer}
    for node in [it for it in graph.node if it.op_type == "Transpose" and it.input[0] in constants]:
        turned = numpy_helper.to_array(constants[node.input[0]]).T
        graph.initializer.append(numpy_helper.from_array(numpy.ascontiguousarray(turned), node.output[0]))
        graph.node.remove(node)
    hidden = constants["number.-1e30"]
    hidden.CopyFrom(numpy_helper.from_array(numpy.full_like(numpy_helper.to_array(hidden), args.mask), hidden.name))
    duplicate_shared_initializers(graph)


def feeds(graph, ids):
    """A window behind an empty cache."""
    given = {
        "input_ids": ids[None],
        "attention_mask": numpy.ones((1, len(ids)), numpy.int64),
        "position_ids": numpy.arange(len(ids))[None],
    }
    for end in graph.input:
        if end.name.startswith("past_key_values."):
            _, heads, _, width = (dim.dim_value for dim in end.type.tensor_type.shape.dim)
            given[end.name] = numpy.zeros((1, heads, 0, width), numpy.float32)
    return given


def log_probabilities(logits):
    logits = logits.astype(numpy.float64)
    logits -= logits.max(-1, keepdims=True)
    return logits - numpy.log(numpy.exp(logits).sum(-1, keepdims=True))


def interval(sums, count):
    """95 % by bootstrap over windows of equal length."""
    draws = numpy.random.default_rng(0).integers(len(sums), size=(2000, len(sums)))
    return numpy.percentile(sums[draws].sum(1) / (len(sums) * count), [2.5, 97.5])


model = onnx.load(str(args.folder / "model.onnx"))
prepared(model.graph)
ends = {node.input[at] for node in model.graph.node for at, end in ((0, "embedding"), (1, "head.product"))
        if end in node.output}
calibration = windows(args.calibration, args.calibration_tokens, args.samples)
measured = windows(args.text, args.ctx, args.windows)
inputs = lambda ids: feeds(model.graph, ids)
float_session = onnxruntime.InferenceSession(str(args.folder / "model.onnx"), providers=["CPUExecutionProvider"])

start = time.time()
sim = QuantizationSimModel(
    model,
    param_type=f"int{args.weights}",
    activation_type=f"int{args.activations}",
    config_file=args.config,
    providers=["CPUExecutionProvider"],
    dummy_input=inputs(calibration[0]),
)
if args.ends:
    for name in ends:
        sim.qc_quantize_op_dict[name].set_bitwidth(args.ends)
for name, quantizer in sim.qc_quantize_op_dict.items():
    if args.off and re.search(args.off, name):
        quantizer.enabled = False
sim.compute_encodings(inputs(ids) for ids in calibration)
made = time.time() - start

if args.show:
    with open(args.show, "w", encoding="utf-8") as file:
        for name, it in sorted(sim.qc_quantize_op_dict.items()):
            grid = (it.get_encodings() or [None]) if it.enabled else [None]
            range_ = [grid[0].min, grid[0].max, grid[0].offset] if grid[0] else None
            shown = dict(name=name, enabled=it.enabled, bits=it.bitwidth, symmetric=it.use_symmetric_encodings)
            file.write(json.dumps({**shown, "grids": len(grid), "range": range_}) + "\n")

divergence, losses, same = [], [], 0
for ids in measured:
    true = log_probabilities(float_session.run(["logits"], inputs(ids))[0][0][:-1])
    seen = log_probabilities(sim.session.run(["logits"], inputs(ids))[0][0][:-1])
    divergence.append(numpy.maximum((numpy.exp(true) * (true - seen)).sum(-1), 0).sum())
    losses.append([-it[numpy.arange(len(it)), ids[1:]].sum() for it in (true, seen)])
    same += (true.argmax(-1) == seen.argmax(-1)).sum()
positions = args.ctx - 1
total = positions * len(measured)
low, high = interval(numpy.array(divergence), positions)
before, after = numpy.exp(numpy.array(losses).sum(0) / total)
enabled = [it for it in sim.qc_quantize_op_dict.values() if it.enabled]
table, head = (sim.qc_quantize_op_dict[name].bitwidth for name in sorted(ends, key=lambda it: it == "head.weight"))
print(f"AIMET w{args.weights}a{args.activations}, table of {table} bits, head of {head}, {args.config}: "
      f"{len(enabled)} quantizers, {len(calibration)} windows of {args.calibration_tokens}, {made:.0f} s")
print(f"KL {sum(divergence) / total:.5f} ({low:.5f} to {high:.5f}), {total} positions in {len(measured)} windows, "
      f"same first choice {100 * same / total:.1f} %, perplexity {before:.3f} and {after:.3f}")
