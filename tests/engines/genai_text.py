"""Greedy text of an ONNX folder as onnxruntime-genai writes it, by its genai_config.json and tokenizer.

genai_text.py FOLDER PROMPT TOKENS

Prints a line of JSON: the ids of prompt and text, and their text.
"""
import json
import sys

import onnxruntime_genai as genai

folder, prompt, tokens = sys.argv[1], sys.argv[2], int(sys.argv[3])
model = genai.Model(folder)
tokenizer = genai.Tokenizer(model)
ids = tokenizer.encode(prompt)
params = genai.GeneratorParams(model)
params.set_search_options(max_length=len(ids) + tokens, do_sample=False)
generator = genai.Generator(model, params)
generator.append_tokens(ids)
while not generator.is_done():
    generator.generate_next_token()
sequence = [int(id) for id in generator.get_sequence(0)]
print(json.dumps({"ids": sequence, "text": tokenizer.decode(generator.get_sequence(0))}))
