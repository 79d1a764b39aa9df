"""Recipes: mergekit's documents give what mergekit gives, our own say what they mean, and slips are answered."""

from __future__ import annotations

import base64
import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from headstart.combination import recipes
from headstart.combination.mergekit.methods import SPECS
from headstart.combination.mergekit.parameters import evaluated
from headstart.combination.merging import merge, merge_recipe, planned_recipe
from headstart.combination.recipes import Conditional, parsed
from headstart.core import Problem, Refused, Unfit, Unreadable

ROOT = Path(__file__).parents[2]
HELD = json.loads((ROOT / "tests" / "data" / "mergekit.json").read_text())
REFERENCE, SPOKEN, ELSEWHERE = HELD["results"], HELD["spoken"], HELD["elsewhere"]
SCHEMA = ROOT / "docs" / "schemas" / "merge-recipe.json"


@pytest.fixture(scope="module")
def reference() -> Iterator[Any]:
    """The benchmark's file that made the reference: its documents and its models."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield importlib.import_module("mergekit_reference")
    sys.path.remove(str(ROOT / "benchmarks"))


@pytest.fixture(scope="module")
def shelf(reference: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llamas")
    reference.save(folder)
    return folder


@pytest.fixture(scope="module")
def spoken(reference: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models whose vocabularies differ."""
    folder = tmp_path_factory.mktemp("spoken")
    reference.save_spoken(folder)
    return folder


@pytest.fixture(scope="module")
def others(reference: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shelf for each other architecture."""
    folder = tmp_path_factory.mktemp("others")
    for architecture in ELSEWHERE:
        reference.save_architecture(folder / architecture, architecture)
    return folder


def write(shelf: Path, document: Any, name: str = "recipe.yaml") -> Path:
    path = shelf / name
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return path


@pytest.mark.parametrize("name", list(REFERENCE))
def test_a_document_of_mergekit_gives_what_mergekit_gives(
    name: str, reference: Any, shelf: Path, tmp_path: Path
) -> None:
    """Within one rounding of float32 numbers near 1; trims are equal to the bit."""
    made = merge_recipe(write(shelf, reference.DOCUMENTS[name]), out=tmp_path / "out")
    ours = load_file(made.where / "model.safetensors")
    assert set(ours) == set(REFERENCE[name])
    for tensor, held in REFERENCE[name].items():
        theirs = np.frombuffer(base64.b64decode(held), np.float32).reshape(ours[tensor].shape)
        if name.startswith(("ties", "breadcrumbs", "passthrough", "arcee_fusion")):
            assert np.array_equal(ours[tensor], theirs)
        else:
            # rows whose changes point apart are sent far out: float32 angles, theirs, are off by more there
            loose = 2e-5 if name == "model_stock, by rows" else 5e-7
            np.testing.assert_allclose(ours[tensor], theirs, atol=loose, rtol=0)


EXACT = ("ties", "breadcrumbs", "passthrough")


@pytest.mark.parametrize(("architecture", "name"), [(a, n) for a, found in ELSEWHERE.items() for n in found])
def test_so_it_does_with_other_architectures(
    architecture: str, name: str, reference: Any, others: Path, tmp_path: Path
) -> None:
    made = merge_recipe(write(others / architecture, reference.ELSEWHERE[name]), out=tmp_path / "out")
    ours, held = load_file(made.where / "model.safetensors"), ELSEWHERE[architecture][name]
    assert len(ours) == held["tensors"]
    found = np.concatenate([ours[n].ravel() for n in sorted(ours)])
    theirs = np.frombuffer(base64.b64decode(held["bytes"]), np.float32)
    loose = 1e-6 if name == "model_stock" else 5e-7  # whose angles are float32 there
    np.testing.assert_allclose(found, theirs, atol=0 if name in EXACT else loose, rtol=0)


@pytest.mark.parametrize("name", list(SPOKEN))
def test_vocabularies_become_what_mergekit_makes_of_them(
    name: str, reference: Any, spoken: Path, tmp_path: Path
) -> None:
    """Rows are compared by token, for ids follow the order of models, which is chance there without a base_model."""
    from transformers import AutoTokenizer

    made = merge_recipe(write(spoken, reference.SPOKEN[name]), out=tmp_path / "out")
    ours = load_file(made.where / "model.safetensors")
    tokens = AutoTokenizer.from_pretrained(made.where, local_files_only=True).get_vocab()
    wanted = SPOKEN[name]["tokens"]
    assert set(tokens) == set(wanted)
    ids, theirs_at = [tokens[t] for t in wanted], list(wanted.values())
    for tensor, held in SPOKEN[name]["tensors"].items():
        shape = ours[tensor].shape
        theirs = np.frombuffer(base64.b64decode(held), np.float32).reshape(shape)
        if tensor in ("model.embed_tokens.weight", "lm_head.weight"):
            np.testing.assert_allclose(ours[tensor][ids], theirs[theirs_at], atol=5e-7, rtol=0)
            np.testing.assert_allclose(ours[tensor][len(ids) :], theirs[len(ids) :], atol=5e-7, rtol=0)
        else:
            np.testing.assert_allclose(ours[tensor], theirs, atol=5e-7, rtol=0)
    assert json.loads((made.where / "config.json").read_text())["vocab_size"] == len(ours["lm_head.weight"])


def test_rows_that_cannot_be_given_are_named(spoken: Path) -> None:
    linear = {"merge_method": "linear", "models": [{"model": m, "parameters": {"weight": 1}} for m in ("one", "two")]}
    token = {"kind": "model_token", "model": "two"}
    for source, what in (
        ({**token, "token": "g"}, "`two` has no row for `g`"),
        ({**token, "token_id": 99}, "`two` has no row for `99`"),
        ("two", "`two` has no row for `g`"),
        ({"kind": "model_token", "model": "base", "token": "a"}, "`base` is named for its tokens"),
    ):
        with pytest.raises(Problem) as caught:
            planned_recipe(write(spoken, {**linear, "tokenizer": {"tokens": {"g": {"source": source}}}}))
        assert what in str(caught.value)
    with pytest.raises(Refused, match="tokens are of `one` or `two` alone"):
        planned_recipe(write(spoken, linear))


ORCA, PLATYPUS, WIZARD = "psmathur/orca_mini_v3_13b", "garage-bAInd/Platypus2-13B", "WizardLM/WizardMath-13B-V1.0"
LLAMA, MISTRAL, CHAT = "TheBloke/Llama-2-13B-fp16", "mistralai/Mistral-7B-v0.1", "mistralai/Mistral-7B-Instruct-v0.2"
FILES = {"TheBloke": "base", "mistralai": "base", "psmathur": "one", "garage-bAInd": "two", "WizardLM": "three"}
EXAMPLES: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {  # what they say, and of one tensor what comes of it
    "arcee_fusion": (
        {"models": [{"model": "model_a"}, {"model": "model_b"}], "merge_method": "arcee_fusion",
         "base_model": "model_a", "dtype": "bfloat16"},
        "model.norm.weight", {},
    ),
    "bio-merge": (
        {"models": [{"model": m, "parameters": {"density": 0.5, "weight": 0.5}}
                    for m in (CHAT, "BioMistral/BioMistral-7B")],
         "merge_method": "ties", "base_model": MISTRAL, "parameters": {"normalize": False, "int8_mask": True},
         "dtype": "float16"},
        "model.norm.weight", {"density": (0.5, 0.5), "weights": (0.5, 0.5), "average": "sum"},
    ),
    "gradient-slerp": (
        {"slices": [{"sources": [{"model": m, "layer_range": [0, 40]} for m in (ORCA, PLATYPUS)]}],
         "merge_method": "slerp", "base_model": ORCA,
         "parameters": {"t": [{"filter": "self_attn", "value": [0, 0.5, 0.3, 0.7, 1]},
                              {"filter": "mlp", "value": [1, 0.5, 0.7, 0.3, 0]}, {"value": 0.5}]},
         "dtype": "float16"},
        "model.layers.39.mlp.up_proj.weight", {"t": 0.0},
    ),
    "linear": (
        {"models": [{"model": m, "parameters": {"weight": w}}
                    for m, w in ((ORCA, 1.0), ("WizardLM/WizardLM-13B-V1.2", 0.3), (PLATYPUS, 0.5))],
         "merge_method": "linear", "dtype": "float16"},
        "model.norm.weight", {"weights": (1.0, 0.3, 0.5), "normalize": True},
    ),
    "orcamini-platy-44layer": (
        {"slices": [{"sources": [{"model": ORCA, "layer_range": [0, 24]}]},
                    {"sources": [{"model": PLATYPUS, "layer_range": [20, 40]}]}],
         "merge_method": "passthrough", "dtype": "float16"},
        "model.layers.43.mlp.up_proj.weight", {},
    ),
    "ties": (
        {"models": [
            {"model": ORCA, "parameters": {"density": [1, 0.7, 0.1], "weight": 1.0}},
            {"model": PLATYPUS, "parameters": {"density": 0.5, "weight": [0, 0.3, 0.7, 1]}},
            {"model": WIZARD,
             "parameters": {"density": 0.33, "weight": [{"filter": "mlp", "value": 0.5}, {"value": 0}]}},
         ],
         "merge_method": "ties", "base_model": LLAMA, "parameters": {"normalize": True, "int8_mask": True},
         "dtype": "float16"},
        "model.layers.39.mlp.up_proj.weight", {"density": (2 / 24, 12 / 24, 7 / 24), "weights": (1.0, 1.0, 0.5)},
    ),  # of 24 entries as many whole ones as the densities of the last layer allow
}  # fmt: skip


@pytest.fixture(scope="module")
def forty(reference: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny models of forty layers, where the examples' names lead when they are read as folders."""
    folder, layers = tmp_path_factory.mktemp("forty"), reference.LAYERS
    reference.LAYERS = 40
    reference.save(folder)
    reference.LAYERS = layers
    names = [*(ORCA, PLATYPUS, WIZARD, LLAMA, MISTRAL, CHAT), "WizardLM/WizardLM-13B-V1.2", "BioMistral/BioMistral-7B"]
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(folder / FILES.get(name.partition("/")[0], "three"))
    (folder / "model_a").symlink_to(folder / "one")
    (folder / "model_b").symlink_to(folder / "two")
    return folder


@pytest.mark.parametrize("name", list(EXAMPLES))
def test_the_example_files_of_mergekit_are_read(name: str, forty: Path) -> None:
    document, tensor, wanted = EXAMPLES[name]
    plan = planned_recipe(write(forty, document))
    made = {m.name: m for m in plan.made}
    layers = 44 if name == "orcamini-platy-44layer" else 40
    assert {n.split(".")[2] for n in made if ".layers." in n} == set(map(str, range(layers)))
    assert {m.dtype for m in plan.made} == {"BF16" if document["dtype"] == "bfloat16" else "F16"}
    settings = {n: getattr(made[tensor].method, n) for n in wanted}
    assert {n: pytest.approx(v) if isinstance(v, tuple) else v for n, v in wanted.items()} == settings


@pytest.mark.parametrize("name", list(EXAMPLES))
def test_models_of_an_example_that_are_no_folders_are_named(name: str, tmp_path: Path) -> None:
    document, *_ = EXAMPLES[name]
    with pytest.raises(Problem) as caught:
        planned_recipe(write(tmp_path, document))
    assert "hub:" in str(caught.value) or name == "arcee_fusion"


def test_slices_change_the_number_of_layers(reference: Any, shelf: Path, tmp_path: Path) -> None:
    merge_recipe(write(shelf, reference.DOCUMENTS["passthrough"]), out=tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["num_hidden_layers"] == 4
    from transformers import AutoModelForCausalLM

    _, report = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True, local_files_only=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]


def test_a_layer_that_is_used_twice_is_there_twice(shelf: Path, tmp_path: Path) -> None:
    twice = {"sources": [{"model": "one", "layer_range": [1, 2]}]}
    made = merge_recipe(write(shelf, {"merge_method": "passthrough", "slices": [twice, twice]}), out=tmp_path / "out")
    ours, one = load_file(made.where / "model.safetensors"), load_file(shelf / "one" / "model.safetensors")
    for layer in (0, 1):
        name = f"model.layers.{layer}.mlp.up_proj.weight"
        assert np.array_equal(ours[name], one["model.layers.1.mlp.up_proj.weight"])
    assert "model.layers.2.mlp.up_proj.weight" not in ours


def plainly(setting: Any, tensor: str, t: float) -> float | None:
    """mergekit's rule for a number, written down once more."""
    conditions = setting if isinstance(setting, list) and setting and isinstance(setting[0], dict) else None
    if isinstance(setting, dict):
        conditions = [setting]
    if conditions is not None:
        for one in conditions:
            if one.get("filter") in (None, "*") or one["filter"] in tensor:
                return plainly(one["value"], tensor, t)
        return None
    if isinstance(setting, list):
        return float(np.interp(t * (len(setting) - 1), range(len(setting)), [float(v) for v in setting]))
    return float(setting)


number = st.integers(-3, 3) | st.floats(-2, 2) | st.sampled_from(["1e-5", "2"])
value = number | st.lists(number, min_size=1, max_size=4)
conditional = st.fixed_dictionaries({"value": value}, optional={"filter": st.sampled_from(["*", "mlp", "attn", "x"])})
setting = value | conditional | st.lists(conditional, min_size=1, max_size=3)


@given(setting, st.sampled_from(["a.mlp.w", "a.attn.w", "norm"]), st.floats(0, 1))
def test_settings_are_read_as_mergekit_reads_them(one: Any, tensor: str, t: float) -> None:
    def strict(value: Any) -> Any:
        if isinstance(value, dict):
            return Conditional(**value)
        return [strict(v) for v in value] if isinstance(value, list) else value

    ours, theirs = evaluated(strict(one), tensor, t, float), plainly(one, tensor, t)
    assert (ours is None) == (theirs is None)
    if ours is not None and theirs is not None:
        assert abs(ours - theirs) < 1e-9


# which layers of each model the two slices of a document take, in their order
RANGES = ({"one": (0, 2), "base": (0, 2), "two": (1, 3)}, {"two": (0, 1), "one": (2, 3), "base": (2, 3)})
filtered = st.sampled_from(["*", "mlp", "layers.1.", "embed", "x"])
choosing = st.fixed_dictionaries({"value": value}, optional={"filter": filtered})
said = st.fixed_dictionaries(
    {}, optional={k: value | st.lists(choosing, min_size=1, max_size=2) for k in ("weight", "lambda")}
)


whole = st.fixed_dictionaries({"weight": number}, optional={"lambda": value})


def in_place(places: list[Any], key: str, tensor: str, t: float) -> float | None:
    """The rule of mergekit, in words of its own: the nearest place that has a value for the tensor."""
    found = [plainly(place[key], tensor, t) for place in places if key in place]
    return next((v for v in found if v is not None), None)


@settings(max_examples=40, deadline=None)  # each plans a merge
@example(
    [[{}] * 4] * 2, {}, {"weight": [{"filter": "layers.1.", "value": 1}, {"value": 2}]}
)  # by the model's own names
@given(st.lists(st.lists(said, min_size=4, max_size=4), min_size=2, max_size=2), said, whole | whole | said)
def test_the_nearest_setting_holds(shelf: Path, each: Any, module: Any, top: Any) -> None:
    """Of a source before its slice, its module and the document; what holds for all models is not of a source."""
    slices, layout = [], []
    for ranges, (own, *mine) in zip(RANGES, each, strict=True):
        sources = [
            {"model": m, "layer_range": list(r), "parameters": p}
            for (m, r), p in zip(ranges.items(), mine, strict=True)
        ]
        slices.append({"sources": sources, "parameters": own})
        layout += [(len(slices) - 1, i) for i in range(ranges["one"][1] - ranges["one"][0])]
    document = {
        "merge_method": "task_arithmetic", "base_model": "base", "parameters": top,
        "modules": {"default": {"slices": slices, "parameters": module}},
    }  # fmt: skip
    wanted: dict[str, tuple[tuple[float | None, ...], float | None]] = {}

    def expect(tensor: str, number: int, t: float, at: int | None = None) -> None:
        sources, outer = slices[number]["sources"], [slices[number]["parameters"], module, top]
        weights = []
        for source in sources:
            if source["model"] != "base":
                theirs = re.sub(r"layers\.\d+", f"layers.{source['layer_range'][0] + (at or 0)}", tensor)
                weights.append(in_place([source["parameters"], *outer], "weight", theirs, t))
        wanted[tensor] = tuple(weights), in_place(outer, "lambda", tensor, t)

    for layer, (number, at) in enumerate(layout):
        many = sum(n == number for n, _ in layout)
        for part in ("mlp.up_proj", "self_attn.q_proj", "input_layernorm"):
            expect(f"model.layers.{layer}.{part}.weight", number, at / (many - 1) if many > 1 else 1.0, at)
    expect("model.embed_tokens.weight", 0, 0.0)
    expect("lm_head.weight", 1, 0.0)
    path = write(shelf, document, "places.yaml")
    if any(None in weights for weights, _ in wanted.values()):
        with pytest.raises(Unfit, match="`weight` is missing"):
            planned_recipe(path)
        return
    made = {m.name: m.method for m in planned_recipe(path).made}
    for tensor, (weights, scale) in wanted.items():
        assert made[tensor].weights == pytest.approx(weights), tensor
        assert made[tensor].scale == pytest.approx(1.0 if scale is None else scale), tensor


def test_our_own_recipe_says_what_the_command_says(shelf: Path, tmp_path: Path) -> None:
    said = {"method": "ties", "models": ["one", "two"], "base": "base", "settings": {"density": 0.3, "scale": 0.5}}
    by_recipe = merge_recipe(write(shelf, said), out=tmp_path / "a").where
    by_call = merge(
        [shelf / "one", shelf / "two"], "ties", base=shelf / "base", settings=said["settings"], out=tmp_path / "b"
    ).where
    assert (by_recipe / "model.safetensors").read_bytes() == (by_call / "model.safetensors").read_bytes()


def test_rules_hold_for_the_tensors_that_they_match(shelf: Path, tmp_path: Path) -> None:
    said = {
        "method": "task_arithmetic", "models": ["one", "two"], "base": "base", "settings": {"scale": 0.5},
        "rules": [
            {"tensors": ["*.mlp.*"], "settings": {"weights": [1.0, 0.0]}},
            {"tensors": ["*norm.weight", "*.0.*"], "method": "linear", "settings": {"weights": [3, 1]}},
        ],
    }  # fmt: skip
    made = merge_recipe(write(shelf, said), out=tmp_path / "out")
    ours = load_file(made.where / "model.safetensors")
    base, one, two = (load_file(shelf / n / "model.safetensors") for n in ("base", "one", "two"))
    for name, tensor in ours.items():
        if ".mlp." in name:
            expected = base[name] + 0.5 * (one[name] - base[name])
        elif name.endswith("norm.weight") or ".0." in name:
            expected = 0.75 * one[name] + 0.25 * two[name]
        else:
            expected = base[name] + 0.5 * (one[name] + two[name] - 2 * base[name])
        np.testing.assert_allclose(tensor, expected, atol=5e-7)
    assert made.receipt.facts["tensors"][0]["rule"] == "`task_arithmetic`"
    with pytest.raises(Unfit, match=r"no tensor is called like `\*\.mpl\.\*`"):
        planned_recipe(write(shelf, {**said, "rules": [{"tensors": ["*.mpl.*"]}]}))


LINEAR = {"merge_method": "linear", "models": [{"model": "one", "parameters": {"weight": 1}}]}
SLIPS: list[tuple[type[Problem], Any, str]] = [
    (Unfit, {**LINEAR, "merge_metod": "x"}, "did you mean `merge_method`?"),
    (Unfit, {"merge_method": "linear", "models": [{"model": "one", "paramters": {}}]}, "did you mean `parameters`?"),
    (Unfit, {**LINEAR, "models": [{"model": "one", "parameters": {"wieght": 1}}]}, "did you mean `weight`?"),
    (Unfit, {**LINEAR, "models": [{"model": "one"}]}, "`weight` is missing for tensor"),
    (Unfit, {**LINEAR, "merge_method": "linaer"}, "did you mean `linear`?"),
    (Unfit, {**LINEAR, "slices": [{"sources": [{"model": "one", "layer_range": [0, 1]}]}]}, "exactly one of"),
    (Unfit, {**LINEAR, "models": [{"model": "one", "parameters": {"weight": "much"}}]}, "'much' is not a number"),
    (Unfit, {"merge_method": "passthrough", "slices": [{"sources": [{"model": "one", "layer_range": [2, 5]}]}]},
     "has no layer 4"),
    (Unfit, {"merge_method": "passthrough", "slices": [{"sources": [{"model": "one", "layer_range": [2, 2]}]}]},
     "holds no layer"),
    (Refused, {**LINEAR, "merge_method": "ties"}, "needs a base_model"),
    (Unfit, {**LINEAR, "dtype": "bflot16"}, "did you mean `bfloat16`?"),
    (Unfit, {**LINEAR, "dtype": "torch.flot16"}, "did you mean `float16`?"),
    (Unfit, {**LINEAR, "dtype": "int64"}, "use one of: float64, float32, float16, bfloat16"),
    (Unfit, {**LINEAR, "dtype": "float32", "out_dtype": "bf16"}, "cannot be written as `bf16`"),
    (Unfit, {**LINEAR, "tokenizer": {"source": "union"}, "tokenizer_source": "one"}, "cannot both be there"),
    (Unfit, {**LINEAR, "tokenizer": {"sauce": "union"}}, "did you mean `source`?"),
    (Unfit, {**LINEAR, "tokenizer": {"tokens": {"x": {"forse": True}}}}, "did you mean `force`?"),
    (Unfit, {**LINEAR, "tokenizer": {"tokens": {"x": {"force": True}}}}, "a token that is forced needs a source"),
    (Refused, {**LINEAR, "tokenizer": {"tokens": {"x": {"source": "one"}}}}, "`one` has no tokenizer files"),
    (Refused, {**LINEAR, "tokenizer_source": "two"}, "`two` is named for its tokens, and is not among the models"),
    (Refused, {**LINEAR, "models": [{"model": "org/name", "parameters": {"weight": 1}}]}, "write hub:org/name"),
    (Refused, {**LINEAR, "models": [{"model": "one+adapter", "parameters": {"weight": 1}}]}, "no folder `adapter`"),
    (Unreadable, {**LINEAR, "models": [{"model": "one+two", "parameters": {"weight": 1}}]}, "no `adapter_config.json`"),
    (Refused, {**LINEAR, "chat_template": "zephyr"}, "the chat template `zephyr` is not here"),
    (Refused, {"base_model": "one", "gate_mode": "hidden", "experts": [{"source_model": "two"}]},
     "this is a document of mergekit-moe"),
    (Refused, {"genome": {"models": ["one"], "merge_method": "ties"}, "tasks": [{"name": "x"}]},
     "this is a document of mergekit-evolve"),
    (Unfit, {"method": "linear"}, "`models` is missing"),
    (Unfit, {"method": "linear", "models": ["one"], "settigns": {}}, "did you mean `settings`?"),
    (Unfit, {"method": "linear", "models": ["one"], "rules": [{"tensor": ["x"]}]}, "did you mean `tensors`?"),
    (Unfit, {"method": "linear", "models": ["one"], "heads": "mean"}, "heads"),
    (Unfit, "method: [unclosed", "the recipe is no YAML"),
    (Unfit, "method: linear\nmethod: ties\nmodels: [one]", "`method` is there twice"),
    (Unfit, "just words", "holds no keys"),
    (Unfit, "a: 1\n---\nb: 2", "`a` is no key of a recipe"),
    (Unfit, "method: linear\nmodels: [one]\n---\nmethod: linear\nmodels: [one]", "2 documents are in the file"),
    (Unfit, "method: !!python/object/apply:os.system [ls]\nmodels: [one]", "the recipe is no YAML"),
    (Unfit, "a: &a [x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\n"
     "d: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e]", "too large"),
    (Unfit, "a: &a [*a]", "too large"),
]  # fmt: skip


@pytest.mark.parametrize(("problem", "said", "answer"), SLIPS, ids=[a[:40] for _, _, a in SLIPS])
def test_slips_are_answered(problem: type[Problem], said: Any, answer: str, shelf: Path) -> None:
    with pytest.raises(problem) as caught:
        planned_recipe(write(shelf, said, "slip.yaml"))
    assert answer in str(caught.value), str(caught.value)


def test_a_missing_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="the recipe cannot be read"):
        planned_recipe(tmp_path / "none.yaml")


@given(st.text(max_size=60) | st.recursive(st.none() | st.booleans() | st.text(max_size=5), st.lists, max_leaves=5).map(
    lambda v: yaml.safe_dump({"method": v, "models": v})))  # fmt: skip
def test_any_text_is_a_recipe_or_a_problem(text: str) -> None:
    try:
        parsed(text, "recipe.yaml")
    except Problem:
        return


def test_mergekits_long_forms_and_templates_are_read(shelf: Path, tmp_path: Path) -> None:
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    document = {
        "merge_method": "linear",
        "models": [{"model": {"model": {"path": "one"}}, "parameters": {"weight": "1e-0"}}],
        "tokenizer_source": "one", "chat_template": template, "dtype": "torch.bfloat16", "name": "mine",
    }  # fmt: skip
    made = merge_recipe(write(shelf, document), out=tmp_path / "out")
    assert (made.where / "chat_template.jinja").read_text() == template
    assert json.loads((made.where / "config.json").read_text())["dtype"] == "bfloat16"


ALPACA = "Below is an instruction that describes a task{}. Write a response that appropriately completes the request."
ALPACA += "\n\n"
TALK = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Yes?"), ("user", "Bye")]
TEMPLATES = {  # of a talk with a system's message, and of one without, as the formats are published
    "chatml": (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYes?"
        "<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    ),
    "llama3": (
        "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nYes?<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        "<s><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    "alpaca": (
        "Be brief.\n\n### Instruction:\nHi\n\n### Response:\nYes?</s>\n\n### Instruction:\nBye\n\n### Response:\n",
        ALPACA.format("") + "### Instruction:\nHi\n\n### Response:\n",
    ),
    "mistral": (
        "<s> [INST] Be brief.\n\nHi [/INST] Yes?</s> [INST] Bye [/INST]",
        "<s> [INST] Hi [/INST]",
    ),
    "exaone": (
        "[|system|]Be brief.[|endofturn|]\n[|user|]Hi\n[|assistant|]Yes?[|endofturn|]\n[|user|]Bye\n[|assistant|]",
        "[|system|][|endofturn|]\n[|user|]Hi\n[|assistant|]",
    ),
}  # fmt: skip


def rendered(shelf: Path, name: str, *talk: tuple[str, str]) -> str:
    from jinja2 import Environment

    plan = planned_recipe(write(shelf, {**LINEAR, "chat_template": name}))
    template = Environment(trim_blocks=True, lstrip_blocks=True).from_string(plan.texts["chat_template.jinja"])
    said = [{"role": role, "content": content} for role, content in talk]
    return template.render(messages=said, add_generation_prompt=True, bos_token="<s>", eos_token="</s>")


@pytest.mark.parametrize("name", list(TEMPLATES))
def test_named_chat_templates_are_the_published_formats(name: str, shelf: Path) -> None:
    with_system, without = TEMPLATES[name]
    assert rendered(shelf, name, *TALK) == with_system
    assert rendered(shelf, name, ("user", "Hi")) == without


def test_an_input_beside_the_instruction_is_told_as_alpaca_tells_it(shelf: Path) -> None:
    paired = ALPACA.format(", paired with an input that provides further context")
    wanted = f"{paired}### Instruction:\nAdd\n\n### Input:\n1 2\n\n### Response:\n"
    assert rendered(shelf, "alpaca", ("user", "Add"), ("user_context", "1 2")) == wanted


def test_what_only_the_readme_of_mergekit_knows_is_read_over_and_told(shelf: Path) -> None:
    plan = planned_recipe(write(shelf, {**LINEAR, "input_model_parameters": {"one": {"weight": 9}}}))
    assert "`input_model_parameters` is read over" in plan.warnings[-1]


def test_every_method_of_mergekit_is_here() -> None:
    theirs = (
        "linear slerp nuslerp multislerp karcher passthrough task_arithmetic ties dare_linear dare_ties della"
        " della_linear breadcrumbs breadcrumbs_ties sce model_stock nearswap arcee_fusion ram ramplus_tl"
    )
    assert set(theirs.split()) == set(SPECS)


def test_the_published_schema_is_the_recipes() -> None:
    assert json.loads(SCHEMA.read_text()) == json.loads(json.dumps(recipes.schema()))


def test_the_published_schema_knows_ranges() -> None:
    from jsonschema import Draft202012Validator

    known = Draft202012Validator(json.loads(SCHEMA.read_text()))
    slices = [{"model": "one", "layers": [0, 1], "scale": {"search": [0, 1], "start": 0.2}}]
    own = {"method": "linear", "models": ["one"], "settings": {"scale": {"search": [0, 1]}, "density": 0.2}}
    assert known.is_valid({"slices": slices})
    assert known.is_valid(own)
    assert not known.is_valid({"slices": [{**slices[0], "scale": {"search": [0]}}]})
    assert not known.is_valid({**own, "settings": {"scale": {"search": [0, 1], "log": True}}})


def test_an_adapter_on_a_model_is_merged_without_a_copy_and_before_any_rounding(shelf: Path, tmp_path: Path) -> None:
    """A base in bfloat16 would swallow most of a small change, if the adapted model were written first."""
    from safetensors.torch import load_file as load
    from safetensors.torch import save_file as save

    for model in ("base", "one"):
        (tmp_path / model).mkdir()
        weights = {n: w.bfloat16() for n, w in load(shelf / model / "model.safetensors").items()}
        save(weights, tmp_path / model / "model.safetensors", metadata={"format": "pt"})
        (tmp_path / model / "config.json").write_text((shelf / model / "config.json").read_text())
    (tmp_path / "lora").symlink_to(shelf / "lora")
    document = {
        "merge_method": "task_arithmetic", "base_model": "base",
        "models": [{"model": m, "parameters": {"weight": w}} for m, w in (("base+lora", 3.0), ("one", 0.5))],
    }  # fmt: skip
    made = merge_recipe(write(tmp_path, document), out=tmp_path / "out")
    ours = load(made.where / "model.safetensors")
    base, one, lora = (
        load(tmp_path / f)
        for f in ("base/model.safetensors", "one/model.safetensors", "lora/adapter_model.safetensors")
    )
    for name, weight in ours.items():
        change = 0.5 * (one[name].double() - base[name].double())
        factors = [lora.get(f"base_model.model.{name.removesuffix('.weight')}.lora_{f}.weight") for f in "BA"]
        if factors[0] is not None and factors[1] is not None:
            change += 3 * 1.5 * factors[0].double() @ factors[1].double()
        wanted = (base[name].double() + change).bfloat16()
        assert weight.dtype == wanted.dtype
        assert float((weight != wanted).double().mean()) < 0.05  # sums of float32 that lie beside a border
    assert made.receipt.inputs[1].endswith("base+" + str(tmp_path / "lora"))


def test_modules_are_what_names_of_tensors_begin_with(shelf: Path, tmp_path: Path) -> None:
    def weighed(one: float, two: float) -> dict[str, Any]:
        pairs = (("one", one), ("two", two))
        return {"models": [{"model": m, "parameters": {"weight": w}} for m, w in pairs]}

    modules = {"model": weighed(3, 1), "lm_head": {**weighed(1, 1), "parameters": {"normalize": False}}}
    made = merge_recipe(write(shelf, {"merge_method": "linear", "modules": modules}), out=tmp_path / "out")
    ours, one, two = (load_file(f / "model.safetensors") for f in (made.where, shelf / "one", shelf / "two"))
    assert set(ours) == set(one)
    for name, tensor in ours.items():
        head = name == "lm_head.weight"
        expected = one[name] + two[name] if head else 0.75 * one[name] + 0.25 * two[name]
        np.testing.assert_allclose(tensor, expected, atol=5e-7)
    for wrong, what in (
        ({"model": modules["model"]}, "no module of the document holds tensor"),
        ({"text_decoder": modules["model"], "default": modules["model"]}, "`one` has no module `text_decoder`"),
    ):
        with pytest.raises(Refused, match=what):
            planned_recipe(write(shelf, {"merge_method": "linear", "modules": wrong}))
    with pytest.raises(Unfit, match="did you mean `models`"):
        planned_recipe(write(shelf, {"merge_method": "linear", "modules": {"default": {"modles": []}}}))


def test_a_gradient_goes_through_the_stages_of_a_network_and_through_every_stack(tmp_path: Path) -> None:
    """mergekit reads no such models; a gradient is over depth, not over the numbers that stages give their layers."""
    depths = {
        "stages.0.layers.0.": 0.0, "stages.0.layers.1.": 0.5, "stages.1.layers.0.": 1.0, "text.layers.0.": 0.0,
        "text.layers.1.": 1.0, "image.layers.0.": 0.0, "image.layers.2.": 1.0, "image.layers.1.": 0.5, "head.": 0.0,
    }  # fmt: skip
    for model, value in (("zero", 0.0), ("one", 1.0)):
        (tmp_path / model).mkdir()
        save_file({f"{n}w": np.full(4, value, np.float32) for n in depths}, tmp_path / model / "model.safetensors")
    weights = {"zero": [1, 0], "one": [0, 1]}
    document = {
        "merge_method": "linear",
        "models": [{"model": str(tmp_path / m), "parameters": {"weight": w}} for m, w in weights.items()],
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(document))
    made = load_file(merge_recipe(tmp_path / "recipe.yaml", out=tmp_path / "out").where / "model.safetensors")
    assert {n: float(made[f"{n}w"][0]) for n in depths} == depths


def test_the_card_names_every_model_once_and_the_base_as_one(shelf: Path, tmp_path: Path) -> None:
    layers = [{"sources": [{"model": m, "layer_range": r} for m in ("one", "base")]} for r in ([0, 2], [1, 3])]
    document = {"merge_method": "nearswap", "base_model": "base", "slices": layers, "parameters": {"t": 0.1}}
    made = merge_recipe(write(shelf, document), out=tmp_path / "out")
    card = (made.where / "README.md").read_text()
    assert [line for line in card.splitlines() if line.startswith(("| base", "| model"))] == [
        "| base | base |",
        "| model | one |",
    ]
