#!/bin/sh
# ONNX Runtime's CPU rewrites int8 activations as uint8 and then refuses them, as before MatMul and Add of a bias.
#
# Expected: a graph that passes onnx.checker and runs without optimization runs with it; int8 around 0 and uint8
# around 128 are the same grid.
# Happens: the optimizer turns int8 grids of activations into uint8 ones and leaves `output_dtype`, where present, at
# int8; the session then fails to load. The attribute may be in the file (known as onnxruntime issue 25526), but the
# optimizer writes it itself, too, when it makes MatMul and Add a Gemm between Reshapes. uint8 grids and inputs with
# two dimensions load.
#
# Versions: onnxruntime 1.32.0, onnx 1.23.2, Python 3.11. Machine: x86-64 Linux, CPU only. Seen 2026-11-27:
#     int8, bias, 3 dimensions: output_dtype INT8 does not match y_zero_point type UINT8.
#     int8, no bias, output_dtype int8: output_dtype INT8 does not match y_zero_point type UINT8.
#     int8, no bias, 3 dimensions: loads, relative error 0.000000
#     int8, bias, 2 dimensions: loads, relative error 0.000000
#     uint8, bias, 3 dimensions: loads, relative error 0.000000
#     uint8, no bias, output_dtype uint8: loads, relative error 0.000000
# Means: static symmetric int8 activations of layers with biases (Qwen2's q, k and v) need uint8 around 128 to be
# loaded by ONNX Runtime at its default level.
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
node, X = h.make_node, rng.standard_normal((1, 16, K), dtype=np.float32)
codes, bias = rng.integers(-127, 128, (K, N)).astype(np.int8), rng.standard_normal(N).astype(np.float32)

def layer(zero, x, add, **attributes):
    values = {"a.s": np.float32(4 / 127), "a.z": zero, "w": codes, "w.s": np.float32(0.001), "c": bias}
    nodes = [node("QuantizeLinear", ["x", "a.s", "a.z"], ["a.q"], **attributes),
             node("DequantizeLinear", ["a.q", "a.s", "a.z"], ["a"]), node("DequantizeLinear", ["w", "w.s"], ["b"]),
             node("MatMul", ["a", "b"], ["p" if add else "y"])] + [node("Add", ["p", "c"], ["y"])] * add
    made = model(nodes, [const(k, v) for k, v in values.items() if add or k != "c"], x, x.shape[:-1] + (N,))
    plain = run(made, x, "ORT_DISABLE_ALL")[0]
    try: return error(run(made, x)[0], plain)
    except Exception as reason: return str(reason).split("[TypeInferenceError] ")[-1]

i8, u8 = np.int8(0), np.uint8(128)
found = {"int8, bias, 3 dimensions": layer(i8, X, True),
         "int8, no bias, output_dtype int8": layer(i8, X, False, output_dtype=T.INT8),
         "int8, no bias, 3 dimensions": layer(i8, X, False),
         "int8, bias, 2 dimensions": layer(i8, X[0], True),
         "uint8, bias, 3 dimensions": layer(u8, X, True),
         "uint8, no bias, output_dtype uint8": layer(u8, X, False, output_dtype=T.UINT8)}
for label, e in found.items(): print(f"{label}: {e if isinstance(e, str) else f'loads, relative error {e:.6f}'}")
bias3, dtype, *right = found.values()
ok = (all(isinstance(e, str) and "y_zero_point" in e for e in (bias3, dtype)) and all(not isinstance(e, str)
      and e < 0.001 for e in right))
sys.exit(None if ok else "the behaviour has changed")
END
