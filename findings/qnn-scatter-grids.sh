#!/bin/sh
# QNN's HTP writes the codes of ScatterElements' updates into a tensor with another scale.
#
# Expected: data and updates are dequantized before ScatterElements, each with its own scale, so the scales may differ
# (as they may for Concat and Where, which requantize), or a refusal.
# Happens: with uint16 grids of different scales the node is taken and the updates arrive multiplied by the ratio of
# the scales.
#
# Versions: onnxruntime 1.32.0, onnxruntime-qnn 2.7.0 (QNN 2.51.0, emulator of HTP v75), onnx 1.23.2, Python 3.11.
# Machine: x86-64 Linux, CPU only. Seen 2026-11-27:
#     ScatterElements, same scale: relative error 0.00000
#     ScatterElements, scales 4:1: relative error 0.41056
#     Concat, same scale: relative error 0.00000
#     Concat, scales 4:1: relative error 0.00001
#     scattered values, HTP against CPU: 4.000 times
# Means: a key/value cache that new tokens are scattered into needs one grid for the cache and for the new keys and
# values; calibration that gives each its own is silently wrong on HTP.
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
data = rng.uniform(-4, 4, (1, 16, 8)).astype(np.float32)
new = rng.uniform(-1, 1, (1, 4, 8)).astype(np.float32)
index = np.tile(np.arange(4, dtype=np.int32).reshape(1, 4, 1) * 3, (1, 1, 8))

def merged(op, scale):
    (dn, dt), (un, ut), (yn, yt) = (qdq("x", "d", 8 / 65535, np.uint16(32768)), qdq("z", "u", scale, np.uint16(32768)),
                                    qdq("p", "y", 8 / 65535, np.uint16(32768)))
    ins, shape = (["d", "i", "u"], (1, 16, 8)) if op == "ScatterElements" else (["d", "u"], (1, 20, 8))
    extra = [const("i", index)] if op == "ScatterElements" else []
    return run(dn + un + [h.make_node(op, ins, ["p"], axis=1)] + yn, dt + ut + yt + extra, {"x": data, "z": new}, shape)

found = {(op, label): merged(op, scale) for op in ("ScatterElements", "Concat")
         for label, scale in (("same scale", 8 / 65535), ("scales 4:1", 2 / 65535))}
for (op, label), (cpu, htp) in found.items(): print(f"{op}, {label}: relative error {error(cpu, htp):.5f}")
cpu, htp = found.pop(("ScatterElements", "scales 4:1"))
ratio = float(np.median(htp[0, ::3][:4] / cpu[0, ::3][:4]))
print(f"scattered values, HTP against CPU: {ratio:.3f} times")
ok = (error(cpu, htp) > 0.2 and abs(ratio - 4) < 0.1 and max(error(*f) for f in found.values()) < 0.01)
sys.exit(None if ok else "the behaviour has changed")
END
