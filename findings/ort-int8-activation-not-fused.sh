#!/bin/sh
# ONNX Runtime's CPU fuses several products of one uint8 activation, but none of one int8 activation.
#
# Expected: int8 around 0 and uint8 around 128 are the same grid and give the same products; MatMulIntegerToFloat
# takes both.
# Happens: a single product is fused for either. When three products share the quantized activation (query, key and
# value; gate and up), those of uint8 are fused and those of int8 stay float products of dequantized weights.
#
# Versions: onnxruntime 1.32.0, onnx 1.23.2, Python 3.11. Machine: x86-64 Linux, CPU only. Seen 2026-11-27:
#     uint8 around 128: 1 of 1 products fused, relative error 0.0000002
#     uint8 around 128: 3 of 3 products fused, relative error 0.0000002
#     int8 around 0: 1 of 1 products fused, relative error 0.0000002
#     int8 around 0: 0 of 3 products fused, relative error 0.0000000
# Means: an int8-by-int8 model may run with float products and dequantize its weights at each call (a decoder was 10
# times slower at equal numbers); write static symmetric activations as uint8 around 128, and count the fused nodes.
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
K, N = 128, 64
node, x = h.make_node, rng.standard_normal((16, K), dtype=np.float32)
codes = [rng.integers(-127, 128, (K, N)).astype(np.int8) for _ in range(3)]

def products(zero, count):
    nodes = [node("QuantizeLinear", ["x", "a.s", "a.z"], ["a.q"]),
             node("DequantizeLinear", ["a.q", "a.s", "a.z"], ["a"])]
    tensors = [const("a.s", np.float32(4 / 127)), const("a.z", zero), const("w.s", np.float32(0.001))]
    for i in range(count):
        tensors.append(const(f"w{i}", codes[i]))
        nodes += [node("DequantizeLinear", [f"w{i}", "w.s"], [f"b{i}"]), node("MatMul", ["a", f"b{i}"], [f"p{i}"])]
    made = model(nodes + [node("Sum", [f"p{i}" for i in range(count)], ["y"])], tensors, x, (16, N))
    y, kinds = run(made, x)
    return kinds.count("MatMulIntegerToFloat"), error(y, run(made, x, "ORT_DISABLE_ALL")[0])

found = {(label, count): products(zero, count)
         for label, zero in (("uint8 around 128", np.uint8(128)), ("int8 around 0", np.int8(0))) for count in (1, 3)}
for (label, count), (fused, e) in found.items():
    print(f"{label}: {fused} of {count} products fused, relative error {e:.7f}")
ok = ([f[0] for f in found.values()] == [1, 3, 1, 0] and max(f[1] for f in found.values()) < 0.001)
sys.exit(None if ok else "the behaviour has changed")
END
