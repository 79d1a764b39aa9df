"""Results of mergekit on a tiny Llama, BERT and GPT-2, for the tests: what our reading of its documents must give.

    PYTHON benchmarks/mergekit_reference.py --out tests/data/mergekit.json

PYTHON is an interpreter with mergekit 0.1.5. The models are drawn from a seed, so that the file holds results alone:
each tensor's float32 bytes in base64, those of BERT and GPT-2 one after the other by their names, and the tokens where
vocabularies differ. Random masks are drawn as
`headstart.numerics.chance` draws them and put in place of mergekit's own.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

WIDTH, INNER, WORDS, LAYERS = 4, 6, 8, 3
MODELS = ("base", "one", "two", "three")


def weighed(*weights: Any, **each: Any) -> list[dict[str, Any]]:
    names = MODELS[1:]
    return [{"model": m, "parameters": {"weight": w, **each}} for m, w in zip(names, weights, strict=False)]


BASED = {"base_model": "base", "dtype": "float32"}
ALL = [{"model": m} for m in MODELS[1:]]
DOCUMENTS: dict[str, dict[str, Any]] = {
    "linear": {"merge_method": "linear", "models": weighed(0.2, 0.5, 0.9), "dtype": "float32"},
    "linear, as it is": {
        "merge_method": "linear", "models": weighed(0.2, 0.5, 0.9), "parameters": {"normalize": False},
        "dtype": "float32",
    },
    "linear, gradients and filters": {
        "merge_method": "linear",
        "models": weighed([0.1, 0.5, 1], [{"filter": "mlp", "value": 0.3}, {"value": [1, 0.1]}]),
        "dtype": "float32",
    },
    "slerp": {
        "merge_method": "slerp", "models": [{"model": "one"}, {"model": "two"}], "base_model": "one",
        "parameters": {
            "t": [
                {"filter": "self_attn", "value": [0, 0.5, 0.3, 0.7, 1]}, {"filter": "mlp", "value": [1, 0.5, 0]},
                {"value": 0.5},
            ]
        },
        "dtype": "float32",
    },
    "nuslerp": {"merge_method": "nuslerp", "models": weighed(0.3, 0.7), **BASED},
    "nuslerp, by rows": {
        "merge_method": "nuslerp", "models": weighed(0.3, 0.7), "parameters": {"nuslerp_flatten": False}, **BASED,
    },
    "nuslerp, by columns": {
        "merge_method": "nuslerp", "models": weighed(0.3, 0.7),
        "parameters": {"nuslerp_flatten": False, "nuslerp_row_wise": True}, **BASED,
    },
    "multislerp, as it is": {
        "merge_method": "multislerp", "models": weighed(0.3, 0.7, 0.4), "parameters": {"normalize_weights": False},
        **BASED,
    },
    "multislerp of one, as it is": {
        "merge_method": "multislerp", "models": weighed(0.3), "parameters": {"normalize_weights": False}, **BASED,
    },
    "multislerp": {"merge_method": "multislerp", "models": weighed(0.3, 0.7, 0.4), **BASED},
    "karcher": {"merge_method": "karcher", "models": ALL, "dtype": "float32"},
    "task_arithmetic": {
        "merge_method": "task_arithmetic", "models": weighed(0.3, 0.7, 0.4), "parameters": {"lambda": 0.8}, **BASED,
    },
    "task_arithmetic, the mean": {
        "merge_method": "task_arithmetic", "models": weighed(0.3, 0.7, 0.4), "parameters": {"normalize": True}, **BASED,
    },
    "task_arithmetic, enlarged": {
        "merge_method": "task_arithmetic", "models": weighed(0.3, 0.7, density=0.4), "parameters": {"rescale": True},
        **BASED,
    },
    "ties": {
        "merge_method": "ties", "models": weighed(0.3, 0.7, 0.4, density=0.4), "parameters": {"lambda": 0.8}, **BASED,
    },
    "ties, the sum": {
        "merge_method": "ties", "models": weighed(0.3, 0.7, 0.4, density=0.4), "parameters": {"normalize": False},
        **BASED,
    },
    "ties, gradients": {
        "merge_method": "ties",
        "models": [
            {"model": "one", "parameters": {"weight": 1, "density": [1, 0.7, 0.1]}},
            {"model": "two", "parameters": {"weight": [0.1, 0.3, 1], "density": 0.5}},
            {
                "model": "three",
                "parameters": {"weight": [{"filter": "mlp", "value": 0.5}, {"value": 0.2}], "density": 0.33},
            },
        ],
        **BASED,
    },
    "enlarged ties": {
        "merge_method": "ties", "models": weighed(0.3, 0.7, 0.4, density=0.4),
        "parameters": {"rescale": True, "lambda": 0.8}, **BASED,
    },
    "ties, nothing of one": {
        "merge_method": "ties",
        "models": [
            {"model": "one", "parameters": {"weight": 0.3, "density": 0}},
            {"model": "two", "parameters": {"weight": 0.7, "density": 0.5}},
        ],
        **BASED,
    },
    "mean of breadcrumbs": {
        "merge_method": "breadcrumbs", "models": weighed(0.3, 0.4, density=0.6, gamma=0.05),
        "parameters": {"normalize": True}, **BASED,
    },
    "enlarged breadcrumbs": {
        "merge_method": "breadcrumbs", "models": weighed(0.3, 0.7, density=0.6, gamma=0.05),
        "parameters": {"rescale": True}, **BASED,
    },
    "enlarged breadcrumbs_ties": {
        "merge_method": "breadcrumbs_ties", "models": weighed(0.3, 0.7, 0.4, density=0.6, gamma=0.05),
        "parameters": {"rescale": True, "normalize": True}, **BASED,
    },
    "breadcrumbs": {"merge_method": "breadcrumbs", "models": weighed(0.3, 0.7, density=0.6, gamma=0.05), **BASED},
    "breadcrumbs_ties": {
        "merge_method": "breadcrumbs_ties", "models": weighed(0.3, 0.7, density=0.6, gamma=0.05), **BASED,
    },
    "model_stock": {"merge_method": "model_stock", "models": ALL, **BASED},
    "model_stock, by rows": {
        "merge_method": "model_stock", "models": ALL, "parameters": {"filter_wise": True}, **BASED,
    },
    "sce": {"merge_method": "sce", "models": ALL, "parameters": {"select_topk": 0.3}, **BASED},
    "nearswap": {"merge_method": "nearswap", "models": ALL[:1], "parameters": {"t": [0.01, 0.1]}, **BASED},
    "arcee_fusion": {"merge_method": "arcee_fusion", "models": ALL[:1], **BASED},
    "ram": {"merge_method": "ram", "models": ALL, "parameters": {"epsilon": 0.1}, **BASED},
    "ramplus_tl": {
        "merge_method": "ramplus_tl", "models": ALL, "parameters": {"epsilon": 0.1, "r": 0.5, "alpha": [3.0, 0.5]},
        **BASED,
    },
    "dare_linear": {"merge_method": "dare_linear", "models": weighed(0.3, 0.7, 0.4, density=0.4), **BASED},
    "dare_ties": {"merge_method": "dare_ties", "models": weighed(0.3, 0.7, 0.4, density=0.4), **BASED},
    "della": {"merge_method": "della", "models": weighed(0.3, 0.7, 0.4, density=0.5, epsilon=0.2), **BASED},
    "della, the sum": {
        "merge_method": "della", "models": weighed(0.3, 0.7, 0.4, density=0.5),
        "parameters": {"normalize": False, "rescale": False, "lambda": 0.8}, **BASED,
    },
    "della, one by one": {
        "merge_method": "della",
        "models": [
            {"model": "one", "parameters": {"weight": 0.3, "density": 0.4, "epsilon": 0.1}},
            {"model": "two", "parameters": {"weight": 0.7, "density": [0.3, 0.7], "epsilon": 0.2}},
            {"model": "three", "parameters": {"weight": 0.4}},
        ],
        **BASED,
    },
    "della_linear": {"merge_method": "della_linear", "models": weighed(0.3, 0.7, density=0.6), **BASED},
    "della_linear, the mean": {
        "merge_method": "della_linear", "models": weighed(0.3, 0.4, density=0.6), "parameters": {"normalize": True},
        **BASED,
    },
    "adapters": {
        "merge_method": "ties",
        "models": [
            {"model": "base+lora", "parameters": {"weight": 0.8, "density": 0.4}},
            {"model": {"model": {"path": "one"}, "lora": {"path": "lora"}}, "parameters": {"weight": 0.5}},
        ],
        **BASED,
    },
    "passthrough": {
        "merge_method": "passthrough",
        "slices": [
            {"sources": [{"model": "one", "layer_range": [0, 2]}]},
            {
                "sources": [
                    {
                        "model": "two", "layer_range": [1, 3],
                        "parameters": {"scale": [{"filter": "o_proj", "value": 0.5}, {"value": 1.0}]},
                    }
                ]
            },
        ],
        "dtype": "float32",
    },
    "modules": {
        "merge_method": "linear",
        "modules": {"default": {"models": weighed([0.1, 0.5], 0.4), "parameters": {"normalize": False}}},
        "dtype": "float32",
    },
    "slerp of slices": {
        "merge_method": "slerp", "base_model": "one",
        "slices": [
            {"sources": [{"model": "one", "layer_range": [0, 2]}, {"model": "two", "layer_range": [1, 3]}]},
            {"sources": [{"model": "one", "layer_range": [2, 3]}, {"model": "two", "layer_range": [0, 1]}]},
        ],
        "parameters": {"t": [0.2, 0.8]}, "dtype": "float32",
    },
}  # fmt: skip
# tokens of models whose vocabularies differ: those of a word level, and those that are added to them
TOKENS = {
    "base": (["<unk>", "a", "b", "c", "d", "e", "f", "g"], []),
    "one": (["<unk>", "g", "f", "e", "d", "c", "b", "a"], ["<|user|>", "<|bot|>"]),
    "two": (["<unk>", "a", "b", "c", "d", "h", "i"], ["<tool>", "<|user|>"]),
}
UNION = {"tokenizer_source": "union", "dtype": "float32"}
CHOSEN = {
    "a": {"source": {"kind": "zero"}, "force": True}, "g": {"source": "one"},
    "<|user|>": {"source": "two", "force": True}, "<|bot|>": {"source": {"kind": "zero"}},
    "<new>": {"source": {"kind": "model_token", "model": "one", "token": "b"}},
    "<newer>": {"source": {"kind": "model_token", "model": "two", "token_id": 2}},
}  # fmt: skip
SPOKEN: dict[str, dict[str, Any]] = {
    "linear": {"merge_method": "linear", "models": weighed(0.2, 0.5), **UNION},
    "linear, with a base": {
        "merge_method": "linear",
        "models": [*weighed(0.2, 0.5), {"model": "base", "parameters": {"weight": 0.3}}], "base_model": "base", **UNION,
    },
    "task_arithmetic": {
        "merge_method": "task_arithmetic", "models": weighed(0.3, 0.7), "base_model": "base", **UNION,
    },
    "slerp": {
        "merge_method": "slerp", "models": [{"model": "one"}, {"model": "two"}], "base_model": "one",
        "parameters": {"t": 0.3}, **UNION,
    },
    "ties, the base's": {
        "merge_method": "ties", "models": weighed(0.3, 0.7, density=0.4), **BASED, "tokenizer_source": "base",
    },
    "task_arithmetic, one's": {
        "merge_method": "task_arithmetic", "models": weighed(0.3, 0.7), **BASED, "tokenizer": {"source": "one"},
    },
    "task_arithmetic, chosen": {
        "merge_method": "task_arithmetic", "models": weighed(0.3, 0.7), **BASED, "tokenizer": {"tokens": CHOSEN},
    },
    "linear, padded": {
        "merge_method": "linear", "models": weighed(0.2, 0.5), "dtype": "float32",
        "tokenizer": {"source": "union", "tokens": CHOSEN, "pad_to_multiple_of": 8},
    },
}  # fmt: skip

# of a tiny BERT with a head, and of a tiny GPT-2, whose matrices are stored transposed and whose head is tied
CONFIGS: dict[str, dict[str, Any]] = {
    "bert": {
        "architectures": ["BertForSequenceClassification"], "model_type": "bert", "hidden_size": WIDTH,
        "intermediate_size": INNER, "num_hidden_layers": LAYERS, "num_attention_heads": 2, "vocab_size": WORDS,
        "max_position_embeddings": 5, "type_vocab_size": 2, "dtype": "float32",
    },
    "gpt2": {
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_embd": WIDTH, "n_inner": INNER,
        "n_layer": LAYERS, "n_head": 2, "vocab_size": WORDS, "n_positions": 5, "tie_word_embeddings": True,
        "dtype": "float32",
    },
}  # fmt: skip
FILTERED = [{"filter": "attn", "value": 0.3}, {"filter": "attention", "value": 0.3}, {"value": [1, 0.1]}]
ELSEWHERE: dict[str, dict[str, Any]] = {
    "linear": {"merge_method": "linear", "models": weighed([0.1, 0.5, 1], FILTERED), "dtype": "float32"},
    "slerp": {
        "merge_method": "slerp", "models": [{"model": "one"}, {"model": "two"}], "base_model": "one",
        "parameters": {"t": [*FILTERED[:2], {"value": [0, 1]}]}, "dtype": "float32",
    },
    "task_arithmetic": {
        "merge_method": "task_arithmetic", "models": weighed(0.3, [0.7, 0.1], 0.4), "parameters": {"lambda": 0.8},
        **BASED,
    },
    "ties": {
        "merge_method": "ties", "models": weighed(0.3, [0.7, 0.1], 0.4, density=0.4), "parameters": {"lambda": 0.8},
        **BASED,
    },
    "dare_linear": DOCUMENTS["dare_linear"],
    "breadcrumbs": DOCUMENTS["breadcrumbs"],
    "model_stock": DOCUMENTS["model_stock"],
    "passthrough": {
        "merge_method": "passthrough",
        "slices": [
            {"sources": [{"model": "one", "layer_range": [0, 2]}]},
            {"sources": [{"model": "two", "layer_range": [1, 3]}]},
        ],
        "dtype": "float32",
    },
}  # fmt: skip


def shapes(words: int = WORDS) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (words, WIDTH)}
    for layer in range(LAYERS):
        at = f"model.layers.{layer}"
        found |= {f"{at}.self_attn.{n}_proj.weight": (WIDTH, WIDTH) for n in "qkvo"}
        found |= {f"{at}.mlp.{n}_proj.weight": (INNER, WIDTH) for n in ("gate", "up")}
        found[f"{at}.mlp.down_proj.weight"] = (WIDTH, INNER)
        found |= {f"{at}.{n}_layernorm.weight": (WIDTH,) for n in ("input", "post_attention")}
    return found | {"model.norm.weight": (WIDTH,), "lm_head.weight": (words, WIDTH)}


def shapes_of(architecture: str) -> dict[str, tuple[int, ...]]:
    def layer_norm(name: str) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (WIDTH,), f"{name}.bias": (WIDTH,)}

    def layer(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
        turned = architecture == "gpt2"
        return {f"{name}.weight": (inputs, outputs) if turned else (outputs, inputs), f"{name}.bias": (outputs,)}

    if architecture == "gpt2":
        found: dict[str, tuple[int, ...]] = {
            "transformer.wte.weight": (WORDS, WIDTH),
            "transformer.wpe.weight": (5, WIDTH),
        }
        for number in range(LAYERS):
            at = f"transformer.h.{number}"
            found |= layer(f"{at}.attn.c_attn", WIDTH, 3 * WIDTH) | layer(f"{at}.attn.c_proj", WIDTH, WIDTH)
            found |= layer(f"{at}.mlp.c_fc", WIDTH, INNER) | layer(f"{at}.mlp.c_proj", INNER, WIDTH)
            found |= layer_norm(f"{at}.ln_1") | layer_norm(f"{at}.ln_2")
        return found | layer_norm("transformer.ln_f")
    found = {
        f"bert.embeddings.{n}_embeddings.weight": (many, WIDTH)
        for n, many in (("word", WORDS), ("position", 5), ("token_type", 2))
    }
    found |= layer_norm("bert.embeddings.LayerNorm")
    for number in range(LAYERS):
        at = f"bert.encoder.layer.{number}"
        for name in ("query", "key", "value"):
            found |= layer(f"{at}.attention.self.{name}", WIDTH, WIDTH)
        found |= layer(f"{at}.attention.output.dense", WIDTH, WIDTH) | layer(f"{at}.intermediate.dense", WIDTH, INNER)
        found |= layer(f"{at}.output.dense", INNER, WIDTH)
        found |= layer_norm(f"{at}.attention.output.LayerNorm") | layer_norm(f"{at}.output.LayerNorm")
    return found | layer("bert.pooler.dense", WIDTH, WIDTH) | layer("classifier", WIDTH, 2)


def weights(
    model: str, words: int = WORDS, every: Mapping[str, tuple[int, ...]] | None = None
) -> dict[str, np.ndarray[Any, Any]]:  # fmt: skip
    """The base's numbers, or those with a fine-tune's changes. every: shapes, by name; else those of the Llama."""
    draw = np.random.default_rng(0)
    every = shapes(words) if every is None else every
    found = {n: draw.standard_normal(s).astype(np.float32) for n, s in every.items()}
    if model != "base":
        change = np.random.default_rng(1 + MODELS.index(model))
        found = {n: (w + 0.1 * change.standard_normal(w.shape)).astype(np.float32) for n, w in found.items()}
    return found


def save(folder: Path) -> None:
    """The four models, as folders."""
    for model in MODELS:
        save_one(folder / model, model, WORDS)
    save_adapter(folder / "lora")


def save_one(folder: Path, model: str, words: int) -> None:
    from safetensors.numpy import save_file

    folder.mkdir(parents=True)
    save_file(weights(model, words), folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": WIDTH,
        "intermediate_size": INNER, "num_hidden_layers": LAYERS, "num_attention_heads": 2,
        "num_key_value_heads": 2, "vocab_size": words, "tie_word_embeddings": False, "dtype": "float32",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))


def save_architecture(folder: Path, architecture: str) -> None:
    """The four models, of another architecture."""
    from safetensors.numpy import save_file

    for model in MODELS:
        (folder / model).mkdir(parents=True)
        tensors = weights(model, every=shapes_of(architecture))
        save_file(tensors, folder / model / "model.safetensors", metadata={"format": "pt"})
        (folder / model / "config.json").write_text(json.dumps(CONFIGS[architecture]))


def save_adapter(folder: Path) -> None:
    """A LoRA of rank 2 on some of the matrices."""
    from safetensors.numpy import save_file

    draw = np.random.default_rng(9)
    tensors = {}
    for name, (rows, columns) in (
        (n, s) for n, s in shapes().items() if n.endswith(("q_proj.weight", "up_proj.weight"))
    ):
        module = f"base_model.model.{name.removesuffix('.weight')}"
        tensors[f"{module}.lora_A.weight"] = draw.standard_normal((2, columns)).astype(np.float32) / 4
        tensors[f"{module}.lora_B.weight"] = draw.standard_normal((rows, 2)).astype(np.float32) / 4
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 3, "target_modules": ["q_proj", "up_proj"], "bias": "none",
              "task_type": "CAUSAL_LM", "base_model_name_or_path": "base"}  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config))


def save_spoken(folder: Path) -> None:
    """The models whose vocabularies differ."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    for model, (tokens, added) in TOKENS.items():
        save_one(folder / model, model, len(tokens) + len(added))
        made = Tokenizer(models.WordLevel({t: i for i, t in enumerate(tokens)}, unk_token="<unk>"))
        made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        made.add_special_tokens(added)
        made.save(str(folder / model / "tokenizer.json"))
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>"}
        (folder / model / "tokenizer_config.json").write_text(json.dumps(settings))


PLACES = ("model", "base_model", "path", "source", "tokenizer_source")  # keys that name a model, where it is one
NAMES = (*MODELS, "lora")


def placed(document: Any, folder: Path) -> Any:
    """The document with the folders of its models."""
    if isinstance(document, str) and "+" in document:
        return "+".join(str(folder / part) for part in document.split("+"))
    if isinstance(document, dict):
        names = {k for k, v in document.items() if k in PLACES and isinstance(v, str) and v in NAMES}
        names -= {"tokenizer_source"} if document.get("tokenizer_source") == "base" else set()
        return {k: str(folder / v) if k in names else placed(v, folder) for k, v in document.items()}
    return [placed(v, folder) for v in document] if isinstance(document, list) else document


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    results, spoken = {}, {}
    with tempfile.TemporaryDirectory() as held:
        merge = theirs(f"{held}/adapted")
        save(Path(held) / "models")
        save_spoken(Path(held) / "spoken")
        for name, document in DOCUMENTS.items():
            results[name] = merged(merge, placed(document, Path(held) / "models"), Path(f"{held}/{len(results)}"))
        for name, document in SPOKEN.items():
            place = Path(f"{held}/spoken-{len(spoken)}")
            tensors = merged(merge, placed(document, Path(held) / "spoken"), place)
            spoken[name] = {"tokens": tokens_of(place), "tensors": tensors}
        elsewhere: dict[str, Any] = {name: {} for name in CONFIGS}
        for architecture, found in elsewhere.items():
            save_architecture(Path(held) / architecture, architecture)
            for name, document in ELSEWHERE.items():
                place = Path(f"{held}/{architecture}-{len(found)}")
                found[name] = joined(merged(merge, placed(document, Path(held) / architecture), place))
    said = {
        "made by": "mergekit 0.1.5, benchmarks/mergekit_reference.py", "results": results, "spoken": spoken,
        "elsewhere": elsewhere,
    }  # fmt: skip
    out.write_text(json.dumps(said, indent=0) + "\n")


def merged(merge: Any, document: dict[str, Any], place: Path) -> dict[str, str]:
    from safetensors.numpy import load_file

    merge(document, str(place))
    tensors = {n: t for file in sorted(place.glob("*.safetensors")) for n, t in load_file(file).items()}
    return {n: base64.b64encode(t.tobytes()).decode() for n, t in sorted(tensors.items())}


def joined(tensors: dict[str, str]) -> dict[str, Any]:
    """How many tensors, and the bytes of all, by their names."""
    every = b"".join(base64.b64decode(tensors[n]) for n in sorted(tensors))
    return {"tensors": len(tensors), "bytes": base64.b64encode(every).decode()}


def tokens_of(place: Path) -> dict[str, int]:
    from transformers import AutoTokenizer

    found = AutoTokenizer.from_pretrained(place).get_vocab()
    return dict(sorted(found.items(), key=lambda one: one[1]))


def theirs(cache: str) -> Any:
    """mergekit's run, with masks that belong to their places. cache: where it writes models with their adapters."""
    import torch
    from mergekit import sparsify
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.merge_methods.generalized_task_arithmetic import GeneralizedTaskArithmeticMerge
    from mergekit.options import MergeOptions

    at: dict[str, Any] = {}
    whole = GeneralizedTaskArithmeticMerge.merge_group

    def uniforms(size: int) -> Any:
        digest = hashlib.sha256(repr((0, at["name"], at["model"])).encode()).digest()
        return torch.from_numpy(
            np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little"))).random(size)
        )

    def drawn(tensor: Any, density: float, rescale_norm: Any = None) -> Any:
        mask = (uniforms(tensor.numel()) < density).view(tensor.shape).to(tensor.dtype)
        at["model"] += 1
        return sparsify.rescaled_masked_tensor(tensor, mask, rescale_norm)

    def pruned(tensor: Any, **parameters: Any) -> Any:
        made = ranked(tensor, **parameters)
        at["model"] += 1
        return made

    def told(self: Any, group: Any, /, **parameters: Any) -> Any:
        at.update(name=group.metadata.name, model=0)
        return whole(self, group, **parameters)

    ranked = sparsify.della_magprune
    sparsify.bernoulli, sparsify.della_magprune = drawn, pruned
    torch.bernoulli = lambda chances: (uniforms(chances.numel()).view(chances.shape) < chances).to(chances.dtype)
    GeneralizedTaskArithmeticMerge.merge_group = told
    options = MergeOptions(quiet=True, write_model_card=False, copy_tokenizer=False, lora_merge_cache=cache)

    def merge(document: dict[str, Any], out: str) -> None:
        run_merge(MergeConfiguration.model_validate(document), out, options=options)

    return merge


if __name__ == "__main__":
    main()
