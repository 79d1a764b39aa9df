"""LoRA: low-rank changes of the linear layers.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022; the head starts as a probe, after
Tomihari and Sato, "Understanding Linear Probing then Fine-tuning Language Models from NTK Perspective", NeurIPS 2024.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model

from headstart.core import Fitted, FitView, Needs, Refused, State, Steps, Unfit
from headstart.execution import fit
from headstart.numerics.artifacts import Delta, Head
from headstart.numerics.linear import STRENGTHS, chosen


@dataclass(frozen=True, kw_only=True, slots=True)
class Lora:
    """Train low-rank changes of all linear layers and the head, which starts as a linear probe; the rest stays.

    W + (alpha / rank) B A with B = 0 at first, so that the first features are those of the source. The probe is
    regularised more than is best for a probe (`ease`), as one that fits its rows leaves no gradient to learn from.

    Shapes: A (rank, in) and B (out, rank) for each layer; the optimiser holds 2 copies of these alone, and the
    activations are those of full fine-tuning.
    Returns: a `Delta` of form `lora` in peft's own names and configuration, and the head. Its base is the encoder's
    `fingerprint`, or empty where the encoder does not know one: whoever saves it then knows the source.
    Errors: `Refused` when the encoder names no linear layer, `Unfit` when a setting is out of its range, or `state`
    belongs to another schedule.

    For small results on a large source. Learning rates are about ten times those of full fine-tuning.
    """

    needs = Needs(gives=("features", "gradients", "weights"), tasks=("single_label", "multi_label", "regression"))
    claims = ("resumes", "learns_separable", "zero_steps_is_the_probe", "merged_is_the_same")
    cites = "arXiv:2106.09685"

    rank: int = 8
    # the change is scaled by alpha / rank
    alpha: float = 16.0
    learning_rate: float = 5e-4
    # times learning_rate; the head is a probe already
    head_rate: float = 0.1
    # of matrices only
    weight_decay: float = 0.01
    # passes over the rows, where the caller gives no horizon; never fewer than 60 steps
    epochs: int = 6
    batch_rows: int = 16
    # of the probe, as in `linear_probe`
    strengths: tuple[float, ...] = STRENGTHS
    # training starts from a probe with this fraction of the best strength; 1 is the probe itself
    ease: float = 0.03

    def __post_init__(self) -> None:
        if not 0 < self.ease <= 1:
            raise Unfit(
                f"ease is {self.ease}, and must lie above 0 and not above 1",
                where="Lora(ease=…)",
                fix="use 0.03, the default, or 1 to start from the best probe",
            )
        if not (
            self.rank > 0 and self.alpha > 0 and self.learning_rate > 0 and self.epochs > 0 and self.batch_rows > 0
        ):
            raise Unfit(
                f"rank {self.rank}, alpha {self.alpha}, learning_rate {self.learning_rate}, epochs {self.epochs}, "
                f"batch_rows {self.batch_rows}: all must be above 0",
                where="Lora(…)",
                fix="use the defaults: 8, 16, 5e-4, 6 and 16",
            )

    def __call__(self, view: FitView, state: State | None, steps: Steps) -> Fitted:
        encoder, link = view.encoder, fit.LINKS[view.task]
        if not encoder.linear_layers:
            raise Refused(
                "the source has no linear layer that a low-rank change can go to",
                where="`lora`",
                fix="use `lp_ft` or `full_finetune`, which train the weights themselves",
            )
        config = LoraConfig(r=self.rank, lora_alpha=self.alpha, target_modules=sorted(encoder.linear_layers))
        with torch.random.fork_rng():
            torch.manual_seed(view.seed)  # peft draws A from the global generator
            inject_adapter_in_model(config, encoder.module.requires_grad_(False))

        def probe(features: Any, labels: Any, ids: Sequence[str]) -> Head:
            return chosen(features, labels, view.classes, ids, link, self.strengths, self.ease).head

        recipe = fit.Recipe(
            learning_rate=self.learning_rate,
            layer_decay=1.0,
            head_rate=self.head_rate,
            weight_decay=self.weight_decay,
            epochs=self.epochs,
            batch_rows=self.batch_rows,
        )
        done = fit.train(encoder, view, probe, recipe, state, steps)
        found = get_peft_model_state_dict(encoder.module)
        tensors = {f"base_model.model.{n}": t.detach().cpu().clone() for n, t in found.items()}
        delta = Delta(getattr(encoder, "fingerprint", ""), "lora", tensors, _plain(config), done.head)
        return Fitted(delta, done.predictions, done.state, done.curve, done.fraction, facts=done.facts)


def _plain(config: LoraConfig) -> dict[str, Any]:
    """The configuration as the JSON values that peft writes to `adapter_config.json`."""

    def value(v: Any) -> Any:
        return sorted(v) if isinstance(v, set) else str(v)

    return json.loads(json.dumps(config.to_dict(), default=value))  # type: ignore[no-any-return]  # a dict goes in
