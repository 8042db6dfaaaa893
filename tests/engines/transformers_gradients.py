"""Gradients of checkpoints as torch computes them through stock transformers.

transformers_gradients.py --ids 5,9,2 FOLDER OUT.safetensors [FOLDER OUT.safetensors ...]

The loss is the sum of the cross-entropies of the ids 1 to n by the logits of 0 to n - 1, in float64. Each OUT
gets the gradient of every parameter, and `loss`, in float32.
"""
import argparse

import safetensors.torch
import torch
import transformers

parser = argparse.ArgumentParser()
parser.add_argument("--ids", required=True)
parser.add_argument("paths", nargs="+")
args = parser.parse_args()

ids = torch.tensor([[int(word) for word in args.ids.split(",")]])
for folder, out in zip(args.paths[::2], args.paths[1::2]):
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float64, trust_remote_code=False, attn_implementation="eager"
    ).eval()
    logits = model(ids).logits[0, :-1]
    loss = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum")
    loss.backward()
    found = {name: it.grad for name, it in model.named_parameters() if it.grad is not None}
    found["loss"] = loss.detach().reshape(1)
    safetensors.torch.save_file({name: it.float().contiguous() for name, it in found.items()}, out)
