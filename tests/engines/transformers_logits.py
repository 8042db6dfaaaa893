"""Logits of checkpoints as stock transformers computes them, and its greedy continuation.

transformers_logits.py --ids 5,9,2 [--greedy 16] FOLDER OUT [FOLDER OUT ...]

Each OUT gets float32 [tokens, vocabulary], little-endian, of the ids and what was generated after
them; standard output a line of JSON with all these ids for each folder. Plain
AutoModelForCausalLM, weights as float32, no code from the folders.
"""
import argparse
import json

import numpy
import torch
import transformers

parser = argparse.ArgumentParser()
parser.add_argument("--ids", required=True)
parser.add_argument("--greedy", type=int, default=0)
parser.add_argument("paths", nargs="+")
args = parser.parse_args()

prompt = torch.tensor([[int(word) for word in args.ids.split(",")]])
for folder, out in zip(args.paths[::2], args.paths[1::2]):
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, trust_remote_code=False
    ).eval()
    with torch.no_grad():
        ids = prompt
        if args.greedy:
            mask = torch.ones_like(ids)
            ids = model.generate(ids, attention_mask=mask, max_new_tokens=args.greedy, do_sample=False)
        logits = model(ids).logits[0]
    numpy.asarray(logits.float().numpy(), dtype="<f4").tofile(out)
    print(json.dumps(ids[0].tolist()))
