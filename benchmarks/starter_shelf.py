"""Train the starter shelf: tiny image models from scratch, on rendered glyphs and on textures that are drawn here.

    python benchmarks/starter_shelf.py                         # trains all eight into src/headstart/starter
    python benchmarks/starter_shelf.py resnet-gratings …       # only these
    python benchmarks/starter_shelf.py --check                 # trains nothing; each source's probe, on five draws

Glyphs come from 22 text fonts that matplotlib ships (DejaVu, STIX, Computer Modern). Each is rendered large, bent, made
thicker or thinner, fitted to a box and averaged to 8 × 8 cells, as small as the digits of scikit-learn are; a model
sees them as its processor would: enlarged to 32 × 32 by bilinear interpolation. No row of any data set is read for
training. Weights, batches and augmentations follow from the seed of each recipe; one thread, about nine minutes of one
core for the whole shelf. The recipes were settled by looking at `--check`.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import argparse
import json
import math
import shutil
import string
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch.nn import functional

SHELF = Path(__file__).parents[1] / "src" / "headstart" / "starter"
FONTS = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-BoldOblique", "DejaVuSans-Oblique", "DejaVuSansMono",
    "DejaVuSansMono-Bold", "DejaVuSansMono-BoldOblique", "DejaVuSansMono-Oblique", "DejaVuSerif", "DejaVuSerif-Bold",
    "DejaVuSerif-BoldItalic", "DejaVuSerif-Italic", "STIXGeneral", "STIXGeneralBol", "STIXGeneralBolIta",
    "STIXGeneralItalic", "cmb10", "cmmi10", "cmr10", "cmss10", "cmti10", "cmtt10",
)  # fmt: skip
SIDE = 32  # pixels a side that every model of the shelf sees
CANVAS, GLYPH = 48, 36  # pixels a side of a rendered glyph's canvas, and its longer side on it
MIDDLE = 0.5  # mean and standard deviation of the processors
LOOPS = {"0": 1, "4": 1, "6": 1, "8": 2, "9": 1}  # closed loops in a digit; none in the others
SMOOTHING = 0.05  # of labels
CLIP = 1.0  # length of a gradient
RISE = 0.1  # of the schedule, during which the learning rate rises

Draw = Callable[[int, torch.Generator], tuple[torch.Tensor, torch.Tensor]]  # images (rows, 32, 32) in [0, 1], labels


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One model of the shelf. steps 0: it stays as it was drawn. trained_on: a sentence for its card."""

    architecture: str
    labels: tuple[str, ...]
    draw: Draw
    trained_on: str
    steps: int
    learning_rate: float = 3e-3
    batch: int = 128
    weight_decay: float = 0.05
    smoothing: float = SMOOTHING
    small: bool = False
    seed: int = 0


def uniform(generator: torch.Generator, rows: int, low: float, high: float) -> torch.Tensor:
    return low + (high - low) * torch.rand(rows, generator=generator)


def rendered(characters: Sequence[str]) -> torch.Tensor:
    """(characters, fonts, 48, 48): each glyph in the middle, its longer side 36 pixels."""
    import matplotlib

    root = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    made = np.zeros((len(characters), len(FONTS), CANVAS, CANVAS), np.float32)
    for f, name in enumerate(FONTS):
        font = ImageFont.truetype(str(root / f"{name}.ttf"), 120)
        for c, character in enumerate(characters):
            left, top, right, bottom = (int(edge) for edge in font.getbbox(character))
            page = Image.new("L", (right - left + 8, bottom - top + 8))
            ImageDraw.Draw(page).text((4 - left, 4 - top), character, fill=255, font=font)
            page = page.crop(page.getbbox())
            scale = GLYPH / max(page.size)
            size = (max(1, round(page.width * scale)), max(1, round(page.height * scale)))
            small = np.asarray(page.resize(size, Image.Resampling.LANCZOS), np.float32) / 255
            y, x = (CANVAS - size[1]) // 2, (CANVAS - size[0]) // 2
            made[c, f, y : y + size[1], x : x + size[0]] = small
    return torch.from_numpy(made)


def blurred(images: torch.Tensor, widths: torch.Tensor) -> torch.Tensor:
    """Each image under a Gaussian of its own width, in pixels."""
    reach, rows = 6, len(images)
    bell = torch.exp(-(torch.arange(-reach, reach + 1).float() ** 2) / (2 * widths[:, None] ** 2))
    bell = bell / bell.sum(1, keepdim=True)
    once = functional.conv2d(images[None], bell[:, None, :, None], padding=(reach, 0), groups=rows)
    return functional.conv2d(once, bell[:, None, None, :], padding=(0, reach), groups=rows)[0]


def sampled(images: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    return functional.grid_sample(images[:, None], grid, align_corners=False)[:, 0]


def bent(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Turned, slanted, stretched, moved, and pulled by a smooth random field; (rows, 32, 32)."""
    rows = len(images)
    angle, slant = uniform(generator, rows, -0.25, 0.25), uniform(generator, rows, -0.35, 0.35)
    wide, high = uniform(generator, rows, 0.8, 1.2), uniform(generator, rows, 0.8, 1.2)
    lines = torch.zeros(rows, 2, 3)
    lines[:, 0, 0], lines[:, 0, 1] = angle.cos() / wide, (slant - angle.sin()) / wide
    lines[:, 1, 0], lines[:, 1, 1] = angle.sin() / high, angle.cos() / high
    lines[:, 0, 2], lines[:, 1, 2] = (uniform(generator, rows, -0.08, 0.08) for _ in range(2))
    grid = functional.affine_grid(lines * 0.8, [rows, 1, SIDE, SIDE], align_corners=False)
    pull = torch.randn(rows, 2, 4, 4, generator=generator) * uniform(generator, rows, 0, 0.18)[:, None, None, None]
    field = functional.interpolate(pull, (SIDE, SIDE), mode="bicubic", align_corners=True)
    return sampled(images, grid + field.permute(0, 2, 3, 1))


def fitted(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Most drawings scaled to fill the height of the box, as size-normalised digits are; their width varies."""
    rows, height, width = images.shape
    marks = images > 0.4
    top, bottom = _ends(marks.any(2))
    left, right = _ends(marks.any(1))
    free = torch.rand(rows, generator=generator) > 0.85
    fill, ratio = uniform(generator, rows, 0.9, 1.08), uniform(generator, rows, 0.75, 1.1)
    high = torch.where(free, 1.0, (bottom - top) / height / fill)
    wide = torch.where(free, 1.0, torch.maximum(high / ratio, (right - left) / width / 0.95))
    lines = torch.zeros(rows, 2, 3)
    lines[:, 0, 0], lines[:, 1, 1] = wide, high
    across, down = (left + right) / width - 1, (top + bottom) / height - 1
    lines[:, 0, 2] = torch.where(free, 0.0, across) + uniform(generator, rows, -0.08, 0.08) * wide
    lines[:, 1, 2] = torch.where(free, 0.0, down) + uniform(generator, rows, -0.04, 0.04) * high
    return sampled(images, functional.affine_grid(lines, [rows, 1, SIDE, SIDE], align_corners=False))


def _ends(marks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The first mark of each row of truth values, and the place after the last."""
    count = marks.shape[1]
    places = torch.arange(count)
    first = torch.where(marks, places, count).amin(1)
    last = torch.where(marks, places, -1).amax(1)
    blank = last < first
    return torch.where(blank, 0, first).float(), torch.where(blank, count, last + 1).float()


def enlarged(cells: torch.Tensor) -> torch.Tensor:
    """8 × 8 cells as a processor enlarges them."""
    return functional.interpolate(cells[:, None], (SIDE, SIDE), mode="bilinear", align_corners=False)[:, 0]


def written(glyphs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Glyphs as if by different hands and pens, at 8 × 8 cells of 17 levels, enlarged."""
    rows = len(glyphs)
    images = fitted(bent(glyphs, generator), generator)
    soft = blurred(images, uniform(generator, rows, 0.8, 2.2))
    edge = uniform(generator, rows, 0.2, 0.6)[:, None, None]
    pen = torch.sigmoid((soft / soft.amax((1, 2), keepdim=True).clamp_min(1e-3) - edge) * 14)
    cells = functional.avg_pool2d(pen[:, None], SIDE // 8)[:, 0]
    cells = cells / cells.amax((1, 2), keepdim=True).clamp_min(0.3)
    gain = uniform(generator, rows, 0.85, 1.0)[:, None, None]
    noise = torch.randn(cells.shape, generator=generator) * uniform(generator, rows, 0, 0.05)[:, None, None]
    return enlarged(torch.round((cells * gain + noise).clamp(0, 1) * 16) / 16)


def glyphs(characters: str, classes: Sequence[int] | None = None) -> Draw:
    """Characters in random fonts; classes: of each character, else one each."""
    atlas: list[torch.Tensor] = []  # rendered at the first call, as listing the recipes should cost nothing
    label = torch.tensor(classes if classes is not None else range(len(characters)))

    def draw(rows: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        if not atlas:
            atlas.append(rendered(characters))
        character = torch.randint(len(characters), (rows,), generator=generator)
        font = torch.randint(len(FONTS), (rows,), generator=generator)
        return written(atlas[0][character, font], generator), label[character]

    return draw


def waves(rows: int, angle: torch.Tensor, generator: torch.Generator, low: float, high: float) -> torch.Tensor:
    """Sine gratings in [-1, 1], their periods between low and high pixels."""
    line = torch.arange(SIDE).float() - SIDE / 2
    y, x = torch.meshgrid(line, line, indexing="ij")
    turn = 2 * math.pi / uniform(generator, rows, low, high)
    phase = uniform(generator, rows, 0, 2 * math.pi)
    along = x * angle.cos()[:, None, None] + y * angle.sin()[:, None, None]
    return torch.sin(turn[:, None, None] * along + phase[:, None, None])


def gratings(rows: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy gratings in eight directions."""
    direction = torch.randint(8, (rows,), generator=generator)
    angle = (direction + uniform(generator, rows, -0.3, 0.3)) * (math.pi / 8)
    images = waves(rows, angle, generator, 4, 16) * uniform(generator, rows, 0.2, 0.5)[:, None, None] + 0.5
    return (images + 0.15 * torch.randn(images.shape, generator=generator)).clamp(0, 1), direction


def textures(rows: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Stripes, checks, rings, blobs, grain and slopes, at random scales and angles."""
    angle = uniform(generator, rows, 0, math.pi)
    one = waves(rows, angle, generator, 4, 14)
    two = waves(rows, angle + math.pi / 2, generator, 4, 14)
    line = torch.arange(SIDE).float() - SIDE / 2
    y, x = torch.meshgrid(line, line, indexing="ij")
    middle = uniform(generator, 2 * rows, -8, 8).view(2, rows, 1, 1)
    radius = torch.sqrt((x - middle[0]) ** 2 + (y - middle[1]) ** 2)
    rings = torch.sin(radius * (2 * math.pi / uniform(generator, rows, 4, 12))[:, None, None])
    seeds = torch.randn(rows, 1, 6, 6, generator=generator)
    blobs = functional.interpolate(seeds, (SIDE, SIDE), mode="bicubic", align_corners=True)[:, 0].clamp(-1, 1)
    grain = torch.randn(rows, SIDE, SIDE, generator=generator).clamp(-1, 1)
    slope = (x * angle.cos()[:, None, None] + y * angle.sin()[:, None, None]) / (SIDE / 2)
    kinds = torch.stack([one, torch.sign(one * two), rings, blobs, grain, slope.clamp(-1, 1)])
    kind = torch.randint(len(kinds), (rows,), generator=generator)
    images = kinds[kind, torch.arange(rows)] * uniform(generator, rows, 0.2, 0.5)[:, None, None] + 0.5
    return (images + 0.05 * torch.randn(images.shape, generator=generator)).clamp(0, 1), kind


DIGITS = string.digits
ALPHANUMERICS = string.digits + string.ascii_letters
FONT_NOTE = f"{len(FONTS)} fonts of the DejaVu, STIX and Computer Modern families"
RECIPES: dict[str, Recipe] = {
    "convnext-alphanumerics": Recipe(
        architecture="convnext",
        labels=tuple(ALPHANUMERICS),
        draw=glyphs(ALPHANUMERICS),
        trained_on=f"digits and letters (62 classes) rendered from {FONT_NOTE}",
        steps=1200,
    ),
    "convnext-digits": Recipe(
        architecture="convnext",
        labels=tuple(DIGITS),
        draw=glyphs(DIGITS),
        trained_on=f"the digits 0 to 9 rendered from {FONT_NOTE}",
        steps=500,
        seed=1,
    ),
    "resnet-alphanumerics": Recipe(
        architecture="resnet",
        labels=tuple(ALPHANUMERICS),
        draw=glyphs(ALPHANUMERICS),
        trained_on=f"digits and letters (62 classes) rendered from {FONT_NOTE}",
        steps=1200,
        seed=2,
    ),
    "resnet-digit-loops": Recipe(
        architecture="resnet",
        labels=("no loop", "one loop", "two loops"),
        draw=glyphs(DIGITS, [LOOPS.get(d, 0) for d in DIGITS]),
        trained_on=f"the digits 0 to 9 rendered from {FONT_NOTE}, labelled by how many closed loops a digit has",
        steps=600,
        smoothing=0.0,
        weight_decay=0.3,
        small=True,
        seed=3,
    ),
    "resnet-gratings": Recipe(
        architecture="resnet",
        labels=tuple(f"{round(i * 22.5)} degrees" for i in range(8)),
        draw=gratings,
        trained_on="noisy sine gratings, labelled by their direction",
        steps=150,
        small=True,
        seed=4,
    ),
    "vit-letters": Recipe(
        architecture="vit",
        labels=tuple(string.ascii_letters),
        draw=glyphs(string.ascii_letters),
        trained_on=f"letters (52 classes, no digit) rendered from {FONT_NOTE}",
        steps=700,
        learning_rate=2e-3,
        seed=5,
    ),
    "vit-textures": Recipe(
        architecture="vit",
        labels=("stripes", "checks", "rings", "blobs", "grain", "slope"),
        draw=textures,
        trained_on="procedural textures of six kinds",
        steps=150,
        learning_rate=2e-3,
        small=True,
        seed=6,
    ),
    "vit-untrained": Recipe(
        architecture="vit",
        labels=(),
        draw=textures,
        trained_on="nothing: its weights are as they were drawn at random",
        steps=0,
        small=True,
        seed=7,
    ),
}


def built(recipe: Recipe) -> Any:
    """The model with its random weights."""
    import transformers as tf

    named = dict(enumerate(recipe.labels))
    labels = {"id2label": named, "label2id": {v: k for k, v in named.items()}} if named else {}
    if recipe.architecture == "resnet":
        widths = [16, 24, 48] if recipe.small else [24, 48, 96]
        config = tf.ResNetConfig(embedding_size=16, hidden_sizes=widths, depths=[1, 1, 1], layer_type="basic", **labels)
    elif recipe.architecture == "convnext":
        config = tf.ConvNextConfig(
            num_stages=3, patch_size=4, hidden_sizes=[24, 48, 96], depths=[1, 1, 2], layer_scale_init_value=0.1,
            image_size=SIDE, **labels,
        )  # fmt: skip
    else:
        width, depth = (48, 2) if recipe.small else (64, 3)
        config = tf.ViTConfig(
            hidden_size=width, num_hidden_layers=depth, num_attention_heads=4, intermediate_size=2 * width,
            image_size=SIDE, patch_size=4, hidden_dropout_prob=0.0, **labels,
        )  # fmt: skip
    kind = tf.AutoModelForImageClassification if labels else tf.AutoModel
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        return kind.from_config(config)


def seen(images: torch.Tensor) -> torch.Tensor:
    """(rows, 3, 32, 32) as the processor gives it."""
    return ((images - MIDDLE) / MIDDLE)[:, None].expand(-1, 3, -1, -1)


def trained(recipe: Recipe, name: str) -> Any:
    """One cycle of AdamW on fresh drawings; no image is seen twice."""
    model = built(recipe)
    generator = torch.Generator().manual_seed(recipe.seed)
    if recipe.steps:
        optimiser = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, recipe.learning_rate, total_steps=recipe.steps, pct_start=RISE
        )
    model.train()
    right = 0.0
    for step in range(1, recipe.steps + 1):
        images, labels = recipe.draw(recipe.batch, generator)
        logits = model(pixel_values=seen(images)).logits
        loss = functional.cross_entropy(logits, labels, label_smoothing=recipe.smoothing)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimiser.step()
        schedule.step()
        right += (logits.argmax(1) == labels).float().mean().item()
        if step % 100 == 0:
            print(f"{name}: step {step}, loss {loss.item():.3f}, right {right:.0f} %", file=sys.stderr, flush=True)
            right = 0.0
    return model.eval()


def saved(model: Any, recipe: Recipe, folder: Path) -> None:
    """A transformers folder: configuration, weights, processor and card."""
    if folder.exists():
        shutil.rmtree(folder)
    generator = torch.Generator().manual_seed(10_000 + recipe.seed)
    right = None
    if recipe.steps:
        images, labels = recipe.draw(2000, generator)
        with torch.no_grad():
            right = (model(pixel_values=seen(images)).logits.argmax(1) == labels).float().mean().item()
    model.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    processor = {
        "do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": [MIDDLE] * 3,
        "image_processor_type": "ViTImageProcessor", "image_std": [MIDDLE] * 3, "resample": 2,
        "rescale_factor": 1 / 255, "size": {"height": SIDE, "width": SIDE},
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n")
    (folder / "README.md").write_text(card(folder.name, recipe, model, right), encoding="utf-8")


def card(name: str, recipe: Recipe, model: Any, right: float | None) -> str:
    count = sum(p.numel() for p in model.parameters())
    front = ["---", "license: apache-2.0", "library_name: transformers", "pipeline_tag: image-classification", "---"]
    text = [
        f"# {name}",
        f"A tiny {model.config.model_type} of headstart's starter shelf: {count:,} weights, images of {SIDE} × {SIDE} "
        "pixels, bright on dark.",
        f"Trained on: {recipe.trained_on}. No images of people, no data set, no handwriting.",
    ]
    if right is not None:
        text.append(
            f"From scratch, in {recipe.steps} steps of {recipe.batch} drawings, each made for that step alone. "
            f"Of 2,000 new drawings it names {right:.1%} rightly."
        )
    if "fonts" in recipe.trained_on:
        text.append(
            "The fonts are those that matplotlib ships. The DejaVu licence, the SIL Open Font License of STIX and the "
            "BaKoMa licence of Computer Modern all let glyphs be rendered and the pictures be used; no font file is "
            "part of this model."
        )
    text.append(f"Made by `python benchmarks/starter_shelf.py {name}` with seed {recipe.seed}.")
    return "\n".join(front) + "\n\n" + "\n\n".join(text) + "\n"


def check(shelf: Path, draws: int = 5) -> None:
    """Accuracy of each source's linear probe with five digits a class, and of the no-transfer systems, on the rest."""
    from dataclasses import dataclass

    from sklearn.datasets import load_digits

    from headstart.adaptation.baselines.hog_logistic import HogLogistic
    from headstart.adaptation.baselines.pixel_logistic import PixelLogistic
    from headstart.adaptation.baselines.small_cnn import SmallCnn
    from headstart.adaptation.routes.linear_probe import LinearProbe
    from headstart.core import Steps
    from headstart.inspection import read_rows, read_target
    from headstart.io.images import RawRows
    from headstart.io.sources import opened, scan

    digits = load_digits()
    images, labels = np.rint(digits.images * (255 / 16)).astype(np.uint8), digits.target
    whole = read_target((images, labels), name="digits", metric="accuracy")
    table = read_rows(images, whole.columns, "image", whole.task).inputs
    sources, failed = scan(shelf)
    assert not failed, failed
    features = {}
    for source in sources:
        with opened(source) as here:
            features[source.name] = here.features(table)

    @dataclass(frozen=True)
    class Side:
        rows: Any
        features: Any = None

        def __len__(self) -> int:
            return len(self.rows)

        @property
        def labels(self) -> Any:
            return labels[self.rows]

        @property
        def ids(self) -> Any:
            return [str(r) for r in self.rows]

        def images(self, side: int) -> Any:
            return RawRows(table.take(self.rows)).images(side)

    @dataclass(frozen=True)
    class Fold:
        train: Side
        valid: Side
        task: str = "single_label"
        metric: str = "accuracy"
        classes: int = 10
        seed: int = 0

    found: dict[str, list[float]] = {}
    for seed in range(draws):
        draw = np.random.default_rng(1000 + seed)
        train = np.sort(np.concatenate([draw.choice(np.flatnonzero(labels == c), 5, replace=False) for c in range(10)]))
        rest = np.setdiff1d(np.arange(len(labels)), train)
        mean: Any = 0
        for name, f in features.items():
            fitted_here = LinearProbe()(Fold(Side(train, f[train]), Side(rest, f[rest])), None, Steps())  # type: ignore[arg-type]  # it has what a probe reads
            found.setdefault(name, []).append(float((fitted_here.predictions.argmax(1) == labels[rest]).mean()))
            if "alphanumerics" in name or name in ("convnext-digits", "vit-letters"):
                mean = mean + fitted_here.predictions
        found.setdefault("mean of the glyph sources", []).append(float((mean.argmax(1) == labels[rest]).mean()))
        for method in (PixelLogistic(), HogLogistic(), SmallCnn()):
            fitted_here = method(Fold(Side(train), Side(rest)), None, Steps())  # type: ignore[arg-type]  # as above
            name = f"no transfer: {type(method).__name__}"
            found.setdefault(name, []).append(float((fitted_here.predictions.argmax(1) == labels[rest]).mean()))
    for name, values in sorted(found.items(), key=lambda pair: -np.mean(pair[1])):
        print(f"{name:32} {np.mean(values):.3f}  ({', '.join(f'{v:.3f}' for v in values)})")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="models to train; all without a name")
    parser.add_argument("--out", type=Path, default=SHELF)
    parser.add_argument("--check", action="store_true", help="train nothing, measure what is there")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.check:
        check(asked.out)
        return
    for name in asked.names or RECIPES:
        began, wall = process_time(), perf_counter()
        model = trained(RECIPES[name], name)
        seconds = process_time() - began
        saved(model, RECIPES[name], asked.out / name)
        print(f"saved `{asked.out / name}` ({seconds:.0f} s of one core, {perf_counter() - wall:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
