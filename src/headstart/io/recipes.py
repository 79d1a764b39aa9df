"""What the files of a model folder say about how to run it: read, never guessed, and without torch.

The rules where files are silent. Text: a folder of sentence-transformers brings its own pooling; a plain checkpoint is
pooled by the mean over its tokens, or by its first token (`cls`) where a classification head is stored, because it was
the first token that the head was trained on. Images: the first token after the last norm for plain vision
transformers, the model's own pooled output for all others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from headstart.core import Modality, Refused, Unreadable

from .safe_files import inside, read_any_json, read_json
from .safetensors_files import Entry, entries, weight_files

Link = Literal["softmax", "sigmoid", "identity"]
# model types that `AutoModel` loads as an encoder of text, and the prefix of its tensors inside a bigger model
TEXT = {
    "albert": "albert", "bert": "bert", "big_bird": "bert", "camembert": "roberta", "convbert": "convbert",
    "data2vec-text": "data2vec_text", "deberta": "deberta", "deberta-v2": "deberta", "distilbert": "distilbert",
    "electra": "electra", "ernie": "ernie", "fnet": "fnet", "longformer": "longformer",
    "megatron-bert": "bert", "mobilebert": "mobilebert", "modernbert": "model", "mpnet": "mpnet",
    "nystromformer": "nystromformer", "rembert": "rembert", "roberta": "roberta",
    "roberta-prelayernorm": "roberta_prelayernorm", "roformer": "roformer", "xlm-roberta": "roberta",
    "xlm-roberta-xl": "roberta",
}  # fmt: skip
# positions of these begin after the padding index, so that many fewer tokens fit
POSITIONS_AFTER_PADDING = frozenset({
    "camembert", "data2vec-text", "longformer", "mpnet", "roberta", "roberta-prelayernorm", "xlm-roberta",
    "xlm-roberta-xl",
})  # fmt: skip
# what these say of a row depends on the padding beside it: they have no mask, or convolve over tokens without it
SEES_PADDING = frozenset({"big_bird", "convbert", "fnet", "mobilebert", "nystromformer"})
# model types of images: prefix, and how one row of features comes out of them
IMAGE = {
    "beit": ("beit", "pooler"), "bit": ("bit", "pooler"), "convnext": ("convnext", "pooler"),
    "convnextv2": ("convnextv2", "pooler"), "deit": ("deit", "cls"),
    "dinov2": ("dinov2", "cls"), "dinov2_with_registers": ("dinov2_with_registers", "cls"),
    "efficientnet": ("efficientnet", "pooler"), "focalnet": ("focalnet", "pooler"),
    "mobilenet_v1": ("mobilenet_v1", "pooler"), "mobilenet_v2": ("mobilenet_v2", "pooler"),
    "mobilevit": ("mobilevit", "pooler"), "regnet": ("regnet", "pooler"), "resnet": ("resnet", "pooler"),
    "swin": ("swin", "pooler"), "swinv2": ("swinv2", "pooler"), "vit": ("vit", "cls"), "vit_msn": ("vit", "cls"),
}  # fmt: skip
# tokens before those of the patches, of those that have some: the first stands for the image; one of DeiT's learns from
# a teacher, and registers are added to them
TOKENS_BEFORE = {"beit": 1, "deit": 2, "dinov2": 1, "dinov2_with_registers": 1, "vit": 1, "vit_msn": 1}
TOKENIZERS = (
    "tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model", "spm.model", "bpe.codes",
)  # fmt: skip
# names of sentence-transformers' pooling settings, old and new, in the order in which several are joined
POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
ACTIVATIONS = ("Identity", "Tanh", "ReLU", "GELU", "Sigmoid", "SiLU", "LeakyReLU", "ELU")
LINKS: dict[str, Link] = {
    "single_label_classification": "softmax",
    "multi_label_classification": "sigmoid",
    "regression": "identity",
}


@dataclass(frozen=True, slots=True)
class After:
    """A step on pooled features: `dense` (folder, widths, activation, bias) or `normalise`."""

    kind: str
    folder: Path | None = None
    inputs: int = 0
    outputs: int = 0
    bias: bool = True
    activation: str = "Identity"


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredHead:
    """A classification head in the checkpoint: its outputs by name, and what makes predictions of its logits."""

    labels: tuple[str, ...]
    link: Link


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How to run one encoder. where: the folder named; model: the folder of its configuration and weights.

    head: of whole rows; word_head: of each word, which has one where the other is None.
    """

    where: Path
    model: Path
    kind: str
    modality: Modality
    model_type: str
    prefix: str
    architecture: str
    config: Mapping[str, Any]
    entries: tuple[Entry, ...]
    width: int
    pooling: tuple[str, ...]
    after: tuple[After, ...] = ()
    max_length: int | None = None
    lower: bool = False
    prompt: str = ""
    pool_prompt: bool = True
    head: StoredHead | None = None
    word_head: StoredHead | None = None
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    layer: int | None = None  # whose output is pooled, 0 the embeddings; None for the last with all that follows it

    @property
    def tokens_before(self) -> int:
        """How many tokens of an image's model stand for no patch of it."""
        registers = self.config.get("num_register_tokens", 4)
        own = TOKENS_BEFORE.get(self.model_type, 0)
        return own + (registers if self.model_type == "dinov2_with_registers" and isinstance(registers, int) else 0)

    @property
    def normalise(self) -> bool:
        return any(a.kind == "normalise" for a in self.after)


def read(where: Path) -> Recipe:
    """The recipe of a transformers or sentence-transformers folder.

    Raises `Unreadable` for files that are missing, damaged or unsafe, and `Refused` for models that are not read yet.
    """
    if (where / "modules.json").exists():
        return _sentence_transformer(where)
    return _checkpoint(where, where)


def _checkpoint(where: Path, model: Path, **stated: Any) -> Recipe:
    config = read_json(model, "config.json", root=where)
    if not config:
        raise Unreadable(
            "`config.json` is empty" if (model / "config.json").exists() else "there is no `config.json`",
            where=f"source `{where}`",
            fix="copy the whole folder that `save_pretrained` wrote, with its configuration and tokenizer or processor",
        )
    model_type, architecture = str(config.get("model_type", "")), _architecture(config)
    for name in ("config.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json"):
        if "auto_map" in read_json(model, name, root=where):
            raise Refused(
                f"`{name}` names code of its own (`auto_map`), and such code is never run",
                where=f"source `{where}`",
                fix="use a model of an architecture that transformers has built in",
            )
    _refuse_decoders(config, model_type, architecture, where)
    if model_type in IMAGE:
        return _image(where, model, config, model_type, architecture)
    if model_type in TEXT:
        return _text(where, model, config, model_type, architecture, **stated)
    raise Refused(
        f"models of type `{model_type or '?'}` are not read yet",
        where=f"source `{where}`",
        fix="use an encoder such as bert, roberta, mpnet or deberta-v2 for text, vit, resnet or convnext for images",
    )


def _refuse_decoders(config: Mapping[str, Any], model_type: str, architecture: str, where: Path) -> None:
    if config.get("is_encoder_decoder"):
        what = f"`{architecture or model_type}` is an encoder-decoder model"
    elif config.get("is_decoder") or re.search(r"(ForCausalLM|LMHeadModel|ForConditionalGeneration)$", architecture):
        what = f"`{architecture or model_type}` is a decoder that generates text"
    else:
        return
    raise Refused(
        f"{what}, and only encoders are read for now",
        where=f"source `{where}`",
        fix="use an encoder, such as a bert- or roberta-type model or a sentence-transformers folder",
    )


def _text(
    where: Path, model: Path, config: Mapping[str, Any], model_type: str, architecture: str, **stated: Any
) -> Recipe:
    if not any((model / name).exists() for name in TOKENIZERS):
        raise Unreadable(
            "there is no tokenizer in the folder",
            where=f"source `{where}`",
            fix="copy `tokenizer.json` and `tokenizer_config.json` of the model into the folder",
        )
    if model_type == "nystromformer" and config.get("num_landmarks") != config.get("segment_means_seq_len"):
        raise Refused(
            "its attention takes the mean of segments of rows of one length, and says more of a row by those beside it",
            where=f"source `{where}`",
            fix="use one whose `num_landmarks` is its `segment_means_seq_len`, or another encoder",
        )
    found = entries(weight_files(model, root=where))
    head = _stored_head(config, architecture, "ForSequenceClassification", found, TEXT[model_type])
    tokenizer = read_json(model, "tokenizer_config.json", root=where)
    settings: dict[str, Any] = {
        "where": where, "kind": "checkpoint", "pooling": _own_pooling(config, head), "head": head,
        "word_head": _word_head(config, architecture, found, TEXT[model_type]),
        "width": _number(config, where, "hidden_size", "dim", "d_model"),
        "max_length": _room(config, tokenizer, model_type, stated.pop("longest", None)),
    }  # fmt: skip
    settings |= stated
    return Recipe(
        model=model,
        modality="text",
        model_type=model_type,
        prefix=TEXT[model_type],
        architecture=architecture,
        config=config,
        entries=tuple(found),
        preprocessing={"tokenizer": str(tokenizer.get("tokenizer_class", "")), "lower": settings.get("lower", False)},
        **settings,
    )


def _image(where: Path, model: Path, config: Mapping[str, Any], model_type: str, architecture: str) -> Recipe:
    processor = read_json(model, "preprocessor_config.json", root=where)
    if not processor:
        raise Unreadable(
            "there is no `preprocessor_config.json`, so how its images were prepared is unknown",
            where=f"source `{where}`",
            fix="copy `preprocessor_config.json` of the model into the folder",
        )
    prefix, pooling = IMAGE[model_type]
    found = entries(weight_files(model, root=where))
    shown = ("size", "crop_size", "do_center_crop", "resample", "do_normalize", "image_mean", "image_std")
    return Recipe(
        where=where,
        model=model,
        kind="checkpoint",
        modality="image",
        model_type=model_type,
        prefix=prefix,
        architecture=architecture,
        config=config,
        entries=tuple(found),
        width=_image_width(config, found, model_type, where),
        pooling=(pooling,),
        head=_stored_head(config, architecture, "ForImageClassification", found, prefix),
        preprocessing={"backend": "pil", **{k: processor[k] for k in shown if k in processor}},
    )


def _image_width(config: Mapping[str, Any], found: list[Entry], model_type: str, where: Path) -> int:
    if model_type in ("swin", "swinv2", "focalnet"):
        return int(config["embed_dim"] * 2 ** (len(config["depths"]) - 1))
    if model_type == "mobilevit":
        return int(config["neck_hidden_sizes"][-1])
    if model_type in ("mobilenet_v1", "mobilenet_v2"):
        return max((e.shape[0] for e in found if len(e.shape) == 4), default=0)
    if model_type == "efficientnet":
        return _number(config, where, "hidden_dim")
    if isinstance(config.get("hidden_sizes"), list) and config["hidden_sizes"]:
        return int(config["hidden_sizes"][-1])
    return _number(config, where, "hidden_size")


def _sentence_transformer(where: Path) -> Recipe:
    modules = read_any_json(where, "modules.json")
    if not isinstance(modules, list) or not modules or not all(isinstance(m, dict) for m in modules):
        raise Unreadable("`modules.json` lists no modules", where=f"source `{where}`", fix="copy the folder again")
    kinds, folders = [], []
    for module in modules:
        kind, path = str(module.get("type", "")), str(module.get("path", ""))
        if not kind.startswith("sentence_transformers."):
            raise Refused(
                f"`modules.json` names code of its own (`{kind}`), and such code is never run",
                where=f"source `{where}`",
                fix="use a model made of sentence-transformers' own modules",
            )
        kinds.append(kind.rpartition(".")[2])
        folders.append(inside(where, path, root=where))
    if kinds[:2] != ["Transformer", "Pooling"]:
        raise Refused(
            f"sentence-transformers modules {' → '.join(kinds)} are not read yet",
            where=f"source `{where}`",
            fix="use a model that begins with Transformer and Pooling",
        )
    return _checkpoint(where, folders[0], **_stated(where, kinds, folders))


def _stated(where: Path, kinds: list[str], folders: list[Path]) -> dict[str, Any]:
    settings = read_json(folders[0], "sentence_bert_config.json", root=where)
    if settings.get("transformer_task", "feature-extraction") != "feature-extraction":
        raise Refused(
            f"the task `{settings['transformer_task']}` of `sentence_bert_config.json` is not read yet",
            where=f"source `{where}`",
            fix="use a model for features",
        )
    model = read_json(where, "config_sentence_transformers.json", root=where)
    prompts, named = model.get("prompts") or {}, model.get("default_prompt_name")
    pooling = read_json(folders[1], "config.json", root=where)
    modes = _modes(pooling, where)
    config = read_json(folders[0], "config.json", root=where)
    width = _number(config, where, "hidden_size", "dim", "d_model") * len(modes)
    after = []
    for kind, folder in zip(kinds[2:], folders[2:], strict=True):
        step = _step(kind, folder, where, width)
        if step is not None:
            after.append(step)
            width = step.outputs or width
    return {
        "kind": "sentence_transformer",
        "pooling": modes,
        "pool_prompt": bool(pooling.get("include_prompt", True)),
        "prompt": str(prompts.get(named) or "") if named else "",
        "after": tuple(after),
        "width": width,
        "lower": bool(settings.get("do_lower_case", False)),
        "longest": settings.get("max_seq_length"),
        "head": None,
        "word_head": None,
    }


def _modes(pooling: Mapping[str, Any], where: Path) -> tuple[str, ...]:
    named = pooling.get("pooling_mode")
    if named is None:
        named = [mode for key, mode in POOLINGS.items() if pooling.get(key)] or ["mean"]
    modes = (named,) if isinstance(named, str) else tuple(str(n) for n in named)
    unknown = [m for m in modes if m not in POOLINGS.values()]
    if unknown or not modes:
        raise Refused(
            f"the pooling `{unknown[0] if unknown else ''}` is not read yet",
            where=f"source `{where}`",
            fix=f"use one of {', '.join(POOLINGS.values())}",
        )
    return modes


def _step(kind: str, folder: Path, where: Path, width: int) -> After | None:
    if kind == "Dropout":
        return None
    if kind == "Normalize":
        return After("normalise")
    config = read_json(folder, "config.json", root=where)
    named = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    activation = named.rpartition(".")[2]
    plain = config.get("module_input_name", "sentence_embedding") == "sentence_embedding"
    plain = plain and config.get("module_output_name", "sentence_embedding") in (None, "sentence_embedding")
    plain = plain and not config.get("use_residual") and named.startswith("torch.nn.") and activation in ACTIVATIONS
    if kind != "Dense" or not plain:
        raise Refused(
            f"the sentence-transformers module `{kind}` ({activation}) is not read yet",
            where=f"source `{where}`",
            fix="use a model of Transformer, Pooling, Dense and Normalize modules",
        )
    inputs, outputs = _number(config, where, "in_features"), _number(config, where, "out_features")
    if inputs != width:
        raise Unreadable(
            f"a Dense module takes {inputs} features, and {width} reach it",
            where=f"source `{where}`",
            fix="copy the folder again from its origin",
        )
    weight_files(folder, root=where)
    return After("dense", folder, inputs, outputs, bool(config.get("bias", True)), activation)


def _own_pooling(config: Mapping[str, Any], head: StoredHead | None) -> tuple[str, ...]:
    if head is None:
        return ("mean",)
    return ("mean",) if config.get("classifier_pooling") == "mean" else ("cls",)


def _room(config: Mapping[str, Any], tokenizer: Mapping[str, Any], model_type: str, longest: Any) -> int:
    """Tokens that fit: what the folder states, never above the positions that the model has; 512 if nothing says."""
    limits = [int(longest)] if isinstance(longest, (int, float)) and longest > 0 else []
    stated = tokenizer.get("model_max_length")
    if not limits and isinstance(stated, (int, float)) and 0 < stated < 10**6:
        limits.append(int(stated))
    positions = config.get("max_position_embeddings")
    if isinstance(positions, int) and positions > 0:
        padding = config.get("pad_token_id")
        used = (padding if isinstance(padding, int) else 1) + 1 if model_type in POSITIONS_AFTER_PADDING else 0
        limits.append(max(positions - used, 1))
    return min(limits, default=512)


def _stored_head(
    config: Mapping[str, Any], architecture: str, ending: str, found: list[Entry], prefix: str
) -> StoredHead | None:
    labels = config.get("id2label")
    count = len(labels) if isinstance(labels, dict) else int(config.get("num_labels") or 2)
    outside = [e for e in found if not e.name.startswith(f"{prefix}.") and len(e.shape) == 2 and e.shape[0] == count]
    if not architecture.endswith(ending) or not outside:
        return None
    names = [str(labels.get(str(i), i)) if isinstance(labels, dict) else f"LABEL_{i}" for i in range(count)]
    return StoredHead(labels=tuple(names), link=link_of(config, count))


def link_of(config: Mapping[str, Any], outputs: int) -> Link:
    """What makes predictions of the logits of a head of whole rows."""
    return LINKS.get(str(config.get("problem_type")), "identity" if outputs == 1 else "softmax")


def _word_head(config: Mapping[str, Any], architecture: str, found: list[Entry], prefix: str) -> StoredHead | None:
    """Of a tagger, whose words have one class each whatever its configuration says of problems of whole rows."""
    head = _stored_head(config, architecture, "ForTokenClassification", found, prefix)
    return head and replace(head, link="softmax")


def _architecture(config: Mapping[str, Any]) -> str:
    named = config.get("architectures")
    return str(named[0]) if isinstance(named, list) and named else ""


def _number(config: Mapping[str, Any], where: Path, *names: str) -> int:
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    raise Unreadable(
        f"the configuration has no `{names[0]}`", where=f"source `{where}`", fix="copy the folder again from its origin"
    )
