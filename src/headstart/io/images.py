"""Images as people have them, decoded safely to upright RGB; rows of any modality, decoded on demand."""

from __future__ import annotations

import os
import struct
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from PIL import Image, ImageOps, UnidentifiedImageError

from headstart.core import Unfit, Unreadable

Array = np.ndarray[Any, Any]
T = TypeVar("T")

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])  # exactly one of the two is set; paths are absolute
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")  # none of these runs another program
SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm")
MAX_PIXELS = 150_000_000  # 450 MB as RGB; the largest phone photographs have 108 or 200 million
_DAMAGE = (
    OSError, SyntaxError, ValueError, EOFError, struct.error, IndexError, KeyError, TypeError, AttributeError,
    OverflowError, ZeroDivisionError, MemoryError, RuntimeError, UnidentifiedImageError, Image.DecompressionBombError,
)  # fmt: skip  # what Pillow's decoders raise for damaged files


def name_of(image: Mapping[str, Any]) -> str:
    """What a message calls an image: its path, or that it lies in the table."""
    return f"`{image['path']}`" if image.get("path") else "an image stored in the table"


def decode(image: Mapping[str, Any]) -> Image.Image:
    """An upright RGB image from one value of the `image` column.

    EXIF rotation is applied, transparency lies on white, 16 bits become 8, and only the first frame is read.
    Raises `Unreadable` for a damaged file, an unknown format, or more than `MAX_PIXELS` pixels, before these are
    allocated.
    """
    data = image.get("bytes")
    Image.init()  # Pillow learns its formats on first use, and not all of them when it is told which to try
    try:
        with Image.open(BytesIO(data) if data is not None else _regular(image), formats=FORMATS) as opened:
            width, height = opened.size
            if width * height > MAX_PIXELS:
                raise _bomb(image, f"{width} × {height}")
            return _rgb(ImageOps.exif_transpose(opened))
    except Image.DecompressionBombError as error:
        raise _bomb(image, "far too many") from error
    except _DAMAGE as error:
        known = ", ".join(FORMATS)
        said = (str(error).splitlines() or [repr(error)])[0]
        if isinstance(error, UnidentifiedImageError):
            said = f"it is none of {known}"
        raise Unreadable(
            f"{name_of(image)} is not an image that can be read: {said}",
            where=name_of(image),
            fix="replace the file, or remove it",
        ) from error


def _regular(image: Mapping[str, Any]) -> str:
    path = image.get("path") or ""
    if not os.path.isfile(path):
        raise FileNotFoundError("there is no such file")
    return path


def _bomb(image: Mapping[str, Any], size: str) -> Unreadable:
    return Unreadable(
        f"{name_of(image)} has {size} pixels, and more than {MAX_PIXELS // 10**6} million are not decoded",
        where=name_of(image),
        fix="make the image smaller, or remove it",
    )


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I;16", "I;16B", "I;16L", "I;16N", "I", "F"):
        return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        above = image.convert("RGBA")
        below = Image.new("RGBA", above.size, (255, 255, 255, 255))
        return Image.alpha_composite(below, above).convert("RGB")
    return image.convert("RGB") if image.mode != "RGB" else image.copy()


def _eight_bits(values: Array) -> Array:
    """16-bit values over 257, numbers from 0 to 1 times 255, all else as it is; uint8."""
    pixels = np.nan_to_num(values.astype(np.float64))
    if values.dtype == np.uint16 or (values.dtype.kind in "iu" and pixels.max(initial=0) > 255):
        pixels = pixels / 257
    elif values.dtype.kind == "f" and pixels.max(initial=0) <= 1:
        pixels = pixels * 255
    return np.asarray(np.clip(np.rint(pixels), 0, 255), dtype=np.uint8)


def encode(pixels: Array) -> bytes:
    """PNG bytes of one array: (height, width) or (height, width, 1, 3 or 4); 8 or 16 bits, or numbers 0-1 or 0-255."""
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.dtype != np.uint8:
        pixels = _eight_bits(pixels)
    held = BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(held, "PNG", compress_level=1)
    return held.getvalue()


def in_parallel(work: Callable[[Mapping[str, Any]], T], images: Sequence[Mapping[str, Any]]) -> list[T]:
    """What `work` gives for each image, in order, on a few threads; Pillow frees the lock while it decodes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, about what `decode` refuses or mends
        tiny = sum(len(image.get("bytes") or b"\0" * 8192) for image in images) < 4096 * len(images)
        if len(images) < 32 or tiny:  # for these the hand-over costs more than the decoding
            return [work(image) for image in images]
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            parts = [images[start : start + 64] for start in range(0, len(images), 64)]
            return [made for part in pool.map(lambda part: [work(image) for image in part], parts) for made in part]


def stored(image: Any) -> dict[str, Any]:
    """One value of the `image` column from what people hold: bytes, a Pillow image, or an array of pixels."""
    if isinstance(image, (bytes, bytearray, memoryview)):
        return {"bytes": bytes(image), "path": None}
    if isinstance(image, Image.Image):
        return {"bytes": encode(np.asarray(_rgb(ImageOps.exif_transpose(image)))), "path": None}
    return {"bytes": encode(np.asarray(image)), "path": None}


def fitted(image: Image.Image, side: int) -> Array:
    """(side, side, 3) uint8: the whole image, aspect ratio kept, in the middle of black."""
    width, height = image.size
    scale = side / max(width, height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)
    canvas = np.zeros((side, side, 3), dtype=np.uint8)
    left, top = (side - size[0]) // 2, (side - size[1]) // 2
    canvas[top : top + size[1], left : left + size[0]] = np.asarray(small)
    return canvas


class RawRows:
    """Rows of `Rows.inputs` as people have them: texts, images or columns, decoded on demand (a `core.Raw`)."""

    __slots__ = ("_images", "inputs")

    def __init__(self, inputs: pa.Table) -> None:
        self.inputs = inputs
        self._images: tuple[int, Array] | None = None  # the side asked for last

    def __len__(self) -> int:
        return int(self.inputs.num_rows)

    @property
    def texts(self) -> list[str]:
        """One text a row: a pair is joined by a line break, tokens by spaces."""
        names = self.inputs.column_names
        if "tokens" in names:
            return [" ".join(tokens) for tokens in self.inputs["tokens"].to_pylist()]
        if "text" not in names:
            raise self._without("text")
        texts = self.inputs["text"].to_pylist()
        if "text_pair" in names:
            return [f"{a}\n{b}" for a, b in zip(texts, self.inputs["text_pair"].to_pylist(), strict=True)]
        return list(texts)

    def images(self, side: int) -> Array:
        """(rows, side, side, 3) uint8, upright, resized with aspect ratio kept and padded."""
        if "image" not in self.inputs.column_names:
            raise self._without("image")
        if self._images is None or self._images[0] != side:
            values = self.inputs["image"].to_pylist()
            arrays = in_parallel(lambda value: fitted(decode(value), side), values)
            self._images = (side, np.stack(arrays) if arrays else np.zeros((0, side, side, 3), dtype=np.uint8))
        return self._images[1]

    @property
    def columns(self) -> pa.Table:
        return self.inputs

    def _without(self, wanted: str) -> Unfit:
        return Unfit(
            f"these rows have no `{wanted}`, only {', '.join(f'`{c}`' for c in self.inputs.column_names)}",
            where="the rows of the target",
            fix=f"use a method for the modality of these rows, or name the column with --{wanted}",
        )
