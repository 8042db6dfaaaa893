#!/bin/sh
# ONNX Runtime's CPU fuses Gemm into QGemm and forgets the scale of the bias.
#
# Expected: an int32 bias behind DequantizeLinear has the scale that the graph says; when the fused operator cannot
# hold it (QGemm adds bias codes to sums of scale input x weight), the fusion is skipped, as it is for Conv.
# Happens: Gemm is fused all the same from ORT_ENABLE_EXTENDED (so by default) on, and the bias is multiplied by the
# wrong scale.
#
# Versions: onnxruntime 1.32.0, onnx 1.23.2, Python 3.11. Machine: x86-64 Linux, CPU only. Seen 2026-11-27:
#     Gemm, bias scale input x weight: relative error of the default against no optimization 0.000000 (QGemm)
#     Gemm, bias scale 0.01: relative error of the default against no optimization 0.865483 (QGemm)
#     Conv, bias scale input x weight: relative error of the default against no optimization 0.000000
#         (QLinearConv)
#     Conv, bias scale 0.01: relative error of the default against no optimization 0.000000 (Conv)
# Means: a quantized bias must have scale input x weight exactly (or stay float); a changed activation scale without a
# new bias is silently wrong here, and right on engines that read the graph as it is written.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT INT TERM
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
cd "$dir"
"$dir/venv/bin/python" - <<'END'
import sys, numpy as np, onnx, onnxruntime as ort
from onnx import TensorProto as T, helper as h, numpy_helper

def const(name, value): return numpy_helper.from_array(np.asarray(value), name)

def model(nodes, tensors, x, shape, opset=21):
    kind = h.np_dtype_to_tensor_dtype(x.dtype)
    graph = h.make_graph(nodes, "g", [h.make_tensor_value_info("x", kind, x.shape)],
                         [h.make_tensor_value_info("y", kind, shape)], tensors)
    made = h.make_model(graph, opset_imports=[h.make_opsetid("", opset)], ir_version=10)
    onnx.checker.check_model(made)
    return made.SerializeToString()

def run(made, x, level="ORT_ENABLE_ALL", **settings):
    """the result and the kinds of nodes that were run"""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    options.optimized_model_filepath = "optimized.onnx"
    for key, value in settings.items(): options.add_session_config_entry("session." + key, value)
    result = ort.InferenceSession(made, options, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    return result, [n.op_type for n in onnx.load("optimized.onnx", load_external_data=False).graph.node]

def error(y, right): return float(np.linalg.norm(y.astype(np.float64) - right) / np.linalg.norm(right))

rng = np.random.default_rng(0)
K, N, R = 64, 32, 8
node, x = h.make_node, rng.uniform(-1, 1, (R, K)).astype(np.float32)
codes, bias = rng.integers(-127, 128, (K, N)).astype(np.int8), rng.integers(-1000, 1001, N).astype(np.int32)
sx, sw = np.float32(2 / 255), np.float32(0.01)

def layer(op, sb):
    values = {"a.s": sx, "a.z": np.uint8(128), "w.s": sw, "w.z": np.int8(0), "b.s": np.float32(sb), "b.z": np.int32(0),
              "y.s": np.float32(40 / 255), "y.z": np.uint8(128), "c": bias,
              "w": codes if op == "Gemm" else codes.T.reshape(N, K, 1, 1).copy()}
    data, shape = (x, (R, N)) if op == "Gemm" else (x.T.reshape(1, K, R, 1).copy(), (1, N, R, 1))
    nodes = [node("QuantizeLinear", ["x", "a.s", "a.z"], ["a.q"]),
             node("DequantizeLinear", ["a.q", "a.s", "a.z"], ["a"]),
             node("DequantizeLinear", ["w", "w.s", "w.z"], ["b"]), node("DequantizeLinear", ["c", "b.s", "b.z"], ["d"]),
             node(op, ["a", "b", "d"], ["p"]),
             node("QuantizeLinear", ["p", "y.s", "y.z"], ["y.q"]),
             node("DequantizeLinear", ["y.q", "y.s", "y.z"], ["y"])]
    made = model(nodes, [const(k, v) for k, v in values.items()], data, shape)
    y, kinds = run(made, data)
    kind = next(k for k in kinds if k in ("QGemm", "Gemm", "QLinearConv", "Conv"))
    return error(y, run(made, data, "ORT_DISABLE_ALL")[0]), kind

found = [layer(op, sb) for op in ("Gemm", "Conv") for sb in (sx * sw, 0.01)]
labels = [f"{op}, bias scale {which}" for op in ("Gemm", "Conv") for which in ("input x weight", "0.01")]
for label, (e, kind) in zip(labels, found):
    print(f"{label}: relative error of the default against no optimization {e:.6f} ({kind})")
ok = (found[1][0] > 0.5 and max(found[k][0] for k in (0, 2, 3)) < 0.01)
sys.exit(None if ok else "the behaviour has changed")
END
