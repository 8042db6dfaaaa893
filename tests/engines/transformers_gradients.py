"""Gradients of checkpoints as torch computes them through stock transformers.

transformers_gradients.py --ids 5,9,2 FOLDER OUT.safetensors [FOLDER OUT.safetensors ...]

The loss is the sum of the cross-entropies of the ids 1 to n by the logits of 0 to n - 1, in float64. Each OUT
gets the gradient of every parameter under its name in the checkpoint, and `loss`, in float32.
"""
import argparse

import safetensors.torch
import torch
import transformers


def in_checkpoint(name, gradient, kind):
    """Names and gradients of the tensors that a parameter was read from: transformers joins experts."""
    place, _, what = name.partition(".mlp.")
    own, (gate, up, down) = ".mlp.", ("gate_proj", "up_proj", "down_proj")
    if kind == "mixtral":
        own, (gate, up, down) = ".block_sparse_moe.", ("w1", "w3", "w2")
    for expert in range(len(gradient) if what.startswith("experts.") else 0):
        stem = f"{place}{own}experts.{expert}."
        if what == "experts.down_proj":
            yield f"{stem}{down}.weight", gradient[expert]
        else:
            for part, half in zip((gate, up), gradient[expert].chunk(2)):
                yield f"{stem}{part}.weight", half
    if what == "gate.weight":
        yield f"{place}{own}{what}", gradient
    elif not what.startswith("experts."):
        yield name, gradient


parser = argparse.ArgumentParser()
parser.add_argument("--ids", required=True)
parser.add_argument("paths", nargs="+")
args = parser.parse_args()

ids = torch.tensor([[int(word) for word in args.ids.split(",")]])
for folder, out in zip(args.paths[::2], args.paths[1::2]):
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float64, trust_remote_code=False, attn_implementation="eager",
        experts_implementation="eager",
    ).eval()
    logits = model(ids).logits[0, :-1]
    loss = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum")
    loss.backward()
    known = ((name, it.grad) for name, it in model.named_parameters() if it.grad is not None)
    kind = model.config.model_type
    found = {stored: part for name, it in known for stored, part in in_checkpoint(name, it, kind)}
    found["loss"] = loss.detach().reshape(1)
    safetensors.torch.save_file({name: it.float().contiguous() for name, it in found.items()}, out)
