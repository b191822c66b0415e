"""Sizes, turns, frames and modes: unusual, and most of them right."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from hostile import raw
from hostile.broken import KINDS
from hostile.cases import QUARTERS, Case, picture, refused
from hostile.raw import encoded, quarters
from PIL import Image

# How a picture that needs this turn lies in its file.
TURNS: dict[int, Any] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}


def cases() -> Iterator[Case]:
    for kind in KINDS:
        yield Case(
            f"{kind.lower()}-1x1", partial(_plain, 1, 1, kind), "picture", ((200, 30, 60),), 30, (1, 1)
        )
    for kind in ("PNG", "JPEG", "TIFF", "BMP"):
        for width, height in ((1, 20000), (20000, 1)):
            size = (1, 1536) if width == 1 else (1536, 1)
            build = partial(_plain, width, height, kind)
            yield Case(f"{kind.lower()}-{width}x{height}", build, "picture", ((200, 30, 60),), 8, size)
    for turn in TURNS:
        for kind in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF"):
            build = partial(_turned, turn, kind)
            yield Case(f"{kind.lower()}-orientation-{turn}", build, "picture", QUARTERS, 25, (60, 40))
    yield from _frames()
    yield from _claims()


def _plain(width: int, height: int, kind: str) -> bytes:
    return encoded(Image.new("RGB", (width, height), (200, 30, 60)), kind, **KINDS[kind])


def _turned(turn: int, kind: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = turn
    lying = np.ascontiguousarray(TURNS[turn](quarters()))
    return encoded(lying, kind, exif=exif, **({"quality": 95} if kind in {"JPEG", "WEBP", "AVIF"} else {}))


def _frames() -> Iterator[Case]:
    for kind in ("GIF", "PNG", "WEBP", "AVIF", "TIFF"):
        yield picture(f"{kind.lower()}-animated", partial(_animated, kind), (200, 30, 60), near=12)
    yield picture("gif-5000-frames", lambda: _many_gif_frames(5000), (0, 0, 0))
    yield picture(
        "tiff-500-pages",
        lambda: encoded(
            Image.new("L", (4, 4), 9), "TIFF", save_all=True, append_images=[Image.new("L", (4, 4))] * 500
        ),
        (9, 9, 9),
    )
    yield Case("jpeg-multi-picture", lambda: _mpo(), "picture", ((200, 30, 60),), 8)
    yield picture("jpeg-and-pictures-after", lambda: _plain(9, 9, "JPEG") * 30, (200, 30, 60), near=8)
    yield picture("png-with-a-megabyte-after", lambda: _plain(9, 9, "PNG") + bytes(2**20), (200, 30, 60))
    yield picture(
        "jpeg-with-a-megabyte-after", lambda: _plain(9, 9, "JPEG") + b"\xff" * 2**20, (200, 30, 60), near=8
    )


def _animated(kind: str) -> bytes:
    frames = [Image.new("RGB", (8, 8), color) for color in ((200, 30, 60), (0, 255, 0), (0, 0, 255))]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:])


def _mpo() -> bytes:
    frames = [Image.new("RGB", (8, 8), color) for color in ((200, 30, 60), (0, 255, 0))]
    return encoded(frames[0], "MPO", save_all=True, append_images=frames[1:])


def _many_gif_frames(count: int) -> bytes:
    data = raw.gif(4, 4)
    frame = data[data.index(b",") : -1]
    return data[:-1] + frame * count + b";"


def _claims() -> Iterator[Case]:
    """Headers that claim what is not there."""
    pixels = raw.chunk(b"IDAT", raw.rows(2, 2))
    yield refused("png-claims-30000x30000", lambda: raw.png(raw.header(30000, 30000), pixels))
    yield refused("png-claims-70000x100", lambda: raw.png(raw.header(70000, 100), pixels))
    yield Case("png-claims-9000x9000-grey", lambda: raw.png(raw.header(9000, 9000, color=0), pixels))
    yield Case("png-claims-7000x7000", lambda: raw.png(raw.header(7000, 7000), pixels))
    yield refused("png-claims-7000x7000-with-alpha", lambda: raw.png(raw.header(7000, 7000, color=6), pixels))
    yield refused("jpeg-claims-65535x65535", lambda: raw.resized_jpeg(65535, 65535))
    yield Case("jpeg-claims-65500x1300", lambda: raw.resized_jpeg(65500, 1300))
    yield Case("jpeg-claims-9000x9000", lambda: raw.resized_jpeg(9000, 9000))
    yield refused(
        "jpeg-claims-9000x9000-progressive",
        lambda: raw.resized_jpeg(9000, 9000, progressive=True, subsampling=0),
    )
    yield refused("gif-claims-65535x65535", lambda: raw.gif(65535, 65535))
    yield Case("gif-claims-6000x6000", lambda: raw.gif(6000, 6000))
    yield refused("bmp-claims-30000x30000", lambda: raw.bmp(30000, 30000, 24, 0, bytes(64)))
    yield Case("bmp-claims-7000x7000-rle", lambda: raw.bmp(7000, 7000, 8, 1, b"\0\x01"))
    yield refused("tiff-claims-30000x30000", lambda: raw.tiff(raw.plain_tags(30000, 30000), bytes(64)))
    yield Case(
        "tiff-claims-5000x5000-deflate",
        lambda: raw.tiff(raw.plain_tags(5000, 5000, [8, 8, 8], 3, compression=8), bytes(64)),
    )
    yield refused(
        "tiff-claims-6000x6000-of-6-samples",
        lambda: raw.tiff(raw.plain_tags(6000, 6000, [16] * 4, 4, compression=8), bytes(64)),
    )
    yield refused("ppm-claims-30000x30000", lambda: b"P6 30000 30000 255\n" + bytes(64))
    yield Case("ppm-claims-7000x7000", lambda: b"P6 7000 7000 255\n" + bytes(64))
    yield refused("webp-claims-16383x16383", lambda: _webp_header(16383, 16383))
    yield Case("webp-claims-3500x3500", lambda: _webp_header(3500, 3500))
    jpeg_2000 = partial(encoded, quarters(), "JPEG2000")
    for name, fields in {
        "30000x30000": {"width": 30000, "height": 30000},
        "tiles-of-1x1": {"width": 2000, "height": 2000, "tile": 1},
        "tiles-of-0x0": {"tile": 0},
        "16384-channels": {"channels": 16384},
        "0-channels": {"channels": 0},
    }.items():
        yield Case(f"jpeg2000-claims-{name}", partial(_changed, jpeg_2000, fields), "refused")
    yield Case("avif-claims-16000x16000", lambda: _avif_header(16000, 16000))


def _changed(build: Any, fields: dict[str, int]) -> bytes:
    return raw.jpeg_2000_size(build(), **fields)


def _webp_header(width: int, height: int) -> bytes:
    """A lossy frame whose size is another than its data's."""
    data = bytearray(encoded(quarters(), "WEBP", quality=80))
    at = data.index(b"\x9d\x01\x2a") + 3
    data[at : at + 4] = width.to_bytes(2, "little") + height.to_bytes(2, "little")
    return bytes(data)


def _avif_header(width: int, height: int) -> bytes:
    data = bytearray(encoded(quarters(), "AVIF"))
    at = data.index(b"ispe") + 8
    data[at : at + 8] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    return bytes(data)
