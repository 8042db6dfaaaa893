#!/bin/sh
# MNN's converter drops QuantizeLinear -> DequantizeLinear on activations of a product, without a word.
#
# Expected: a static 8-bit activation grid (here a coarse one, scale 0.5) is computed as the graph says, or refused.
# Happens: "Converted Success!", and the result is the product of the unrounded activations, to float32 accuracy.
#
# Versions: MNN 3.6.1, onnx 1.23.2, Python 3.11. Machine: x86-64 Linux, CPU only. Seen 2026-11-27:
#     weight-only graph: relative error 0.0000002
#     static activations: relative error to the graph as written 0.1436, to float activations 0.0000002
# Means: accuracy measured in MNN on a w8a8 ONNX export is that of float activations; it says nothing about the
# rounding that the model was calibrated for.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT INT TERM
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet MNN==3.6.1 onnx==1.23.2 numpy==2.4.6
cd "$dir"
"$dir/venv/bin/python" - <<'END'
import os, sys, numpy as np, onnx, MNN, MNN.nn, MNN.expr as F
import _tools  # MNN's converter; its wrapper MNN.tools.mnnconvert would call pip to install a package for reports
from onnx import TensorProto as T, helper as h, numpy_helper

rng = np.random.default_rng(0)
R, K, N = 16, 128, 64
x = rng.standard_normal((R, K), dtype=np.float32)
codes, scales = rng.integers(-127, 128, (K, N)).astype(np.int8), rng.uniform(0.0005, 0.001, N).astype(np.float32)
weight = codes * scales.astype(np.float64)

def product(scale):
    values = {"a.s": np.float32(scale), "a.z": np.uint8(128), "w": codes, "w.s": scales}
    nodes = [h.make_node("QuantizeLinear", ["x", "a.s", "a.z"], ["a.q"]),
             h.make_node("DequantizeLinear", ["a.q", "a.s", "a.z"], ["a"]),
             h.make_node("DequantizeLinear", ["w", "w.s"], ["b"], axis=1), h.make_node("MatMul", ["a", "b"], ["y"])]
    nodes = nodes if scale else [nodes[2], h.make_node("MatMul", ["x", "b"], ["y"])]
    tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in values.items() if scale or k[0] == "w"]
    graph = h.make_graph(nodes, "g", [h.make_tensor_value_info("x", T.FLOAT, x.shape)],
                         [h.make_tensor_value_info("y", T.FLOAT, (R, N))], tensors)
    made = h.make_model(graph, opset_imports=[h.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(made)
    onnx.save(made, "m.onnx")
    _tools.mnnconvert(["convert", "-f", "ONNX", "--modelFile", "m.onnx", "--MNNModel", "m.mnn", "--bizCode", "m"])
    manager = MNN.nn.create_runtime_manager(({"backend": 0, "precision": "high", "numThread": 1},))
    net = MNN.nn.load_module_from_file("m.mnn", ["x"], ["y"], runtime_manager=manager)
    data = F.placeholder([R, K], F.NCHW)
    data.write(x)
    return np.array(F.convert(net.forward([data])[0], F.NCHW).read()).reshape(R, N)

def error(y, right): return float(np.linalg.norm(y - right) / np.linalg.norm(right))
rounded = ((np.round(x / 0.5) + 128).clip(0, 255) - 128) * 0.5
y, control = product(0.5), error(product(None), x @ weight)
written, float_ = error(y, rounded @ weight), error(y, x @ weight)
print(f"weight-only graph: relative error {control:.7f}")
print(f"static activations: relative error to the graph as written {written:.4f}, to float activations {float_:.7f}")
sys.exit(None if written > 0.1 and float_ < 1e-5 and control < 1e-5 else "the behaviour has changed")
END
