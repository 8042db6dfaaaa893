"""A package in stock transformers with compressed-tensors: weights, logits, token ids.

compressed_tensors_check.py --ids 5,9,2 [--texts TEXTS.json] [--opened] [--transforms] [--dtype TYPE] FOLDER OUT [FOLDER OUT ...]

Each OUT.safetensors gets
  weight:NAME  float32, what compressed-tensors' own compressors make of the stored tensors of NAME
  float        float32 [tokens, vocabulary], logits of transformers' float model with these weights
  loaded       the same of the model as from_pretrained opens it, static or dynamic activations and all
With --transforms transformers' model gets the rotations of `transform_config`, as compressed-tensors applies
them, before it computes `loaded`; transformers itself leaves them out.
With --opened only `loaded`: transformers joins the experts of mixtures, so that stored tensors and
modules are not the same.
Standard output is a line of JSON for each folder: `versions`; `error`, why from_pretrained does not
open it or its model does not run; `differ`, weights that the opened model has otherwise; `token_ids`
of the texts. Everything in float32, no code from the folders; --dtype is that of the model that
from_pretrained opens.
"""
import argparse
import json
import pathlib

import compressed_tensors
import torch
import transformers
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.compressors.format import infer_module_format
from compressed_tensors.quantization import QuantizationConfig
from compressed_tensors.transform import TransformConfig, apply_transform_config
from compressed_tensors.utils.match import is_match
from safetensors import safe_open
from safetensors.torch import save_file

PARTS = ["weight_packed", "weight_shape", "weight_scale", "weight_zero_point", "weight", "input_scale"]


def stored(folder):
    tensors = {}
    for file in sorted(pathlib.Path(folder).glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            tensors.update({name: opened.get_tensor(name) for name in opened.keys()})
    return tensors


def decompressed(config, model, tensors):
    """Weights by module, as compressed-tensors decompresses them with scales in float32."""
    out = {}
    for name, module in model.named_modules():
        if name + ".weight_scale" not in tensors:
            continue
        named = [g for g in config.config_groups.values() if any(is_match(name, None, t) for t in g.targets)]
        named += [g for g in config.config_groups.values() if any(is_match(name, module, t) for t in g.targets)]
        assert named, f"no group covers {name}"
        assert not any(is_match(name, module, t) for t in config.ignore), f"{name} is ignored"
        scheme = named[0]
        parts = {part: tensors[f"{name}.{part}"] for part in PARTS if f"{name}.{part}" in tensors}
        if parts["weight_scale"].is_floating_point():
            parts["weight_scale"] = parts["weight_scale"].float()
        form = scheme.format or infer_module_format(type(module), scheme)
        compressor = BaseCompressor.get_value_from_registry(getattr(form, "value", form))
        out[name] = compressor.decompress(parts, scheme)["weight"].float().contiguous()
    return out


def plain_model(folder):
    """The same architecture without any quantization."""
    config = transformers.AutoConfig.from_pretrained(folder)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def opened(folder, ids):
    """The model as from_pretrained opens it, and its logits."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, args.dtype)).eval()
    if args.transforms:
        config = json.loads((pathlib.Path(folder) / "config.json").read_text())["quantization_config"]
        apply_transform_config(model, TransformConfig.model_validate(config["transform_config"]))
    with torch.no_grad():
        return model, model(ids).logits[0].float()


def check(folder, out, ids, texts):
    result = {"versions": {m.__name__: m.__version__ for m in (transformers, compressed_tensors, torch)}}
    config = json.loads((pathlib.Path(folder) / "config.json").read_text())
    config = QuantizationConfig.model_validate(config["quantization_config"])
    tensors = stored(folder)
    model = plain_model(folder)
    weights = decompressed(config, model, tensors)
    dense = {name: value.float() for name, value in tensors.items() if value.is_floating_point()}
    dense = {name: value for name, value in dense.items() if not name.endswith("_scale")}
    dense |= {f"{name}.weight": value for name, value in weights.items()}
    left = model.load_state_dict(dense, strict=False)
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    assert not left.unexpected_keys and set(left.missing_keys) <= tied, left
    model.tie_weights()
    found = {f"weight:{name}": value.clone() for name, value in weights.items()}
    with torch.no_grad():
        found["float"] = model(ids).logits[0].float()
    del model
    try:
        loaded, found["loaded"] = opened(folder, ids)
        has = dict(loaded.named_modules())
        same = lambda name: torch.equal(has[name].weight.float(), weights[name])
        result["differ"] = [name for name in weights if not same(name)]
    except Exception as error:
        result["error"] = f"{type(error).__name__}: {error}"[:2000]
    if texts:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        result["token_ids"] = [tokenizer(text)["input_ids"] for text in texts]
    save_file({name: value.contiguous() for name, value in found.items()}, out)
    return result


parser = argparse.ArgumentParser()
parser.add_argument("--ids", required=True)
parser.add_argument("--texts")
parser.add_argument("--opened", action="store_true")
parser.add_argument("--transforms", action="store_true")
parser.add_argument("--dtype", default="float32")
parser.add_argument("paths", nargs="+")
args = parser.parse_args()
ids = torch.tensor([[int(word) for word in args.ids.split(",")]])
texts = json.loads(pathlib.Path(args.texts).read_text()) if args.texts else []
for folder, out in zip(args.paths[::2], args.paths[1::2]):
    if args.opened:
        save_file({"loaded": opened(folder, ids)[1].contiguous()}, out)
        print("{}")
    else:
        print(json.dumps(check(folder, out, ids, texts)))
