"""What peft and headstart make of LoRA adapters when they merge them: how far off the result is.

    python benchmarks/adapter_defects.py

A tiny BERT with a head and adapters of random numbers. The error is the largest difference of the logits between the
merged adapter and what it should be, over the largest difference that the adapter makes to its base; in percent. One
adapter at weight 1 should stay what it is; two at 0.5 should change what the mean of their changes does.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
ALONE: dict[str, dict[str, Any]] = {
    "plain": {},
    "rsLoRA": {"use_rslora": True, "lora_alpha": 5},
    "DoRA": {"use_dora": True},
    "biases of the adapter": {"lora_bias": True},
    "a head that is kept whole": {"modules_to_save": ["classifier"]},
}


def main() -> None:
    from tiny_models import save_model

    warnings.simplefilter("ignore")
    print("| adapters | error of peft, % | error of headstart, % |\n| --- | --- | --- |")
    with tempfile.TemporaryDirectory() as held:
        folder = Path(held)
        base = save_model(folder / "base", "bert", head=True)
        for name, settings in ALONE.items():
            one = adapter(base, folder / name, **settings)
            ours = by_ours(base, [one], folder / f"{name}-out")
            print(f"| one, {name} | {by_peft(base, [one]):.0f} | {ours:.1g} |", flush=True)
        two = [adapter(base, folder / f"two-{s}", s) for s in range(2)]
        print(f"| two, plain | {by_peft(base, two):.0f} | {by_ours(base, two, folder / 'two-out'):.1g} |")
        print(f"| merged again under the same name | {again(base, two):.0f} | – |")


def adapter(base: Path, where: Path, seed: int = 0, **settings: Any) -> Path:
    """A LoRA of random numbers, and with modules that are kept whole those too, as peft saves it."""
    import peft
    import torch
    from transformers import AutoModelForSequenceClassification

    given = {"r": 3, "lora_alpha": 6, "target_modules": ["query", "value"], **settings}
    model = AutoModelForSequenceClassification.from_pretrained(base, local_files_only=True)
    wrapped = peft.get_peft_model(model, peft.LoraConfig(**given))
    generator = torch.Generator().manual_seed(seed)
    for value in wrapped.parameters():
        if value.requires_grad:
            value.data = value.data + 0.3 * torch.randn(value.shape, generator=generator)
    wrapped.save_pretrained(where)
    return where


def loaded(base: Path, adapters: list[Path]) -> Any:
    import peft
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(base, local_files_only=True)
    wrapped = peft.PeftModel.from_pretrained(model, adapters[0], adapter_name="0")
    for number, other in enumerate(adapters[1:], 1):
        wrapped.load_adapter(other, adapter_name=str(number))
    return wrapped.eval()


def logits(model: Any, base: Path) -> Any:
    import torch
    from transformers import AutoTokenizer

    texts = ["the cat sat on the mat", "a big red house", "it was old and new"]
    with torch.inference_mode():
        return model(**AutoTokenizer.from_pretrained(base)(texts, return_tensors="pt", padding=True)).logits


def wanted(base: Path, adapters: list[Path]) -> tuple[Any, Any]:
    """Logits with the mean of the adapters' changes in the weights, and with none."""
    from transformers import AutoModelForSequenceClassification

    plain = AutoModelForSequenceClassification.from_pretrained(base, local_files_only=True).eval()
    if len(adapters) == 1:
        return logits(loaded(base, adapters), base), logits(plain, base)
    none = logits(plain, base)
    tuned = [loaded(base, [a]).merge_and_unload().state_dict() for a in adapters]
    own = {n: w.clone() for n, w in plain.state_dict().items()}
    mean = {n: w + sum(t[n] - w for t in tuned) / len(tuned) for n, w in own.items() if w.is_floating_point()}
    plain.load_state_dict({**own, **mean})
    return logits(plain, base), none


def error(found: Any, base: Path, adapters: list[Path]) -> float:
    right, none = wanted(base, adapters)
    return 100 * float((found - right).abs().max() / (right - none).abs().max())


def by_peft(base: Path, adapters: list[Path]) -> float:
    model = loaded(base, adapters)
    names = [str(i) for i in range(len(adapters))]
    model.add_weighted_adapter(names, [1 / len(names)] * len(names), "merged", combination_type="linear")
    model.set_adapter("merged")
    return error(logits(model, base), base, adapters)


def by_ours(base: Path, adapters: list[Path], out: Path) -> float:
    from headstart.combination.adapters import merge_adapters

    made = merge_adapters(adapters, weights=[1 / len(adapters)] * len(adapters), out=out)
    return error(logits(loaded(base, [made]), base), base, adapters)


def again(base: Path, adapters: list[Path]) -> float:
    """The first adapter is merged as `merged`, and then the second under the same name, which should be there now."""
    model = loaded(base, adapters)
    for name in ("0", "1"):
        model.add_weighted_adapter([name], [1.0], "merged", combination_type="linear")
    model.set_adapter("merged")
    return error(logits(model, base), base, adapters[1:])


if __name__ == "__main__":
    main()
