"""Colours in every form: modes, depths, alpha, profiles, NaN. Where one comes, its colours are known."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from hostile import raw
from hostile.cases import QUARTERS, Case, Color, picture, refused
from hostile.raw import chunk, encoded, header, png, profile, quarters, split_png
from PIL import Image

RED, PLAIN = (255, 0, 0), (120, 60, 30)


def cases() -> Iterator[Case]:
    yield from _modes()
    yield from _sixteen_bit()
    yield from _floats()
    yield from _alpha()
    yield from _profiles()


def _modes() -> Iterator[Case]:
    image = Image.fromarray(quarters())
    near: dict[str, int] = {"JPEG": 40}
    for mode, kind in (
        ("CMYK", "JPEG"),
        ("CMYK", "TIFF"),
        ("YCbCr", "TIFF"),
        ("P", "PNG"),
        ("P", "GIF"),
        ("P", "BMP"),
    ):
        build = partial(encoded, image.convert(mode), kind)
        yield picture(f"{kind.lower()}-{mode.lower()}", build, *QUARTERS, near=near.get(kind, 6))
    yield picture("jpeg-ycck", lambda: _ycck(), *QUARTERS, near=60)
    yield picture("tiff-lab", lambda: encoded(_lab(quarters()), "TIFF"), *QUARTERS, near=30)
    black_and_white = ((0, 0, 0), (255, 255, 255), (0, 0, 0), (255, 255, 255))
    stripes = Image.fromarray(quarters()[..., 1]).point(lambda value: 255 if value > 127 else 0)
    for kind in ("PNG", "TIFF", "BMP", "PPM", "GIF"):
        yield picture(f"{kind.lower()}-1-bit", partial(encoded, stripes.convert("1"), kind), *black_and_white)
    for depth in (1, 2, 4):
        yield picture(f"png-grey-of-{depth}-bits", partial(_grey_png, depth), (255, 255, 255))
    yield picture("png-interlaced", lambda: _interlaced(), (7, 7, 7))
    yield picture(
        "bmp-rle-of-grey", lambda: raw.bmp(4, 2, 8, 1, b"\x04\x80\0\0\x04\x80\0\x01"), (128, 128, 128)
    )
    yield picture("bmp-of-16-bits", lambda: raw.bmp(2, 1, 16, 0, struct.pack("<2H", 0x7C00, 0x7C00)), RED)
    yield picture("ppm-plain", lambda: b"P3 # a comment\n2 1 255 120 60 30 120 60 30", PLAIN)
    yield picture("ppm-of-white-15", lambda: b"P6 1 1 15\n\x0f\x00\x00", RED)


def _ycck() -> bytes:
    """Pillow writes CMYK; an Adobe marker with transform 2 says that three of them are YCbCr."""
    inks = np.asarray(Image.fromarray(quarters()).convert("CMYK"))
    ink = Image.fromarray(np.ascontiguousarray(inks[..., :3])).convert("YCbCr")
    planes = np.dstack([np.asarray(ink), 255 - inks[..., 3]])
    data = encoded(Image.fromarray(255 - planes, "CMYK"), "JPEG", quality=95, subsampling=0)
    at = data.index(b"Adobe")
    return data[: at + 11] + b"\x02" + data[at + 12 :]


def _lab(picture: Any) -> Image.Image:
    from PIL import ImageCms

    source, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    changed = ImageCms.profileToProfile(Image.fromarray(picture), source, lab, outputMode="LAB")
    assert changed is not None
    return changed


def _grey_png(depth: int) -> bytes:
    line = b"\0" + b"\xff" * (8 * depth // 8)
    import zlib

    return png(header(8, 8, depth, color=0), chunk(b"IDAT", zlib.compress(line * 8)))


def _interlaced() -> bytes:
    import zlib

    passes = ((1, 1), (1, 1), (2, 1), (2, 2), (4, 2), (4, 4), (8, 4))
    lines = b"".join((b"\0" + b"\x07" * width) * height for width, height in passes)
    return png(header(8, 8, color=0, interlaced=1), chunk(b"IDAT", zlib.compress(lines)))


def _sixteen_bit() -> Iterator[Case]:
    ramp = np.repeat(np.array([[0, 21845], [43690, 65535]], np.uint16), 8, 0).repeat(8, 1)
    steps: tuple[Color, ...] = ((0, 0, 0), (85, 85, 85), (170, 170, 170), (255, 255, 255))
    for kind in ("PNG", "TIFF", "JPEG2000"):
        yield picture(f"{kind.lower()}-16-bit-grey", partial(encoded, Image.fromarray(ramp), kind), *steps)
    yield picture("png-16-bit-rgb", lambda: _cv2_written(".png", 257), *QUARTERS)
    # Pillow rounds up without a bound there: its brightest 128 of 65536 come out black.
    yield refused("jpeg2000-16-bit-rgb", lambda: _cv2_written(".jp2", 257))
    yield picture("tiff-16-bit-rgb", lambda: _cv2_written(".tiff", 257), *QUARTERS)
    yield picture("ppm-16-bit", lambda: b"P6 1 1 65535\n" + struct.pack(">3H", 65535, 0, 0), RED)
    yield picture("pgm-16-bit", lambda: b"P5 1 1 65535\n" + struct.pack(">H", 32896), (128, 128, 128))
    yield Case("tiff-16-bit-signed", lambda: raw.tiff(raw.plain_tags(2, 2, 16, format=2), bytes(8)))
    yield Case(
        "tiff-32-bit", lambda: raw.tiff(raw.plain_tags(2, 2, 32), struct.pack("<4I", *[2**32 - 1] * 4))
    )
    yield Case("tiff-12-bit", lambda: raw.tiff(raw.plain_tags(8, 8, 12), bytes(96)))


def _cv2_written(suffix: str, scale: int) -> bytes:
    import cv2

    done, data = cv2.imencode(suffix, quarters()[..., ::-1].astype(np.uint16) * scale)
    assert done
    return data.tobytes()


def _floats() -> Iterator[Case]:
    yield picture("tiff-float", lambda: _float_tiff([0.5] * 4), (128, 128, 128))
    yield picture(
        "tiff-float-to-255",
        lambda: _float_tiff([255.0, 127.5, 0.0, 0.0]),
        (255, 255, 255),
        (128, 128, 128),
        (0, 0, 0),
        (0, 0, 0),
    )
    nan, infinite = float("nan"), float("inf")
    yield picture("tiff-nan", lambda: _float_tiff([nan] * 4), (0, 0, 0))
    yield picture(
        "tiff-nan-among-others",
        lambda: _float_tiff([nan, 1.0, 0.5, 0.0]),
        (0, 0, 0),
        (255, 255, 255),
        (128, 128, 128),
        (0, 0, 0),
    )
    yield picture(
        "tiff-infinite",
        lambda: _float_tiff([infinite, -infinite, 0.5, 1.0]),
        (255, 255, 255),
        (0, 0, 0),
        (128, 128, 128),
        (255, 255, 255),
    )
    yield picture(
        "tiff-largest-floats",
        lambda: _float_tiff([3e38, -3e38, 0.0, 0.0]),
        (255, 255, 255),
        (0, 0, 0),
        (0, 0, 0),
        (0, 0, 0),
    )
    yield picture("tiff-subnormal", lambda: _float_tiff([1e-40] * 4), (0, 0, 0))
    yield refused("tiff-double", lambda: raw.tiff(raw.plain_tags(2, 2, 64, format=3), bytes(32)))
    yield refused("tiff-float-rgb", lambda: raw.tiff(raw.plain_tags(2, 2, [32] * 3, 3, format=3), bytes(48)))
    yield refused("tiff-half-float", lambda: raw.tiff(raw.plain_tags(2, 2, 16, format=3), bytes(8)))
    yield picture("pfm", lambda: b"Pf\n1 1\n-1.0\n" + struct.pack("<f", 0.5), (128, 128, 128))
    yield picture("pfm-nan", lambda: b"Pf\n1 1\n-1.0\n" + struct.pack("<f", nan), (0, 0, 0))


def _float_tiff(values: list[float]) -> bytes:
    return raw.tiff(raw.plain_tags(2, 2, 32, format=3), struct.pack("<4f", *values))


def _alpha() -> Iterator[Case]:
    half = Image.new("RGBA", (8, 8), (*PLAIN, 0))
    half.paste((*PLAIN, 255), (0, 0, 8, 4))
    white = (255, 255, 255)
    for kind in ("PNG", "WEBP", "TIFF", "AVIF", "JPEG2000"):
        build = partial(encoded, half, kind, **({"lossless": True} if kind == "WEBP" else {}))
        yield picture(f"{kind.lower()}-alpha-over-white", build, PLAIN, PLAIN, white, white, near=10)
    grey = half.convert("LA")
    yield picture(
        "png-grey-with-alpha", lambda: encoded(grey, "PNG"), (75, 75, 75), (75, 75, 75), white, white, near=6
    )
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([*PLAIN, 1, 2, 3])
    palette.paste(1, (0, 4, 8, 8))
    yield picture(
        "png-palette-with-clear-colour",
        lambda: encoded(palette, "PNG", transparency=1),
        PLAIN,
        PLAIN,
        white,
        white,
    )
    yield picture(
        "gif-palette-with-clear-colour",
        lambda: encoded(palette, "GIF", transparency=1),
        PLAIN,
        PLAIN,
        white,
        white,
    )
    yield picture(
        "png-palette-with-alphas",
        lambda: encoded(palette, "PNG", transparency=b"\xff\x80"),
        PLAIN,
        PLAIN,
        (128, 128, 129),
        (128, 128, 129),
    )
    plain = Image.new("RGB", (4, 4), PLAIN)
    yield picture("png-clear-rgb", lambda: encoded(plain, "PNG", transparency=PLAIN), white)
    yield picture("png-clear-grey", lambda: encoded(Image.new("L", (4, 4), 9), "PNG", transparency=9), white)
    yield Case("png-clear-rgb-broken", lambda: split_png(chunk(b"tRNS", b"\1")))
    yield picture("png-16-bit-alpha", lambda: _alpha_of_16_bits(), white)


def _alpha_of_16_bits() -> bytes:
    import zlib

    return png(header(1, 1, 16, color=6), chunk(b"IDAT", zlib.compress(b"\0" + bytes(8))))


def _profiles() -> Iterator[Case]:
    """A colour whose sRGB is known, in spaces that call it otherwise."""
    image = Image.fromarray(quarters())
    swapped = ((0, 255, 0), (255, 0, 0), (0, 0, 255), (255, 255, 255))
    for kind in ("PNG", "JPEG", "WEBP", "TIFF", "AVIF"):
        options: dict[str, Any] = {"quality": 95} if kind in {"JPEG", "WEBP", "AVIF"} else {}
        build = partial(encoded, image, kind, icc_profile=profile(raw.SWAPPED), **options)
        yield picture(f"{kind.lower()}-profile-red-is-green", build, *swapped, near=20)
    # sRGB's (200, 60, 40) in wider spaces, by their primaries and a gamma of 2.2.
    for name, primaries, color in (
        ("display-p3", raw.DISPLAY_P3, (185, 73, 53)),
        ("rec-2020", raw.REC_2020, (165, 80, 54)),
    ):
        wide = Image.new("RGB", (8, 8), color)
        yield picture(
            f"png-profile-{name}",
            partial(encoded, wide, icc_profile=profile(primaries)),
            (200, 60, 40),
            near=6,
        )
    yield picture("png-profile-srgb", lambda: encoded(image, icc_profile=raw.srgb()), *QUARTERS, near=0)
    yield picture(
        "png-profile-linear",
        lambda: encoded(Image.new("RGB", (4, 4), (55, 55, 55)), icc_profile=profile(gamma=1.0)),
        (128, 128, 128),
        near=3,
    )
    alpha = Image.new("RGBA", (8, 8), (255, 0, 0, 255))
    yield picture(
        "png-profile-and-alpha", lambda: encoded(alpha, icc_profile=profile(raw.SWAPPED)), (0, 255, 0)
    )
    palette = Image.new("RGB", (8, 8), RED).convert("P")
    yield picture(
        "png-profile-and-palette",
        lambda: encoded(palette, icc_profile=profile(raw.SWAPPED)),
        (0, 255, 0),
        near=4,
    )
    right = profile(raw.SWAPPED)
    broken = {
        "empty": b"",
        "of-text": b"no profile at all",
        "cut": right[:150],
        "of-grey-space": right.replace(b"RGB ", b"GRAY", 1),
        "of-cmyk-space": right.replace(b"RGB ", b"CMYK", 1),
        "of-4-billion-tags": right[:128] + b"\xff\xff\xff\xff" + right[132:],
        "without-tags": right[:128] + bytes(4),
        "of-offsets-beyond-end": right[:136] + b"\x7f\xff\xff\xff" + right[140:],
        "of-a-megabyte-of-zeros": bytes(10**6),
    }
    for name, data in broken.items():
        for kind in ("PNG", "JPEG", "TIFF"):
            yield Case(f"{kind.lower()}-profile-{name}", partial(_with_profile, image, kind, data), "picture")
    yield picture("png-profile-no-zlib", lambda: split_png(chunk(b"iCCP", b"a\0\0nonsense")), *QUARTERS)
    yield picture(
        "jpeg-grey-with-rgb-profile", lambda: encoded(image.convert("L"), "JPEG", icc_profile=right)
    )
    yield picture(
        "jpeg-cmyk-with-rgb-profile",
        lambda: encoded(image.convert("CMYK"), "JPEG", icc_profile=right),
        *QUARTERS,
        near=60,
    )


def _with_profile(image: Image.Image, kind: str, data: bytes) -> bytes:
    return encoded(image, kind, icc_profile=data or b"\0")
