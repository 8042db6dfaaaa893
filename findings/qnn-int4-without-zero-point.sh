#!/bin/sh
# QNN's HTP takes int4 weights whose DequantizeLinear has no zero point, and computes them wrongly.
#
# Expected: the zero point is optional in ONNX and 0 when absent, so the graph with it and the one without are the
# same product, as they are for int8 and for int4 in blocks.
# Happens: per channel in int4, without the input, every node is taken by the HTP (no fallback, no message) and the
# result has nothing to do with the product. With explicit zeros it is right.
#
# Versions: onnxruntime 1.32.0, onnxruntime-qnn 2.7.0 (QNN 2.51.0, emulator of HTP v75), onnx 1.23.2, Python 3.11.
# Machine: x86-64 Linux, CPU only. Seen 2026-11-27:
#     int4, no zero point: relative error 2.57040
#     int4, explicit zeros: relative error 0.00040
#     int8, no zero point: relative error 0.00040
#     int8, explicit zeros: relative error 0.00040
# Means: a compressor that targets HTP must write zeros as zero points of symmetric int4 weights; a check of the graph
# on the CPU passes either way, and so does the question whether the device takes every node.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT INT TERM
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet onnxruntime==1.32.0 onnxruntime-qnn==2.7.0 onnx==1.23.2 numpy==2.4.6
cd "$dir"
"$dir/venv/bin/python" - <<'END'
import os, sys, numpy as np, onnx, onnxruntime as ort, onnxruntime_qnn as qnn
from onnx import TensorProto as T, helper as h, numpy_helper

ort.set_default_logger_severity(3)
ort.register_execution_provider_library("QNNExecutionProvider", qnn.get_library_path())
devices = [d for d in ort.get_ep_devices() if d.ep_name == "QNNExecutionProvider"]
emulator = {"backend_path": os.path.dirname(qnn.get_library_path()) + "/libQnnHtp.so",
            "soc_model": "57", "htp_arch": "75", "enable_htp_fp16_precision": "1"}

def const(name, value): return numpy_helper.from_array(np.asarray(value), name)

def qdq(value, out, scale, zero):
    """quantizes and dequantizes `value`: two nodes, two tensors"""
    return ([h.make_node("QuantizeLinear", [value, out + ".s", out + ".z"], [out + ".q"]),
             h.make_node("DequantizeLinear", [out + ".q", out + ".s", out + ".z"], [out])],
            [const(out + ".s", np.float32(scale)), const(out + ".z", zero)])

def run(nodes, tensors, feeds, shape, opset=21):
    """the result "y" on the CPU without any optimization, and on the HTP emulator alone"""
    graph = h.make_graph(nodes, "g", [h.make_tensor_value_info(k, T.FLOAT, v.shape) for k, v in feeds.items()],
                         [h.make_tensor_value_info("y", T.FLOAT, shape)], tensors)
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", opset)], ir_version=10)
    onnx.checker.check_model(model)
    model = onnx.shape_inference.infer_shapes(model).SerializeToString()
    plain, strict = ort.SessionOptions(), ort.SessionOptions()
    plain.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    strict.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    strict.add_provider_for_devices(devices, emulator)
    cpu = ort.InferenceSession(model, plain, providers=["CPUExecutionProvider"]).run(None, feeds)[0]
    session = ort.InferenceSession(model, strict)
    session.disable_fallback()
    return cpu, session.run(None, feeds)[0]

def error(cpu, htp): return float(np.linalg.norm(htp - cpu) / np.linalg.norm(cpu))

rng = np.random.default_rng(0)
K, N = 128, 64
x = rng.standard_normal((1, 16, K), dtype=np.float32)

codes, scales = rng.integers(-7, 8, (K, N)), rng.uniform(0.01, 0.02, N).astype(np.float32)

def product(kind, zeros):
    weight = [h.make_tensor("w", kind, [K, N], codes.flatten()), const("w.s", scales)]
    weight += [h.make_tensor("w.z", kind, [N], [0] * N)] if zeros else []
    (xn, xt), (yn, yt) = qdq("x", "a", 8 / 65536, np.uint16(32768)), qdq("p", "y", 16 / 65536, np.uint16(32768))
    nodes = xn + [h.make_node("DequantizeLinear", [t.name for t in weight], ["b"], axis=1),
                  h.make_node("MatMul", ["a", "b"], ["p"])] + yn
    return error(*run(nodes, weight + xt + yt, {"x": x}, (1, 16, N)))

found = {(label, zeros): product(kind, zeros)
         for label, kind in (("int4", T.INT4), ("int8", T.INT8)) for zeros in (False, True)}
for (label, zeros), e in found.items():
    print(f"{label}, {'explicit zeros' if zeros else 'no zero point'}: relative error {e:.5f}")
wrong = found.pop(("int4", False))
ok = (wrong > 0.5 and max(found.values()) < 0.01)
sys.exit(None if ok else "the behaviour has changed")
END
