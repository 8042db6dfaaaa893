"""What OpenVINO GenAI makes of an OpenVINO folder: ids of texts and back, and greedy text behind prompts.

openvino_text.py FOLDER TOKENS TEXT...

Prints a line of JSON: the ids of each text, the text of these ids, and what is written behind all of them at
once (nothing with 0 TOKENS).
"""
import json
import sys

import openvino_genai

folder, tokens, texts = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
tokenizer = openvino_genai.Tokenizer(folder)
ids = [[int(id) for id in tokenizer.encode(text).input_ids.data[0]] for text in texts]
made = {"ids": ids, "back": [tokenizer.decode(list_) for list_ in ids], "written": []}
if tokens:
    pipeline = openvino_genai.LLMPipeline(folder, "CPU", EXECUTION_MODE_HINT="ACCURACY")
    result = pipeline.generate(texts, max_new_tokens=tokens, apply_chat_template=False)
    made["written"] = result.texts
print(json.dumps(made))
