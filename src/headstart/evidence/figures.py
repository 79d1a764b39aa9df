"""Figures of the report: inline SVG that takes its colours from the page, so that it works in light and in dark.

Drawn by matplotlib on a canvas of 380 units with text as text, narrow enough to be read on a phone. No text from
outside is parsed as mathematics, and none of matplotlib's identifiers, dates or addresses stay in the file.
"""

from __future__ import annotations

import base64
import io
import re
import warnings
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from PIL.Image import Image

INK, SOFT, ACCENT, FAINT = "#010203", "#040506", "#070809", "#0a0b0c"  # stand-ins, replaced by the page's own colours
PAGE = {INK: "currentColor", SOFT: "var(--soft)", ACCENT: "var(--accent)", FAINT: "var(--line)"}
WIDTH = 380 / 72  # inches of 72 units
STYLE: dict[str, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "headstart", "font.size": 12, "axes.edgecolor": FAINT, "text.color": INK,
    "axes.labelcolor": SOFT, "xtick.color": FAINT, "ytick.color": FAINT, "xtick.labelcolor": SOFT,
    "ytick.labelcolor": SOFT, "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.8,
    "lines.linewidth": 1.6, "text.parse_math": False, "axes.formatter.use_mathtext": False, "axes.unicode_minus": True,
}  # fmt: skip
LONGEST = 42  # characters of a name that fit the width


def intervals(rows: Sequence[Mapping[str, Any]], *, label: str, mark: float | None = None) -> str:
    """One dot and its interval a row, with the name above it.

    rows: `name`, `value`, `low`, `high` and `strong` (drawn in the accent colour). mark: a dashed line at this value.
    """
    with mpl.rc_context(STYLE):
        figure, axes = _canvas(0.6 + 0.53 * len(rows))
        low = min([r["low"] for r in rows] + ([] if mark is None else [mark]))
        high = max([r["high"] for r in rows] + ([] if mark is None else [mark]))
        room = (high - low) or abs(high) or 1.0
        axes.set_xlim(low - 0.06 * room, high + 0.06 * room)
        axes.set_ylim(len(rows) - 0.55, -0.75)
        if mark is not None:
            axes.axvline(mark, color=FAINT, linewidth=1.2, linestyle=(0, (4, 3)))
        for at, row in enumerate(rows):
            colour = ACCENT if row.get("strong") else INK
            axes.plot([row["low"], row["high"]], [at, at], color=colour, linewidth=2.4, solid_capstyle="round")
            axes.plot([row["value"]], [at], "o", color=colour, markersize=7)
            axes.text(
                0.0, at - 0.36, _short(str(row["name"])), transform=axes.get_yaxis_transform(), fontsize=12,
                color=ACCENT if row.get("strong") else INK, va="center", parse_math=False,
            )  # fmt: skip
        axes.spines["left"].set_visible(False)
        axes.set_yticks([])
        axes.set_xlabel(label, parse_math=False)
        axes.locator_params(axis="x", nbins=5)
        return _svg(figure, f"{label} of {len(rows)} systems, each with its 95 % interval; the table has the numbers")


def calibration(curve: Sequence[Mapping[str, Any]]) -> str:
    """Stated confidence against how often it was right, one dot a bin with its area by rows, and the diagonal."""
    with mpl.rc_context(STYLE):
        figure, axes = _canvas(3.4)
        most = max(point["rows"] for point in curve)
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1.2, linestyle=(0, (4, 3)))
        said, was = [p["confidence"] for p in curve], [p["accuracy"] for p in curve]
        axes.plot(said, was, color=ACCENT, linewidth=1.4, alpha=0.6)
        axes.scatter(said, was, s=[14 + 46 * p["rows"] / most for p in curve], color=ACCENT, linewidths=0, zorder=3)
        axes.set(xlim=(-0.02, 1.04), ylim=(-0.02, 1.04))
        axes.set_xlabel("confidence it states")
        axes.set_ylabel("share it gets right")
        return _svg(figure, f"calibration curve of {len(curve)} bins; on the dashed line, confidence is right")


def agreement(points: Sequence[Mapping[str, Any]], *, label: str) -> str:
    """Predicted against measured, one dot a system, with its interval: `predicted`, `value`, `low`, `high`."""
    with mpl.rc_context(STYLE):
        figure, axes = _canvas(2.9)
        ends = [p[k] for p in points for k in ("predicted", "value")]
        axes.plot([min(ends), max(ends)], [min(ends), max(ends)], color=FAINT, linewidth=1.2, linestyle=(0, (4, 3)))
        for point in points:
            x = point["predicted"]
            axes.plot([x, x], [point["low"], point["high"]], color=ACCENT, alpha=0.55, solid_capstyle="round")
            axes.plot([x], [point["value"]], "o", color=ACCENT, markersize=6)
        axes.margins(0.08)
        axes.locator_params(nbins=5)
        axes.set_xlabel(f"{label} predicted", parse_math=False)
        axes.set_ylabel(f"{label} measured", parse_math=False)
        return _svg(
            figure, f"predicted against measured {label} of {len(points)} systems; on the dashed line, both agree"
        )


def thumbnail(image: Image, side: int = 112) -> str:
    """A PNG as a data address, at most `side` pixels wide and high; tiny images are enlarged without smoothing."""
    from PIL.Image import Resampling

    small = image.convert("RGB")
    grow = side // max(small.size)
    if grow > 1:
        small = small.resize((small.width * grow, small.height * grow), Resampling.NEAREST)
    small.thumbnail((side, side))
    held = io.BytesIO()
    small.save(held, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(held.getvalue()).decode("ascii")


def drawable(row: Mapping[str, Any]) -> bool:
    """Whether a row has a value and both ends, all finite."""
    return all(finite(row.get(k)) for k in ("value", "low", "high"))


def finite(value: Any) -> bool:
    """Whether a JSON value is a number that can be drawn.

    >>> finite(1.0), finite(None), finite(float("nan"))
    (True, False, False)
    """
    return isinstance(value, int | float) and isfinite(value)


def _canvas(height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    return figure, axes


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"


def _svg(figure: Figure, title: str) -> str:
    held = io.StringIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a glyph that matplotlib's font lacks is drawn by the reader's own
        FigureCanvasSVG(figure).print_svg(held, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = held.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<style.*?</style>", "", text, count=1, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r'(style="font-size: [0-9.]+px); font-family: [^;"]*;', r"\1;", text)
    box = re.search(r'viewBox="([-0-9. ]+)"', text)
    if box is None:
        raise ValueError("matplotlib wrote an SVG without a viewBox")
    inside = text[text.index(">") + 1 :]
    for stand_in, colour in PAGE.items():
        inside = inside.replace(stand_in, colour)
    head = f'<svg viewBox="{box[1]}" role="img" xmlns:xlink="http://www.w3.org/1999/xlink"><title>{_escaped(title)}</title>'
    return head + inside.strip()


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
