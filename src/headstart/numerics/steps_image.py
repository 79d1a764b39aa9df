"""The `pixels` and `hog` steps: small images as plain numbers, and as histograms of gradient directions.

Dalal and Triggs, "Histograms of Oriented Gradients for Human Detection", CVPR 2005.
"""

from __future__ import annotations

import numpy as np

from headstart.core import Raw

from .artifacts import Array, Step
from .steps import Matrix

GREY = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
CHUNK = 512  # rows at a time, so that gradients of large sets do not fill the memory


def pixels(raw: Raw, side: int) -> Step:
    """Pixels at that side; one grey number each where no image of these rows has a colour."""
    images = raw.images(side)
    coloured = bool(((images != images[..., :1]).any(axis=(1, 2, 3))).any())
    return Step(kind="pixels", settings={"side": side, "colour": coloured})


def hog(side: int, *, cell: int = 4, directions: int = 9) -> Step:
    return Step(kind="hog", settings={"side": side, "cell": cell, "directions": directions})


def run_pixels(step: Step, raw: Raw) -> Matrix:
    images = raw.images(int(step.settings["side"]))
    kept = images if step.settings["colour"] else grey(images)[..., None]
    flat = kept.reshape(len(kept), int(np.prod(kept.shape[1:])))
    return (flat / np.float32(255)).astype(np.float32)


def run_hog(step: Step, raw: Raw) -> Matrix:
    images = grey(raw.images(int(step.settings["side"])))
    cell, directions = int(step.settings["cell"]), int(step.settings["directions"])
    parts = [histograms(images[i : i + CHUNK], cell, directions) for i in range(0, max(len(images), 1), CHUNK)]
    return np.concatenate(parts)


def grey(images: Array) -> Array:
    """(rows, side, side) float32, 0 to 255.

    >>> float(grey(np.full((1, 1, 1, 3), 10, np.uint8))[0, 0, 0])
    10.0
    """
    return np.asarray(images @ GREY.astype(np.float32), dtype=np.float32)


def histograms(images: Array, cell: int, directions: int) -> Array:
    """Histograms of gradient directions, (rows, blocks × 4 × directions) float32.

    Directions are unsigned; a gradient is shared between the two nearest of them by its angle. Blocks of 2 × 2 cells
    overlap by one cell, and each has length one, after values above 0.2 are cut. The paper's interpolation between
    cells is left out.
    """
    rows, side = len(images), images.shape[1]
    down, across = np.zeros_like(images), np.zeros_like(images)
    down[:, 1:-1] = images[:, 2:] - images[:, :-2]
    across[:, :, 1:-1] = images[:, :, 2:] - images[:, :, :-2]
    size = np.hypot(down, across)
    place = (np.arctan2(down, across) % np.pi) * (directions / np.pi)
    low = np.floor(place)
    share = place - low
    cells = side // cell
    histogram = np.zeros((rows, cells, cells, directions), dtype=np.float32)
    for direction in range(directions):
        part = size * ((1 - share) * (low % directions == direction) + share * ((low + 1) % directions == direction))
        inside = part[:, : cells * cell, : cells * cell]
        histogram[..., direction] = inside.reshape(rows, cells, cell, cells, cell).sum(axis=(2, 4))
    corners = [histogram[:, i : cells - 1 + i, j : cells - 1 + j] for i in (0, 1) for j in (0, 1)]
    blocks = unit(np.concatenate(corners, axis=-1))
    return unit(np.minimum(blocks, np.float32(0.2))).reshape(rows, (cells - 1) ** 2 * 4 * directions)


def unit(blocks: Array) -> Array:
    """Each block over its length; a block without gradients stays near zero."""
    return np.asarray(blocks / np.sqrt((blocks**2).sum(axis=-1, keepdims=True) + 1.0 / 255))
