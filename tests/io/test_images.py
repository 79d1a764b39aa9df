"""Images built pixel by pixel, so that what must come out is known; and hostile ones."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from headstart.core import Unfit, Unreadable
from headstart.io.images import IMAGE, RawRows, decode, encode, fitted, in_parallel, stored


def held(image: Image.Image, format: str = "PNG", **settings: Any) -> dict[str, Any]:
    data = BytesIO()
    image.save(data, format, **settings)
    return {"bytes": data.getvalue(), "path": None}


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and has almost no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_a_photograph_is_turned_upright_by_its_exif() -> None:
    pixels = np.zeros((2, 3, 3), dtype=np.uint8)
    pixels[0, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by a quarter, clockwise
    upright = np.asarray(decode(held(Image.fromarray(pixels), exif=exif)))
    assert upright.shape == (3, 2, 3)
    assert upright[0, 1].tolist() == [255, 255, 255]


def test_sixteen_bits_become_eight_by_scaling() -> None:
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    assert np.asarray(decode(held(Image.fromarray(values))))[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_is_white(mode: str) -> None:
    assert decode(held(Image.new(mode, (2, 2)))).getpixel((0, 0)) == (255, 255, 255)


def test_half_transparent_black_on_white_is_grey() -> None:
    assert decode(held(Image.new("RGBA", (1, 1), (0, 0, 0, 128)))).getpixel((0, 0)) == (127, 127, 127)


def test_a_palette_with_a_transparent_colour_lies_on_white() -> None:
    image = Image.new("P", (1, 1), 1)
    image.putpalette([0, 0, 0, 255, 0, 0])
    assert decode(held(image)).getpixel((0, 0)) == (255, 0, 0)
    assert decode(held(image, transparency=1)).getpixel((0, 0)) == (255, 255, 255)


def test_cmyk_is_read_as_rgb() -> None:
    image = decode(held(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "JPEG", quality=95))
    red, green, blue = image.getpixel((1, 1))  # type: ignore[misc]  # RGB has three
    assert red > 200 > 60 > max(green, blue)


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "P"])
def test_an_image_of_one_pixel_is_an_image(mode: str) -> None:
    assert decode(held(Image.new(mode, (1, 1)))).size == (1, 1)
    assert fitted(decode(held(Image.new(mode, (1, 1)))), 8).shape == (8, 8, 3)


@pytest.mark.parametrize("size", [(20000, 20000), (14000, 12000)])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_decompression_bomb_is_refused_by_its_header(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(*size))
    with pytest.raises(Unreadable, match="million") as caught:
        decode({"bytes": None, "path": str(path)})
    assert "bomb.png" in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"not an image", png_header(100, 100), b"%!PS-Adobe-3.0 EPSF-3.0\n", b"GIF89a"])
def test_what_is_not_an_image_is_unreadable(data: bytes) -> None:
    with pytest.raises(Unreadable):
        decode({"bytes": data, "path": None})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="ünten\\.png"):
        decode({"bytes": None, "path": str(tmp_path / "ünten.png")})


def test_a_path_and_the_bytes_in_it_are_the_same_image(tmp_path: Path) -> None:
    image = held(Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)))
    (tmp_path / "ä.png").write_bytes(image["bytes"])
    assert decode({"bytes": None, "path": str(tmp_path / "ä.png")}).tobytes() == decode(image).tobytes()


def test_aspect_ratio_is_kept_and_the_rest_is_black() -> None:
    square = fitted(Image.new("RGB", (8, 4), (255, 255, 255)), 4)
    assert square[:, :, 0].tolist() == [[0] * 4, [255] * 4, [255] * 4, [0] * 4]


def test_an_image_of_the_right_size_is_not_resampled() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    assert (fitted(Image.fromarray(pixels), 5) == pixels).all()


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (np.array([[0.0, 1.0]]), [0, 255]),
        (np.array([[0.0, 200.0]]), [0, 200]),
        (np.array([[[7], [9]]], dtype=np.uint8), [7, 9]),
        (np.array([[0, 65535]], dtype=np.uint16), [0, 255]),
    ],
)
def test_arrays_of_any_kind_are_stored(pixels: np.ndarray[Any, Any], expected: list[int]) -> None:
    assert np.asarray(decode({"bytes": encode(pixels)}))[0, :, 0].tolist() == expected


def test_threads_keep_the_order() -> None:
    images = [held(Image.new("L", (1, 1), i)) for i in range(100)]
    assert in_parallel(lambda i: decode(i).getpixel((0, 0)), images) == [(i, i, i) for i in range(100)]


def test_rows_give_what_their_modality_has() -> None:
    image = RawRows(pa.table({"image": pa.array([stored(Image.new("RGB", (3, 1)))], IMAGE)}))
    assert image.images(4).shape == (1, 4, 4, 3)
    assert image.images(4) is image.images(4)
    with pytest.raises(Unfit):
        _ = image.texts
    pair = RawRows(pa.table({"text": ["a"], "text_pair": ["b"]}))
    assert (len(pair), pair.texts) == (1, ["a\nb"])
    assert RawRows(pa.table({"tokens": [["To", "Paris"]]})).texts == ["To Paris"]
    with pytest.raises(Unfit):
        pair.images(4)
    assert RawRows(pa.table({"a": [1.0]})).columns.column_names == ["a"]
