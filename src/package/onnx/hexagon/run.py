"""Text on Qualcomm's HTP: python run.py PROMPT [--max-tokens 32] [--ids 1,5,9 --logits OUT]

pip install onnxruntime==1.32.0 onnxruntime-qnn==2.7.0 tokenizers numpy
On x86-64 Linux the package brings an emulator of the chip. The compiled graphs (context binaries) are
kept in the folder FOLDER.compiled; remove it after a change of hexagon.json. Nothing runs on the CPU
instead.
"""
import argparse
import json
import os

import numpy
import onnxruntime
import onnxruntime_qnn

here = os.path.dirname(os.path.abspath(__file__))
kept = here + ".compiled"
with open(os.path.join(here, "hexagon.json"), encoding="utf-8") as file:
    known = json.load(file)
parser = argparse.ArgumentParser()
parser.add_argument("prompt", nargs="?")
parser.add_argument("--max-tokens", type=int, default=32)
parser.add_argument("--ids", help="token ids instead of a prompt")
parser.add_argument("--logits", help="float32 [tokens, vocabulary] of the ids, little-endian; no text")
args = parser.parse_args()

provider = "QNNExecutionProvider"
onnxruntime.register_execution_provider_library(provider, onnxruntime_qnn.get_library_path())
devices = [it for it in onnxruntime.get_ep_devices() if it.ep_name == provider]
library = os.path.join(os.path.dirname(onnxruntime_qnn.get_library_path()), "libQnnHtp.so")


def session(graph):
    """The compiled graph, which is compiled first if that was not done before."""
    compiled = os.path.join(kept, graph.replace(".onnx", "_ctx.onnx"))
    if not os.path.exists(compiled):
        os.makedirs(kept, exist_ok=True)
        load(os.path.join(here, graph), {
            "ep.context_enable": "1",
            "ep.context_file_path": compiled,
            "ep.context_embed_mode": "0",
        })
    return load(compiled, {})


def load(path, more):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    for key, value in {"session.disable_cpu_ep_fallback": "1", **more}.items():
        options.add_session_config_entry(key, value)
    options.add_provider_for_devices(devices, {"backend_path": library, **known["options"]})
    made = onnxruntime.InferenceSession(path, options)
    made.disable_fallback()
    return made


graphs = {}


def run(kind, ids, position, past):
    """Logits of the ids, and the last places of the cache. `past` holds the tokens before them last."""
    if kind not in graphs:
        graphs[kind] = session(known["graphs"][kind])
    graph, tokens = graphs[kind], known["prompt"] if kind == "prompt" else 1
    places, context = known["context"] - tokens, known["context"]
    filled = list(ids) + [0] * (tokens - len(ids))
    feeds = {
        "input_ids": numpy.array([filled], numpy.int64),
        "position_ids": numpy.arange(position, position + tokens, dtype=numpy.int64)[None] % context,
        "attention_mask": numpy.array(
            [[0] * (places - position) + [1] * (position + len(ids)) + [0] * (tokens - len(ids))], numpy.int64
        ),
    }
    for end in graph.get_inputs():
        if end.name.startswith("past_key_values."):
            cache = past.get(end.name)
            empty = numpy.zeros(end.shape, numpy.float32)
            if cache is not None:
                latest = cache[:, :, -places:]
                empty[:, :, places - latest.shape[2] :] = latest
            feeds[end.name] = empty
    names = [end.name for end in graph.get_outputs()]
    made = dict(zip(names, graph.run(names, feeds)))
    end = places + len(ids)
    past = {
        name: made[name.replace("past_key_values", "present")][:, :, end - position - len(ids) : end]
        for name in feeds
        if name.startswith("past_key_values.")
    }
    return made["logits"][0][: len(ids)], past


tokenizer = None
if args.ids:
    ids = [int(word) for word in args.ids.split(",")]
else:
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(os.path.join(here, "tokenizer.json"))
    ids = known["prefix_ids"] + tokenizer.encode(args.prompt, add_special_tokens=False).ids
if not 0 < len(ids) < known["context"]:
    raise SystemExit(f"{len(ids)} tokens; the graphs have place for {known['context'] - 1}")
past, position, logits = {}, 0, []
while position < len(ids):
    step = min(known["prompt"], len(ids) - position)
    # A prompt's graph has to have its places behind what was read.
    kind = "prompt" if position + known["prompt"] <= known["context"] else "token"
    step = step if kind == "prompt" else 1
    rows, past = run(kind, ids[position : position + step], position, past)
    logits.append(rows)
    position += step
if args.logits:
    numpy.concatenate(logits).astype("<f4").tofile(args.logits)
    raise SystemExit
written = []
while len(written) < args.max_tokens and position < known["context"]:
    token = int(logits[-1][-1].argmax())
    written.append(token)
    if token in known["eos_token_id"] or position + 1 >= known["context"]:
        break
    rows, past = run("token", [token], position, past)
    logits, position = [rows], position + 1
print(json.dumps({"ids": written, "text": tokenizer.decode(written) if tokenizer else None}))
