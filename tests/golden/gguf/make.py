#!/usr/bin/env python3
"""A SentencePiece vocabulary in a tiny GGUF file, and the ids that sentencepiece itself gives.

    python3 make.py [TEXT.txt VOCABULARY OUT_DIR]     (needs numpy, gguf and sentencepiece)

Without arguments: trained on the sentences below, written beside this script.
"""
import io, json, os, sys
import numpy as np
import sentencepiece as spm
from gguf import GGUFWriter

SENTENCES = """The river runs past the old mill and under the stone bridge.
Small models answer quickly, and they answer on the device that asks.
She counted 12 apples, 345 pears and 6789 plums before breakfast.
A good compressor says what it cost: bits, seconds, and accuracy.
Winter came early; the lake froze, the roads were white, the birds were gone.
If the first attempt fails, read the message, think, and try the second one.
def add(x, y): return x + y  # the sum of two numbers
大河向东流，天上的星星照着小船。
小模型在手机上运行，回答又快又好。
今天下雨，我们在家里读书、写字、喝茶。
压缩之后的模型要测量，才知道损失了多少。
""".splitlines()
CASES = ["Hello world", "The river runs under the bridge.", "  two  spaces and a\ttab\nnew line ", "", " ",
         "12345 6 789", "the theatre of the other", "小模型回答又快又好。", "天上的星星 and the lake",
         "naïve café, déjà vu", "😀 👩‍👩‍👧", "x = add(1, 2)  # sum", "aaaaaaaaaaaaaaaa", "answers answering answered",
         "the\u2581river", "Ωμέγα и слово"]

here = os.path.dirname(os.path.abspath(__file__))
text, size, out = (sys.argv[1:4] + [None] * 3)[:3]
sentences = open(text, encoding="utf-8").read().splitlines() if text else SENTENCES * 20
if text:
    CASES += [s for s in sentences[::max(1, len(sentences) // 400)] if s and len(s) < 2000]
model = io.BytesIO()
spm.SentencePieceTrainer.train(
    sentence_iterator=iter(sentences), model_writer=model, model_type="bpe", vocab_size=int(size or 440),
    byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False, split_digits=True,
    add_dummy_prefix=True, character_coverage=0.995 if text else 0.98, allow_whitespace_only_pieces=True,
    max_sentence_length=20000, minloglevel=2)
sp = spm.SentencePieceProcessor(model_proto=model.getvalue())

def kind(i):
    return 2 if sp.is_unknown(i) else 3 if sp.is_control(i) else 6 if sp.is_byte(i) else 5 if sp.is_unused(i) else 1

n = sp.get_piece_size()
out = out or here
w = GGUFWriter(os.path.join(out, "spm.gguf"), "llama")
for add, value in ((w.add_block_count, 1), (w.add_context_length, 64), (w.add_embedding_length, 4),
                   (w.add_feed_forward_length, 2), (w.add_head_count, 2), (w.add_layer_norm_rms_eps, 1e-5)):
    add(value)
w.add_tokenizer_model("llama")
w.add_tokenizer_pre("default")
w.add_token_list([sp.id_to_piece(i).encode() for i in range(n)])
w.add_token_scores([sp.get_score(i) for i in range(n)])
w.add_token_types([kind(i) for i in range(n)])
w.add_bos_token_id(sp.bos_id()); w.add_eos_token_id(sp.eos_id()); w.add_unk_token_id(sp.unk_id())
ones = lambda *shape: np.ones(shape, np.float32)
w.add_tensor("token_embd.weight", ones(n, 4).astype(np.float16))
w.add_tensor("output_norm.weight", ones(4))
for name, shape in (("attn_norm", (4,)), ("attn_q", (4, 4)), ("attn_k", (4, 4)), ("attn_v", (4, 4)), ("attn_output", (4, 4)),
                    ("ffn_norm", (4,)), ("ffn_gate", (2, 4)), ("ffn_up", (2, 4)), ("ffn_down", (4, 2))):
    w.add_tensor(f"blk.0.{name}.weight", ones(*shape))
w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file(); w.close()
cases = [{"text": c, "ids": [sp.bos_id()] + sp.encode(c), "decoded": sp.decode(sp.encode(c))} for c in CASES]
with open(os.path.join(out, "spm.json"), "w", encoding="utf-8") as f:
    f.write("[\n" + ",\n".join(json.dumps(c, ensure_ascii=False) for c in cases) + "\n]\n")
print(n, "pieces,", len(cases), "texts")
