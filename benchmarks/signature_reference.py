"""Makes the reference table of the signatures, `src/headstart/inventory/reference_v2.json`.

    python benchmarks/signature_reference.py

Only statistics go into the table: mean and scale of each signature entry, and one similarity, over data sets that this
script makes. Text: sentences in docstrings, comments and messages of installed Python packages, names of places,
languages and units in the languages of Babel's CLDR tables, and everyday sentences put together from phrases below.
Images: glyphs of matplotlib's fonts, scikit-learn's digits and sample photographs cut to pieces, drawn shapes,
textures and blobs. Tables: scikit-learn's sets and generators, and drawn columns of mixed kinds. Labels of
texts and images follow the rows more or less: one row stands for each class, and rows are drawn to those like them.
Classes are called by everyday words, by words of the set, or by numbers.

Settings of the generators (`OWN_FRACTION`, kinds of columns) and the weights of blocks were chosen while looking at how
many pairs of unrelated real sets come out near; `tests/numerics/test_signatures.py` measures that, on the same sets.
Nothing of those sets is in the table. A line of the output changes with the versions of the installed packages; the
shipped table does not.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from headstart.numerics.signatures import SIDE, SIGNATURE_VERSION, embedded, reference_of, signature

Array = np.ndarray[Any, Any]
OUT = Path(__file__).parents[1] / "src" / "headstart" / "inventory" / f"reference_v{SIGNATURE_VERSION}.json"
OWN_FRACTION = (0.1, 0.6)  # of an English set's lines that are of its own domain, drawn for each set
DIGITS_KEPT = 5  # significant ones of each number in the file
PACKAGES = ("numpy", "scipy", "sklearn", "pandas", "matplotlib", "sympy", "networkx", "sqlalchemy", "PIL", "email",
            "http", "unittest", "tkinter", "xml", "asyncio", "logging", "torch", "jinja2", "rich",
            "optuna")  # fmt: skip


@dataclass
class Set:
    """One data set, as `core.Raw` wants it."""

    task: str = "single_label"
    labels: Array | None = None
    names: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    pictures: Array = field(default_factory=lambda: np.zeros((0, SIDE, SIDE, 3), np.uint8))
    columns: pa.Table = field(default_factory=lambda: pa.table({}))

    def __len__(self) -> int:
        return max(len(self.texts), len(self.pictures), self.columns.num_rows)

    def images(self, side: int) -> Array:
        assert side == SIDE
        return self.pictures


def main() -> None:
    sets = {"text": list(texts()), "image": list(images()), "table": list(tables())}
    found = {}
    for modality, some in sets.items():
        signed = [signature(one, one.labels, one.task, modality, one.names) for one in some]
        table = reference_of(signed, modality).as_dict()
        rounded = {k: [_short(x) for x in v] if isinstance(v, list) else _short(v) for k, v in table.items()}
        found[modality] = {"sets": len(some), **rounded, "blocks": table["blocks"]}
        print(f"{modality}: {len(some)} sets, near above {table['near']:.3f}", file=sys.stderr)
    about = " ".join(str(__doc__).split("\n\n")[2].split())
    whole = {"version": SIGNATURE_VERSION, "about": about, "modalities": found}
    OUT.write_text(json.dumps(whole, indent=1).replace(",\n    ", ", ").replace("[\n    ", "[") + "\n")
    print(f"saved `{OUT.name}` ({OUT.stat().st_size} bytes)", file=sys.stderr)


def drawn_rows(rng: np.random.Generator) -> int:
    return int(np.exp(rng.uniform(np.log(100), np.log(10_000))))


def drawn_labels(rng: np.random.Generator, one: Set, modality: str) -> Set:
    """The set with a task as people have them: two classes most often, sometimes many, unequal or hard to tell."""
    rows, _ = embedded(one, None, "single_label", modality, np.arange(len(one)))
    rows -= rows.mean(axis=0)
    clear = np.exp(rng.uniform(np.log(0.3), np.log(30)))
    if rng.random() < 0.1:
        along = rows @ rows[rng.integers(len(rows))]
        return replace(one, task="regression", labels=clear * _unit(along) + rng.normal(size=len(rows)))
    classes = int(rng.choice([2, 2, 2, 3, 3, 5, 6, 10, 20, 50]))
    shares = rng.dirichlet(np.full(classes, rng.choice([0.7, 2.0, 20.0])))
    alike = _unit(rows @ rows[rng.integers(len(rows), size=classes)].T)
    labels = (clear * alike + np.log(shares + 1e-9) + rng.gumbel(size=alike.shape)).argmax(axis=1)
    return replace(one, labels=labels, names=drawn_names(rng, one, classes))


def drawn_names(rng: np.random.Generator, one: Set, classes: int) -> list[str]:
    """Numbers in a third of the sets; else words of the set where it has any, or everyday ones."""
    if rng.random() < 1 / 3:
        return [str(number) for number in range(classes)]
    lines = one.texts[:500] if one.texts and rng.random() < 0.3 else [p for slots in PHRASES.values() for p in slots]
    words = sorted({word.strip(".,:;!?()'\"") for line in lines for word in line.replace("|", " ").split()})
    several = [word for word in words if len(word) > 2 and not any(c.isdigit() for c in word)] or ["other"]
    return [" ".join(rng.choice(several, size=int(rng.choice([1, 1, 1, 2])))) for _ in range(classes)]


def _unit(values: Array) -> Array:
    return np.asarray(values / max(float(values.std()), 1e-12))


# -- text ------------------------------------------------------------------------------------------------------------


def texts() -> Iterator[Set]:
    rng = np.random.default_rng(1)
    plain, technical = list(everyday(rng)), list(of_packages(rng))
    pools = [[line for lines in some for line in lines[:300]] for some in (plain, technical)]
    english = [among_others(lines, pools, rng) for lines in (*plain, *technical)]
    for lines in (*english, *of_languages(rng)):
        rows = drawn_rows(rng)
        yield drawn_labels(rng, Set(texts=[lines[i] for i in rng.integers(len(lines), size=rows)]), "text")


def among_others(lines: list[str], pools: list[list[str]], rng: np.random.Generator) -> list[str]:
    """Lines of one domain among lines of all: real sets of one language share most of it, and ours would not."""
    own, everyday_part = rng.uniform(*OWN_FRACTION), rng.random()
    found = []
    for _ in range(2500):
        from_here = lines if rng.random() < own else pools[int(rng.random() > everyday_part)]
        found.append(from_here[rng.integers(len(from_here))])
    return found


def of_packages(rng: np.random.Generator) -> Iterator[list[str]]:
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            continue
        files = sorted(Path(spec.origin).parent.rglob("*.py"))
        files = [files[i] for i in rng.permutation(len(files))[:60]]
        kinds: dict[str, list[str]] = {"docstrings": [], "comments": [], "messages": []}
        for path in files:
            for kind, line in words_of(path):
                kinds[kind].append(line)
        yield from (lines for lines in kinds.values() if len(lines) > 100)


def words_of(path: Path) -> Iterator[tuple[str, str]]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        with path.open("rb") as file:
            comments = [t.string for t in tokenize.tokenize(file.readline) if t.type == tokenize.COMMENT]
    except (SyntaxError, UnicodeDecodeError, tokenize.TokenError):
        return
    yield from (("comments", c.lstrip("#: ")) for c in comments if len(c) > 20)
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Module)):
            for part in (ast.get_docstring(node) or "").split("\n\n"):
                if len(part) > 20 and ">>>" not in part:
                    yield "docstrings", " ".join(part.split())
        elif isinstance(node, ast.Raise):
            for inner in ast.walk(node):
                if isinstance(inner, ast.Constant) and isinstance(inner.value, str) and len(inner.value) > 15:
                    yield "messages", inner.value


def of_languages(rng: np.random.Generator) -> Iterator[list[str]]:
    """Names in one language put into lines; a tenth of the sets, as most of what people bring is in English."""
    from babel import Locale

    for code in ("ar", "fa", "ha", "ig", "rw", "sw", "yo", "id", "ms", "de", "fr", "es", "pt", "it", "nl", "pl", "ru",
                 "tr", "hi", "bn", "zh", "ja", "ko", "vi", "th", "he", "el", "cs", "fi", "sv", "am", "zu"):  # fmt: skip
        locale = Locale.parse(code)
        names = [str(n) for n in (*locale.languages.values(), *locale.territories.values())]
        names += [str(n) for width in locale.months["format"].values() for n in width.values()]
        names += [str(n) for width in locale.days["format"].values() for n in width.values()]
        if len(names) > 50:
            yield [" ".join(names[i] for i in rng.integers(len(names), size=rng.integers(2, 9))) for _ in range(800)]


def everyday(rng: np.random.Generator) -> Iterator[list[str]]:
    for slots in PHRASES.values():
        parts = [[p.strip() for p in slot.split("|")] for slot in slots]
        for _ in range(3):  # three sets of one domain differ in which phrases they know, and how much noise they have
            known = [[p for p in slot if rng.random() < 0.6] or slot for slot in parts]
            noise = [[]] if rng.random() < 0.5 else [[], ["@user"], ["#" + w for w in ("love", "fail", "news", "now")]]
            lines = []
            for _ in range(1200):
                some = [str(rng.choice(slot)) for slot in known if rng.random() < 0.85]
                extra = noise[rng.integers(len(noise))]
                lines.append(" ".join([*some, *([str(rng.choice(extra))] if extra else [])]))
            yield lines


PHRASES: dict[str, tuple[str, ...]] = {
    "bank": (
        "hello,|hi there|good morning|help!|excuse me,|quick question:",
        "my card|the transfer|a payment|my account|the app|a refund|my pin|the exchange rate|a top-up|the cash machine",
        "is still pending|was declined|has not arrived|was charged twice|got stuck|looks wrong|is blocked|was stolen",
        "since yesterday|for two days|again|after i moved abroad|this morning|on my statement|at the shop",
        "what can i do?|please help|how long does it take?|can you cancel it?|why is that?|where do i see it?",
    ),
    "commands": (
        "please|can you|could you|i want you to|hey,|",
        "set|play|turn on|turn off|book|find|remind me about|add|show me|call|schedule|order|delete|look up",
        "an alarm|some jazz|the kitchen lights|a table for two|a flight to boston|the meeting|milk|the weather",
        "for six o'clock|tomorrow|in the living room|on friday evening|near the station|with anna|next week|right now",
    ),
    "films": (
        "a|the most|an oddly|this|one of the year's most|neither",
        "funny|tedious|moving|clumsy|gorgeous|predictable|haunting|lifeless|tender|overlong|clever|sentimental",
        "film|comedy|thriller|drama|documentary|love story|piece of work|mess|portrait of a family|romp",
        "that never quite finds its feet|with a warm heart|whose actors deserve better|full of charm and wit",
        ", and it stays with you .|; you will be bored .|-- and worth every minute .|, for better or worse .",
    ),
    "goods": (
        "i bought|we got|my husband ordered|after a month with|returned|do not buy|very happy with",
        "this camera|these headphones|the player|this phone|the router|a vacuum cleaner|this kettle|the software",
        "and the battery|because the screen|but the sound quality|since the manual|and its zoom|though the service",
        "is excellent|broke after a week|is hard to use|works as advertised|disappoints|is great for the price",
    ),
    "questions": (
        "what is|who was|how many|when did|where is|which|why do|how far is|what does",
        "the capital of|the first president of|the population of|the inventor of|the longest river in|the meaning of",
        "france|the telephone|the united states|a leap year|mount everest|the roman empire|japan|the moon|gold ?",
        "?|in 1969 ?|located ?|called ?|stand for ?|known for ?",
    ),
    "short messages": (
        "omg|lol|ugh|so|ok|wow|honestly|no way|happy birthday|good night|can't believe|just",
        "i love|i hate|this weather|my boss|that game|monday|the new season|u guys|my life|people who lie|this song",
        "is killing me|made my day|so much|rn|!!!|is the worst|haha|makes me cry|is everything|tbh|😂|❤|:(",
    ),
    "news": (
        "president|shares of|police in|scientists|the minister|voters|officials|the company|rescuers|a court",
        "announce|reject|warn of|investigate|approve|seek|delay|report record|condemn|agree on",
        "new tariffs|the merger|flooding in the north|a ceasefire|quarterly profit|the budget|a vaccine trial",
        "after months of talks|amid protests|on tuesday|as prices rise|in the third quarter|, sources say",
    ),
    "adverts": (
        "winner!!|urgent!|congratulations|free entry|final notice|hot deal|dear customer|claim now",
        "you have won|call 09061701461|text WIN to 80086|your mobile number was chosen|get a 1000 cash prize",
        "to receive your bonus|before midnight|reply STOP to end|t&c apply|only 150p per minute|valid 12 hours only",
    ),
    "talk": (
        "i think|yeah|well|no but|to be fair|i agree|as a mother|the problem is|they say|it seems",
        "women|the government|abortion|religion|climate change|free speech|immigrants|guns|the church|schools|taxes",
        "should be|will never be|is not|has always been|must be|ought to be|can hardly be",
        "a human right|protected by law|nobody's business|a lie|paid for by everyone|stopped|respected|forced on us",
    ),
    "scenes": (
        "a man|two children|the woman|a brown dog|a group of people|a boy in a red shirt|some players|nobody",
        "is playing|are running through|is slicing|is standing near|are jumping over|is riding|is cutting|sits on",
        "a guitar|the grass|an onion|a wooden bridge|the water|a horse|a bench in the park|the beach|a ball|a wall",
    ),
    "companies": (
        "The Borrower|This Agreement|The Lender|Each Party|The Company|Section 4.2",
        "shall pay|shall not assign|agrees to indemnify|may terminate|represents and warrants to|shall deliver",
        "the outstanding principal|any Collateral|all reasonable expenses|the Notes|written notice|a Certificate",
        "upon the Closing Date .|in accordance with Section 9 .|under the laws of Delaware .|within thirty days .",
    ),
    "opinions": (
        "dispute with|strongly|deeply|in favour of|does not|firmly|clear and|harsh|an act of|grave",
        "criticism of|concern|support for|believe in|peace|the decision|condemned|welcomed|violence|hope",
        "by the international community|without reason|for the people||of human rights|in the region",
    ),
}


# -- images ----------------------------------------------------------------------------------------------------------


def images() -> Iterator[Set]:
    rng = np.random.default_rng(2)
    makers = [*glyph_sets(rng), *photo_sets(rng), *drawn_sets(rng)]
    from sklearn.datasets import load_digits

    digits = load_digits()
    small = (digits.images / 16 * 255).astype(np.uint8)
    for light in (small, 255 - small):
        makers.append(np.repeat(light.repeat(4, 1).repeat(4, 2)[..., None], 3, axis=-1))
    for pictures in makers:
        yield drawn_labels(rng, Set(pictures=pictures[rng.integers(len(pictures), size=drawn_rows(rng))]), "image")


def glyph_sets(rng: np.random.Generator) -> Iterator[Array]:
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    folder = Path(matplotlib.get_data_path())
    fonts = sorted((folder / "fonts" / "ttf").glob("DejaVu*.ttf"))
    alphabets = ("0123456789", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz", "αβγδεζηθικλμνξοπρστυφχψω",
                 "абвгдежзийклмнопрстуфхцчшщъыьэюя", "∀∂∃∅∇∈∏∑√∞∧∨∩∪∫≈≠≤≥", "←↑→↓↔⇐⇒♠♣♥♦☀☁☂★☎")  # fmt: skip
    for alphabet in alphabets:
        for dark in (True, False):
            for filled in (0.55, 0.95):
                found = []
                for _ in range(200):
                    font = ImageFont.truetype(str(fonts[rng.integers(len(fonts))]), int(SIDE * filled))
                    image = Image.new("L", (SIDE, SIDE), 0)
                    at = tuple(SIDE / 2 + rng.normal(size=2) * 1.5)
                    ImageDraw.Draw(image).text(at, str(rng.choice(list(alphabet))), 255, font=font, anchor="mm")
                    turned = image.rotate(float(rng.normal() * 6))
                    found.append(np.asarray(turned if dark else turned.point(lambda v: 255 - v)))
                yield np.repeat(np.stack(found)[..., None], 3, axis=-1)


def photo_sets(rng: np.random.Generator) -> Iterator[Array]:
    from PIL import Image
    from sklearn.datasets import load_sample_images

    for photo in load_sample_images().images:
        tall, wide = photo.shape[:2]
        for side in (48, 96, 192, 384):
            for half in (slice(0, tall // 2), slice(tall // 2, tall), slice(0, tall)):
                part = photo[half]
                edge = min(side, part.shape[0])
                found = []
                for _ in range(120):
                    y, x = rng.integers(part.shape[0] - edge + 1), rng.integers(wide - edge + 1)
                    cut = Image.fromarray(part[y : y + edge, x : x + edge]).resize((SIDE, SIDE))
                    found.append(np.asarray(cut))
                yield np.stack(found)


def drawn_sets(rng: np.random.Generator) -> Iterator[Array]:
    from PIL import Image, ImageDraw

    yy, xx = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    for _ in range(12):  # smooth noise, from fine to coarse
        power, base, spread = rng.uniform(0.5, 2.5), rng.uniform(60, 190), rng.uniform(10, 60)
        wave = np.hypot(*np.meshgrid(np.fft.fftfreq(SIDE), np.fft.fftfreq(SIDE))) + 1 / SIDE
        noise = np.fft.ifft2(np.fft.fft2(rng.normal(size=(150, SIDE, SIDE))) / wave**power).real
        noise /= noise.std(axis=(1, 2), keepdims=True)
        yield _colour((base + spread * noise), rng)
    for _ in range(12):  # stripes of one direction, more or less
        towards, wander, count = rng.uniform(0, np.pi), rng.uniform(0.05, 0.8), rng.uniform(2, 9)
        turn = towards + rng.normal(size=(150, 1, 1)) * wander
        phase = rng.uniform(0, 7, size=(150, 1, 1))
        yield _colour(128 + 90 * np.sin(6.28 * count * (xx * np.cos(turn) + yy * np.sin(turn)) + phase), rng)
    for kind in ("ellipse", "rectangle", "polygon", "line"):
        for paper in (0, 90, 255):
            for outline in (True, False):
                found = []
                for _ in range(150):
                    image = Image.new("L", (SIDE, SIDE), paper)
                    draw, ink = ImageDraw.Draw(image), int((paper + rng.integers(90, 200)) % 256)
                    corners = np.sort(rng.uniform(2, SIDE - 2, size=(2, 2)), axis=0)
                    box = [tuple(corners[0]), tuple(corners[1] + 1)]
                    if kind == "polygon":
                        points = [tuple(p) for p in rng.uniform(2, SIDE - 2, size=(int(rng.integers(3, 8)), 2))]
                        draw.polygon(points, fill=None if outline else ink, outline=ink)
                    elif kind == "line":
                        draw.line(
                            [tuple(p) for p in rng.uniform(0, SIDE, size=(5, 2))], fill=ink, width=1 + 2 * outline
                        )
                    else:
                        getattr(draw, kind)(box, fill=None if outline else ink, outline=ink)
                    found.append(np.asarray(image))
                yield np.repeat(np.stack(found)[..., None], 3, axis=-1)
    for paper, ink in ((20, 200), (10, 120), (225, 120), (200, 60)):  # one or many blobs, as in scans and under lenses
        for count in (1, 12):
            centre = rng.normal(0.5, 0.06 if count == 1 else 0.4, size=(150, count, 2, 1, 1))
            wide = rng.uniform(0.2, 0.35, size=(150, count, 1, 1)) / count**0.6
            away = np.hypot(xx - centre[:, :, 0], yy - centre[:, :, 1])
            blobs = (1 / (1 + np.exp((away - wide) * 60))).max(axis=1)
            yield _colour(paper + (ink - paper) * blobs + rng.normal(size=blobs.shape) * 6, rng)
    for _ in range(10):  # a ground, a sky, and something that stands in the middle
        sky, ground, thing, line = rng.uniform(40, 230, size=4)
        height = rng.normal(0.55, 0.1, size=(150, 1, 1))
        scene = np.where(yy < height, sky, ground) + rng.normal(size=(150, SIDE, SIDE)) * 12
        tall, wide = rng.uniform(0.2, 0.45, size=(2, 150, 1, 1))
        inside = (np.abs(xx - 0.5) < wide) & (np.abs(yy - 0.55) < tall)
        yield _colour(np.where(inside, thing + line / 4 * np.sin(yy * 30), scene), rng)


def _colour(grey: Array, rng: np.random.Generator) -> Array:
    tint = rng.uniform(0.8, 1.2, size=3)
    return np.asarray(np.clip(grey[..., None] * tint, 0, 255)).astype(np.uint8)


# -- tables ----------------------------------------------------------------------------------------------------------


def tables() -> Iterator[Set]:
    from sklearn import datasets

    rng = np.random.default_rng(3)
    for load, task in (
        (datasets.load_iris, "single_label"),
        (datasets.load_wine, "single_label"),
        (datasets.load_digits, "single_label"),
        (datasets.load_breast_cancer, "single_label"),
        (datasets.load_diabetes, "regression"),
    ):
        found = load()
        yield _numbers(found.data, found.target, task)
    for n in range(6):
        classes, width = int(rng.choice([2, 2, 3, 5])), int(rng.integers(5, 30))
        x, y = datasets.make_classification(
            n_samples=int(rng.integers(150, 2000)),
            n_features=width,
            n_informative=4,
            n_redundant=int(rng.integers(0, 2)),
            n_classes=classes,
            n_clusters_per_class=1,
            class_sep=float(rng.uniform(0.3, 2)),
            random_state=n,
        )
        yield _numbers(x, y, "single_label")
    for n, make in enumerate((datasets.make_friedman1, datasets.make_friedman2, datasets.make_friedman3,
                              datasets.make_sparse_uncorrelated, datasets.make_regression)):  # fmt: skip
        yield _numbers(*make(n_samples=int(rng.integers(150, 2000)), random_state=n)[:2], "regression")
    yield _numbers(*datasets.make_moons(400, noise=0.2, random_state=0), "single_label")
    yield _numbers(*datasets.make_blobs(500, n_features=6, centers=4, random_state=0)[:2], "single_label")
    for _ in range(60):
        one = mixed(rng)
        yield one if one.task == "regression" else replace(one, names=drawn_names(rng, one, int(one.labels.max()) + 1))


def mixed(rng: np.random.Generator) -> Set:
    """A table as it comes from an office: a hidden cause or two, columns of all kinds that follow it more or less."""
    rows, width = int(np.exp(rng.uniform(np.log(150), np.log(5000)))), int(rng.integers(3, 30))
    causes = rng.normal(size=(rows, int(rng.integers(1, 4))))
    shares = rng.dirichlet(np.full(7, 0.7))
    columns: dict[str, list[Any]] = {}
    for c in range(width):
        follows = rng.normal(0.5, 1.0, size=causes.shape[1]) * rng.uniform(0, 2)  # sizes of a thing grow together
        z = causes @ follows + rng.normal(size=rows)
        z /= z.std()
        kind = str(rng.choice(["normal", "whole", "skewed", "count", "flag", "name", "sparse"], p=shares))
        values = {
            "normal": lambda z=z: z + rng.uniform(0, 8),
            "whole": lambda z=z: np.round((z + rng.uniform(1, 8)) * rng.uniform(2, 50)),
            "skewed": lambda z=z: np.exp(z * rng.uniform(0.4, 1.3) + rng.uniform(0, 8)),
            "count": lambda z=z: rng.poisson(np.exp(np.clip(z * 0.5 + rng.uniform(0, 3), -3, 6))).astype(float),
            "flag": lambda z=z: (z > rng.normal()).astype(float),
            "name": lambda z=z: np.array([f"v{int(v)}" for v in np.round(z * rng.uniform(0.5, 3))]),
            "sparse": lambda z=z: np.maximum(z - rng.uniform(0, 1.5), 0) * rng.uniform(1, 100),
        }[kind]()
        blank = rng.random(rows) < (rng.uniform(0, 0.3) if rng.random() < 0.2 else 0.0)
        columns[f"c{c}"] = [None if b else v for v, b in zip(values.tolist(), blank, strict=True)]
    answer = causes[:, 0] + rng.normal(size=rows) * rng.uniform(0.1, 2)
    if rng.random() < 0.4:
        return Set(columns=pa.table(columns), task="regression", labels=answer)
    edges = np.quantile(answer, np.sort(rng.uniform(0.1, 0.9, size=int(rng.choice([1, 1, 1, 2, 4])))))
    return Set(columns=pa.table(columns), labels=np.digitize(answer, edges))


def _numbers(x: Array, y: Array, task: str) -> Set:
    return Set(columns=pa.table({f"c{i}": x[:, i].astype(float) for i in range(x.shape[1])}), labels=y, task=task)


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS_KEPT}g}")


if __name__ == "__main__":
    main()
