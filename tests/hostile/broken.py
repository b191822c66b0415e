"""Files cut short, with bytes turned, and with structure that contradicts itself."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from hostile import raw
from hostile.cases import Case, picture, refused
from hostile.raw import chunk, encoded, header, png, quarters, rows, segment, split_jpeg, split_png
from PIL import Image

KINDS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 90},
    "PNG": {},
    "GIF": {},
    "WEBP": {"lossless": True},
    "BMP": {},
    "TIFF": {"compression": "tiff_lzw"},
    "PPM": {},
    "AVIF": {},
    "JPEG2000": {},
}
CUTS = (1, 4, 9, 20, 40, 100, 0.25, 0.5, 0.75, 0.9, -1)


def cases() -> Iterator[Case]:
    for kind, options in KINDS.items():
        for cut in CUTS:
            yield Case(f"{kind.lower()}-cut-{cut}", partial(_cut, kind, options, cut))
        for seed in range(3):
            yield Case(f"{kind.lower()}-turned-{seed}", partial(_turned, kind, options, seed))
        yield Case(f"{kind.lower()}-magic-of-png", partial(_other_magic, kind, options))
    yield from _png()
    yield from _jpeg()
    yield from _tiff()
    yield from _gif_and_bmp()
    yield from _exif()


def _file(kind: str, options: dict[str, Any]) -> bytes:
    return encoded(raw.noise(48), kind, **options)


def _cut(kind: str, options: dict[str, Any], cut: float) -> bytes:
    data = _file(kind, options)
    return data[: cut if isinstance(cut, int) else int(len(data) * cut)]


def _turned(kind: str, options: dict[str, Any], seed: int) -> bytes:
    data = bytearray(_file(kind, options))
    random = np.random.default_rng(seed)
    for at in random.integers(2, len(data), 20):
        data[at] = random.integers(256)
    return bytes(data)


def _other_magic(kind: str, options: dict[str, Any]) -> bytes:
    return raw.PNG_SIGNATURE + _file(kind, options)[8:]


def _png() -> Iterator[Case]:
    plain = chunk(b"IDAT", rows(2, 2))
    yield refused("png-without-picture", lambda: png(header(2, 2)))
    yield refused("png-without-header", lambda: png(plain))
    yield refused("png-of-no-size", lambda: png(header(0, 0), plain))
    yield refused("png-of-no-height", lambda: png(header(2, 0), plain))
    yield refused("png-of-2-billion", lambda: png(header(2**31 - 1, 2**31 - 1), plain))
    yield refused("png-depth-3", lambda: png(header(2, 2, depth=3), plain))
    yield refused("png-color-5", lambda: png(header(2, 2, color=5), plain))
    yield picture("png-zero-length-idat", lambda: png(header(2, 2), chunk(b"IDAT"), plain), (0, 0, 0))
    yield refused("png-only-zero-length-idat", lambda: png(header(2, 2), chunk(b"IDAT"), chunk(b"IDAT")))
    yield Case("png-wrong-checksum", lambda: png(header(2, 2), chunk(b"IDAT", rows(2, 2), wrong=True)))
    yield Case("png-wrong-header-checksum", lambda: png(chunk(b"IHDR", bytes(13), wrong=True), plain))
    yield refused("png-idat-no-zlib", lambda: png(header(20, 20), chunk(b"IDAT", b"hello" * 9)))
    yield Case("png-palette-missing", lambda: png(header(2, 2, color=3), chunk(b"IDAT", rows(2, 2, 1))))
    yield Case(
        "png-palette-too-short",
        lambda: png(header(2, 2, color=3), chunk(b"PLTE", b"\1\2\3"), chunk(b"IDAT", rows(2, 2, 1, 200))),
    )
    yield Case("png-two-headers", lambda: png(header(2, 2), header(30000, 30000), plain))
    yield Case(
        "png-chunk-longer-than-file", lambda: raw.PNG_SIGNATURE + header(2, 2) + b"\x7f\xff\xff\xffIDAT"
    )
    yield Case("png-negative-chunk", lambda: raw.PNG_SIGNATURE + header(2, 2) + b"\xff\xff\xff\xffIDAT")
    yield Case("png-nul-in-text", lambda: split_png(chunk(b"tEXt", b"\0\0\0a\0")))
    yield Case("png-text-of-2-mb", lambda: split_png(chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**21)))))
    yield Case(
        "png-itext-broken", lambda: split_png(chunk(b"iTXt", b"a\0\1\0x\0y\0not zlib"), chunk(b"iTXt", b"a"))
    )
    yield Case(
        "png-raw-exif-of-no-hex", lambda: split_png(chunk(b"tEXt", b"Raw profile type exif\0a\nb\nc\nzz"))
    )


def _jpeg() -> Iterator[Case]:
    yield refused("jpeg-start-alone", lambda: b"\xff\xd8\xff\xd9")
    yield refused("jpeg-scan-without-frame", lambda: b"\xff\xd8" + segment(0xDA, bytes(10)))
    yield Case("jpeg-two-frames", lambda: split_jpeg(segment(0xC0, b"\x08\0\x08\0\x08\x01\x01\x11\0")))
    yield Case("jpeg-length-0", lambda: split_jpeg(b"\xff\xe0\0\0"))
    yield Case("jpeg-length-1", lambda: split_jpeg(b"\xff\xe0\0\1"))
    yield Case(
        "jpeg-12-bit",
        lambda: encoded(quarters(), "JPEG").replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c"),
    )
    yield Case("jpeg-lossless-frame", lambda: encoded(quarters(), "JPEG").replace(b"\xff\xc0", b"\xff\xc3"))
    yield Case("jpeg-arithmetic-frame", lambda: encoded(quarters(), "JPEG").replace(b"\xff\xc0", b"\xff\xc9"))
    yield Case(
        "jpeg-frame-of-255-parts", lambda: split_jpeg(segment(0xC0, b"\x08\0\x08\0\x08\xff" + bytes(765)))
    )
    yield Case("jpeg-sampling-0", lambda: split_jpeg(segment(0xC2, b"\x08\0\x08\0\x08\x01\x01\0\0")))
    yield Case(
        "jpeg-tables-broken", lambda: split_jpeg(segment(0xDB, b"\x43" + bytes(3)), segment(0xC4, b"\xff"))
    )
    yield Case(
        "jpeg-photoshop-broken", lambda: split_jpeg(segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed\xff"))
    )
    yield Case("jpeg-mpo-of-4-billion", lambda: split_jpeg(segment(0xE2, _multi_picture(2**32 - 1))))
    yield Case("jpeg-mpo-without-entries", lambda: split_jpeg(segment(0xE2, _multi_picture(2))))
    yield Case("jpeg-jfif-broken", lambda: split_jpeg(segment(0xE0, b"JFIF")))
    yield Case("jpeg-adobe-broken", lambda: split_jpeg(segment(0xEE, b"Adobe")))


def _multi_picture(count: int) -> bytes:
    tags = [raw.tag(0xB000, raw.UNDEFINED, b"0100"), raw.tag(0xB001, raw.LONG, count)]
    tags.append(raw.tag(0xB002, raw.UNDEFINED, bytes(32)))
    return b"MPF\0II*\0" + struct.pack("<I", 8) + raw.directory(tags, 8)


def _tiff() -> Iterator[Case]:
    tags, pixels = raw.plain_tags(8, 8), bytes(64)
    place = 8 + len(pixels)
    yield Case("tiff-directory-loop", lambda: raw.tiff(tags, pixels, following=place))
    yield Case("tiff-directory-beyond-end", lambda: raw.tiff(tags, pixels, following=2**31))
    yield refused("tiff-first-directory-beyond-end", lambda: b"II*\0" + struct.pack("<I", 2**31) + bytes(99))
    yield refused("tiff-directory-is-header", lambda: b"II*\0\0\0\0\0" + bytes(99))
    yield refused("tiff-no-tags", lambda: b"II*\0\x08\0\0\0" + bytes(6))
    yield refused(
        "tiff-65535-samples",
        lambda: raw.tiff([*raw.plain_tags(8, 8)[:-3], raw.tag(277, raw.LONG, 65535)], pixels),
    )
    yield Case("tiff-strip-beyond-end", lambda: raw.tiff([*tags, raw.tag(273, raw.LONG, 2**31)], pixels))
    yield Case("tiff-strip-of-4-gb", lambda: raw.tiff([*tags, raw.tag(279, raw.LONG, 2**32 - 1)], pixels))
    yield Case(
        "tiff-no-rows-a-strip", lambda: raw.tiff([*tags[:-2], tags[-1], raw.tag(278, raw.LONG, 0)], pixels)
    )
    yield refused(
        "tiff-compression-unknown", lambda: raw.tiff(raw.plain_tags(8, 8, compression=12345), pixels)
    )
    for number, name in (
        (5, "lzw"),
        (8, "deflate"),
        (7, "jpeg"),
        (4, "fax"),
        (32773, "packbits"),
        (50000, "zstd"),
    ):
        yield Case(f"tiff-{name}-of-noise", partial(_noisy_tiff, number))
    yield Case(
        "tiff-tile-of-no-size",
        lambda: raw.tiff([*tags, raw.tag(322, raw.LONG, 0), raw.tag(323, raw.LONG, 0)], pixels),
    )
    yield Case(
        "tiff-tile-larger-than-it",
        lambda: raw.tiff(
            [*tags, raw.tag(322, raw.LONG, 2**16), raw.tag(323, raw.LONG, 2**16), raw.tag(324, raw.LONG, 8)],
            pixels,
        ),
    )
    yield refused(
        "tiff-negative-width", lambda: raw.tiff([raw.tag(256, 9, struct.pack("<i", -8)), *tags[1:]], pixels)
    )
    yield Case(
        "tiff-width-as-fraction", lambda: raw.tiff([raw.tag(256, raw.RATIONAL, [(8, 0)]), *tags[1:]], pixels)
    )
    yield refused(
        "bigtiff-of-2-to-60-tags", lambda: b"II+\0\x08\0\0\0\x10\0\0\0\0\0\0\0" + struct.pack("<Q", 2**60)
    )


def _noisy_tiff(compression: int) -> bytes:
    pixels = np.random.default_rng(compression).bytes(400)
    return raw.tiff(raw.plain_tags(64, 64, compression=compression), pixels)


def _gif_and_bmp() -> Iterator[Case]:
    yield refused("gif-without-frame", lambda: b"GIF89a" + struct.pack("<HHBBB", 4, 4, 0, 0, 0) + b";")
    yield Case("gif-frame-outside-screen", lambda: raw.gif(1, 1, frame=(3000, 3000)))
    yield Case(
        "gif-code-size-255", lambda: raw.gif(4, 4, frame=(4, 4)).replace(b"\x02\x02\x44", b"\xff\x02\x44")
    )
    yield Case("gif-extension-unknown", lambda: raw.gif(4, 4, b"!\x77\x03abc\0", frame=(4, 4)))
    yield Case("gif-extension-cut", lambda: raw.gif(4, 4, b"!\xff\xff"))
    yield refused("bmp-of-no-size", lambda: raw.bmp(0, 0, 24, 0, b""))
    yield Case("bmp-negative-width", lambda: raw.bmp(-4, 4, 24, 0, bytes(48)))
    yield Case("bmp-upside-down", lambda: raw.bmp(4, -4, 24, 0, bytes(48)))
    yield refused("bmp-depth-7", lambda: raw.bmp(4, 4, 7, 0, bytes(48)))
    yield Case("bmp-rle-beyond-end", lambda: raw.bmp(4, 4, 8, 1, b"\xff\x01" * 9))
    yield Case("bmp-rle-delta", lambda: raw.bmp(4, 4, 8, 1, b"\0\x02\xff\xff\0\x01"))
    yield Case("bmp-header-size-0", lambda: b"BM" + bytes(60))
    yield refused("ppm-white-0", lambda: b"P6 2 2 0\n" + bytes(12))
    yield refused("ppm-white-too-much", lambda: b"P6 2 2 99999\n" + bytes(24))
    yield refused("ppm-size-of-letters", lambda: b"P6 two 2 255\n" + bytes(12))
    yield refused("ppm-size-of-50-digits", lambda: b"P6 " + b"9" * 50 + b" 2 255\n")
    yield refused("ppm-comment-without-end", lambda: b"P6 #" + b"a" * 9999)
    yield refused("pfm-scale-nan", lambda: b"Pf\n2 2\nnan\n" + bytes(16))
    yield Case("plain-ppm-above-white", lambda: b"P3 1 1 9 10 10 10")
    yield Case("webp-of-no-frames", lambda: _webp_canvas(16, 16))
    yield refused("webp-canvas-16384", lambda: _webp_canvas(16384, 16384))


def _webp_canvas(width: int, height: int) -> bytes:
    body = b"\x02\0\0\0" + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + body + b"ANIM" + struct.pack("<I", 6) + bytes(6)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _exif() -> Iterator[Case]:
    block = raw.exif([raw.tag(274, raw.SHORT, 6)])
    looped = raw.exif([raw.tag(0x8769, raw.LONG, 8), raw.tag(274, raw.SHORT, 1)], following=8)
    blocks = {
        "empty": b"Exif\0\0",
        "cut": block[:15],
        "twice": b"Exif\0\0" + block,
        "loop": looped,
        "orientation-9": raw.exif([raw.tag(274, raw.SHORT, 9)]),
        "orientation-of-text": raw.exif([raw.tag(274, raw.ASCII, b"six\0\0\0\0\0")]),
        "orientation-of-nan": raw.exif([raw.tag(274, raw.FLOAT, float("nan"))]),
        "orientation-of-many": raw.exif([raw.tag(274, raw.SHORT, [6, 6, 6])]),
        "offset-beyond-end": raw.exif([(270, raw.ASCII, 2**31, 2**31)]),
        "overlapping": raw.exif([(code, raw.BYTE, 4000, 8) for code in range(300, 600)]),
        "of-65535-tags": b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(60),
        "resolution-of-0": raw.exif([raw.tag(0x11A, raw.RATIONAL, [(1, 0)]), raw.tag(0x128, raw.SHORT, 2)]),
        "byte-order-unknown": b"Exif\0\0XX*\0" + bytes(40),
    }
    for name, data in blocks.items():
        yield Case(f"exif-{name}-in-jpeg", partial(_with_exif, data, "JPEG"), "picture")
        yield Case(f"exif-{name}-in-png", partial(_with_exif, data, "PNG"), "picture")
    yield Case(
        "exif-in-webp-broken", lambda: encoded(quarters(), "WEBP", exif=b"Exif\0\0nonsense"), "picture"
    )
    yield Case("exif-in-avif-broken", lambda: _avif_with_broken_exif(), "either")


def _with_exif(data: bytes, kind: str) -> bytes:
    # Without JFIF's own resolution Pillow asks EXIF for it as soon as the file is opened.
    if kind == "PNG":
        return split_png(chunk(b"eXIf", data.removeprefix(b"Exif\0\0")))
    plain = encoded(quarters(), "JPEG", quality=95)
    return plain[:2] + segment(0xE1, data) + plain[20:]


def _avif_with_broken_exif() -> bytes:
    exif = Image.Exif()
    exif[0x0131] = "a program with a long name"
    data = encoded(quarters(), "AVIF", exif=exif)
    return data.replace(b"II*\0\x08", b"II*\0\xff").replace(b"MM\0*\0\0\0\x08", b"MM\0*\0\0\xff\xff")
