#!/usr/bin/env python3
"""Train two small Medusa heads for milm-mini, in vLLM's layout.

    pip install torch transformers safetensors
    make.py            (writes config.json and model.safetensors beside itself)
The text is what milm-mini writes itself. Only the residual blocks are trained: both heads multiply by the
model's own matrix (`original_lm_head`), so that the file is small. Head i, at the state that the model chooses
token t + 1 by, learns token t + 2 + i. The share of tokens that each hits on text held out is printed.
"""
import json
import os

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

HERE = os.path.dirname(os.path.abspath(__file__))
MINI = os.path.join(HERE, "../../../src/checkpoint/builtin/milm-mini")
HEADS, TEXTS, TOKENS, EPOCHS = 2, 192, 192, 12


def states_and_tokens(model):
    starts = torch.randint(1, model.config.vocab_size, (TEXTS, 1))
    ids = model.generate(starts, attention_mask=torch.ones_like(starts), min_new_tokens=TOKENS, max_new_tokens=TOKENS,
                         do_sample=True, temperature=0.7, top_k=0, pad_token_id=0)
    with torch.no_grad():
        states = torch.cat([model.model(part).last_hidden_state for part in ids.split(32)])
    return states.float(), ids


def hits(block, matrix, states, labels):
    x = states + torch.nn.functional.silu(block(states))
    return float(((x @ matrix.T).argmax(-1) == labels).float().mean())


def main():
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_pretrained(MINI, dtype=torch.float32).eval()
    matrix = model.lm_head.weight.detach()
    states, ids = states_and_tokens(model)
    hidden, vocab = model.config.hidden_size, model.config.vocab_size
    tensors = {}
    for i in range(HEADS):
        x, y = states[:, 8:-2 - i], ids[:, 10 + i:]
        train, held = [(a[part].flatten(0, 1), b[part].flatten()) for a, b, part in
                       [(x, y, slice(0, -16)), (x, y, slice(-16, None))]]
        block = torch.nn.Linear(hidden, hidden)
        torch.nn.init.zeros_(block.weight)
        torch.nn.init.zeros_(block.bias)
        before = hits(block, matrix, *held)
        optimizer = torch.optim.AdamW(block.parameters(), lr=3e-3, weight_decay=0.01)
        for epoch in range(EPOCHS):
            for group in optimizer.param_groups:
                group["lr"] = 3e-3 * (1 - epoch / EPOCHS)
            for rows in torch.randperm(len(train[0])).split(512):
                z = train[0][rows]
                logits = (z + torch.nn.functional.silu(block(z))) @ matrix.T
                loss = torch.nn.functional.cross_entropy(logits, train[1][rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        print(f"head {i}: {before:.3f} -> {hits(block, matrix, *held):.3f}")
        tensors[f"blocks.{i}.layers.0.weight"] = block.weight.detach().half().contiguous()
        tensors[f"blocks.{i}.layers.0.bias"] = block.bias.detach().half().contiguous()
    save_file(tensors, os.path.join(HERE, "model.safetensors"), metadata={"format": "pt"})
    config = {"model_type": "medusa", "architectures": ["MedusaModel"], "hidden_size": hidden, "vocab_size": vocab,
              "num_heads": HEADS, "num_hidden_layers": 1, "max_paths": 64, "topk": 10, "truncated_vocab_size": vocab,
              "medusa_fc_bias": True, "original_lm_head": True}
    with open(os.path.join(HERE, "config.json"), "w") as file:
        json.dump(config, file, indent=2)
        file.write("\n")


if __name__ == "__main__":
    main()
