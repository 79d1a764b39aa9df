"""Which tensor of one model is which of another: the same by other names; and what embeddings of words are called."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from headstart.core import Refused

if TYPE_CHECKING:
    import torch

    from .model_folders import ModelFolder

# the names that input embeddings of words have, and output embeddings with their biases
INPUTS = ("embed_tokens.weight", "word_embeddings.weight", "wte.weight", "embed_in.weight", "shared.weight",
          "tok_embeddings.weight", "word_embedding.weight", "token_embedding.weight", "tokens_embed.weight",
          "embeddings.weight")  # fmt: skip
OUTPUTS = ("lm_head.weight", "lm_head.bias", "lm_head.decoder.weight", "lm_head.decoder.bias", "embed_out.weight",
           "predictions.decoder.weight", "predictions.decoder.bias", "predictions.bias", "vocab_projector.weight",
           "vocab_projector.bias", "generator_lm_head.weight", "generator_lm_head.bias", "lm_loss.weight",
           "lm_loss.bias", "pred_layer.proj.weight", "pred_layer.proj.bias", "final_logits_bias")  # fmt: skip
ALONE = frozenset({"output.weight", "decoder.weight", "decoder.bias"})  # output embeddings where this is all the name
_INPUTS = tuple(f".{name}" for name in INPUTS)
_WORDS = (*_INPUTS, *(f".{name}" for name in OUTPUTS))


def names_in(folder: ModelFolder, donor: ModelFolder) -> dict[str, str]:
    """Name in the donor -> name in the folder, for all tensors that both have.

    A model may be stored alone or inside a bigger one (`bert.encoder…`): of all ways to add or take away a first part
    of the names, the one counts by which most tensors fit. Output embeddings that are not stored are the input
    embedding.
    """
    theirs = {modern(n): n for n in folder.tensors}
    wanted = {modern(n): n for n in donor.tensors}
    firsts = sorted({n.split(".")[0] for n in theirs if "." in n})
    others = sorted({n.split(".")[0] for n in wanted if "." in n})
    shifts = [("", ""), *((f"{p}.", "") for p in firsts), *(("", f"{p}.") for p in others)]
    best: dict[str, str] = {}
    for cut, put in shifts:
        found = {}
        for name, real in theirs.items():
            moved = put + name[len(cut) :] if name.startswith(cut) else name
            target = moved if moved in wanted else name  # a head stays where it is
            if target in wanted:
                found[wanted[target]] = real
        if len(found) > len(best):
            best = found
    for name in donor.tensors:
        if is_output(name) and name not in best and folder.tied:
            tied = [real for real in folder.tensors if is_input(real)]
            if len(tied) == 1 and folder.tensors[tied[0]].shape[1:] == donor.tensors[name].shape[1:]:
                best[name] = tied[0]
    return best


def modern(name: str) -> str:
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def names_in_module(module: torch.nn.Module, donor: ModelFolder) -> dict[str, str]:
    """Name in the donor -> name in a module of transformers, which may call its layers otherwise than the files do.

    Raises `Refused` where a parameter of the module has no tensor of its own among the donor's, as where transformers
    puts several into one.
    """
    given = as_loaded(module, donor.tensors)
    asked: Any = SimpleNamespace(tensors={given[n]: e for n, e in donor.tensors.items()})
    held = module.state_dict()
    theirs = names_in(cast("ModelFolder", SimpleNamespace(tensors=held, tied=False)), asked)
    found = {n: theirs[given[n]] for n in donor.tensors if given[n] in theirs}
    there = {held[n].data_ptr() for n in found.values()}  # tied ones lie in the same place
    lost = [n for n, p in module.named_parameters() if p.numel() and p.data_ptr() not in there]
    if lost:
        raise Refused(
            f"transformers makes `{lost[0]}` of other tensors than one of the model's",
            where=f"model `{donor.where}`",
            fix="merge with a method that reads no rows",
        )
    return found


def as_loaded(module: torch.nn.Module, names: Iterable[str]) -> dict[str, str]:
    """Each name of a tensor in files -> the name under which transformers loads it into this module of its own.

    Since version 5 it calls the layers of some models, as of ViT, otherwise than the files, also those that it writes.
    What it puts together with others, or takes apart, keeps its name.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    known = get_model_conversion_mapping(module)
    renamings = [one for one in known if isinstance(one, WeightRenaming)]
    converters = [one for one in known if isinstance(one, WeightConverter)]
    found = {}
    for name in sorted(names):  # in order: some renamings begin with the first name that they fit
        renamed, converted = rename_source_key(name, renamings, converters)
        found[name] = name if converted is not None else renamed
    return found


def of_words(name: str) -> bool:
    """Whether a tensor is called like an embedding of words, or what gives their logits.

    >>> of_words("bert.embeddings.word_embeddings.weight"), of_words("attention.output.weight")
    (True, False)
    """
    return f".{name}".endswith(_WORDS) or name in ALONE


def is_output(name: str) -> bool:
    """Whether a tensor is an output embedding, which is not stored where it is the input embedding."""
    return name in ALONE - {"decoder.bias"} or (of_words(name) and name.endswith("weight") and not is_input(name))


def is_input(name: str) -> bool:
    return f".{name}".endswith(_INPUTS)
