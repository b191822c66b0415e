"""Small files that cost much: bombs, and structure that makes a parser walk for ever."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from functools import partial

from hostile import raw
from hostile.cases import Case, picture, refused
from hostile.raw import chunk, encoded, header, png, rows, segment, split_jpeg, split_png
from PIL import Image


def cases() -> Iterator[Case]:
    yield from _bombs()
    yield from _walks()
    yield from _tags()


def _bombs() -> Iterator[Case]:
    yield refused("png-bomb-11000x11000", lambda: _png_bomb(11000, 11000))
    yield Case("png-bomb-7000x7000", lambda: _png_bomb(7000, 7000))
    yield refused("png-bomb-7000x7000-alpha", lambda: _png_bomb(7000, 7000, 4, 6))
    yield Case("png-bomb-5000x5000-alpha", lambda: _png_bomb(5000, 5000, 4, 6))
    yield Case("png-bomb-9000x9000-grey", lambda: _png_bomb(9000, 9000, 1, 0))
    yield Case("png-bomb-6400x6400-palette", lambda: _palette_bomb(6400))
    yield Case("png-bomb-65535x600", lambda: _png_bomb(65535, 600))
    yield refused("gif-bomb-12000x12000", lambda: encoded(Image.new("P", (12000, 12000)), "GIF"))
    yield Case("gif-bomb-6000x6000", lambda: encoded(Image.new("P", (6000, 6000)), "GIF"))
    yield refused("webp-bomb-7000x7000", lambda: _webp_bomb(7000))
    yield refused("webp-bomb-5000x5000", lambda: _webp_bomb(5000))
    yield Case("webp-bomb-3600x3600", lambda: _webp_bomb(3600))
    yield refused("tiff-bomb-12000x12000", lambda: _tiff_bomb(12000, 1))
    yield Case("tiff-bomb-9000x9000-grey", lambda: _tiff_bomb(9000, 1))
    yield Case("tiff-bomb-5500x5500", lambda: _tiff_bomb(5500, 3))
    yield refused("tiff-bomb-8000x8000", lambda: _tiff_bomb(8000, 3))
    yield refused("jpeg2000-bomb-4000x4000", lambda: _jpeg_2000_bomb(4000))
    yield Case("jpeg-bomb-9000x9000", lambda: _jpeg_bomb(9000, False))
    yield refused("jpeg-bomb-9000x9000-progressive", lambda: _jpeg_bomb(9000, True))
    yield Case("jpeg-bomb-5500x5500-progressive", lambda: _jpeg_bomb(5500, True))
    yield Case("avif-bomb-3400x3400", lambda: encoded(Image.new("RGB", (3400, 3400)), "AVIF", speed=10))
    yield refused("avif-bomb-4200x4200", lambda: encoded(Image.new("RGB", (4200, 4200)), "AVIF", speed=10))
    yield Case(
        "float-tiff-bomb-6000x6000",
        lambda: raw.tiff(
            raw.plain_tags(6000, 6000, 32, format=3, compression=8), _packed_zeros(6000 * 6000 * 4)
        ),
    )


def _png_bomb(width: int, height: int, channels: int = 3, color: int = 2) -> bytes:
    return png(header(width, height, color=color), chunk(b"IDAT", rows(width, height, channels)))


def _palette_bomb(side: int) -> bytes:
    parts = chunk(b"PLTE", b"\1\2\3"), chunk(b"tRNS", b"\x80"), chunk(b"IDAT", rows(side, side, 1))
    return png(header(side, side, color=3), *parts)


def _webp_bomb(side: int) -> bytes:
    return encoded(Image.new("RGB", (side, side)), "WEBP", lossless=True, method=0, quality=0)


def _packed_zeros(count: int) -> bytes:
    packer = zlib.compressobj(1)
    block = bytes(2**20)
    parts = [packer.compress(block) for _ in range(count // 2**20)]
    return b"".join(parts) + packer.compress(bytes(count % 2**20)) + packer.flush()


def _tiff_bomb(side: int, samples: int) -> bytes:
    tags = raw.plain_tags(side, side, [8] * samples, samples, compression=8)
    return raw.tiff(tags, _packed_zeros(side * side * samples))


def _jpeg_2000_bomb(side: int) -> bytes:
    return encoded(Image.new("L", (side, side)), "JPEG2000")


def _jpeg_bomb(side: int, progressive: bool) -> bytes:
    subsampling = 0 if progressive and side > 6000 else 2
    return encoded(Image.new("RGB", (side, side)), "JPEG", progressive=progressive, subsampling=subsampling)


def _walks() -> Iterator[Case]:
    """Loops in Python, as long as the file has pieces."""
    yield picture("png-10000-chunks", lambda: split_png(chunk(b"aaAa", b"1") * 10_000))
    yield refused("png-1000000-chunks", lambda: split_png(chunk(b"aaAa") * 1_000_000))
    yield refused(
        "png-1000000-empty-idats",
        lambda: png(header(9, 9), chunk(b"IDAT") * 1_000_000, chunk(b"IDAT", rows(9, 9))),
    )
    yield refused("png-200000-texts", lambda: split_png(chunk(b"tEXt", b"a\0b") * 200_000))
    yield Case(
        "png-64-texts-of-1-mb", lambda: split_png(chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**20))) * 80)
    )
    yield Case("png-text-of-30-mb", lambda: split_png(chunk(b"tEXt", b"a\0" + bytes(30 * 2**20))))
    yield refused("jpeg-2000000-fill-bytes", lambda: split_jpeg(b"\xff" * 2_000_000))
    yield refused("jpeg-2000000-junk-bytes", lambda: split_jpeg(bytes(2_000_000)))
    yield refused("jpeg-500000-comments", lambda: split_jpeg(segment(0xFE) * 500_000))
    yield refused("jpeg-400-exif-blocks", lambda: split_jpeg(segment(0xE1, b"Exif\0\0" + bytes(65000)) * 400))
    yield picture(
        "jpeg-200-profile-pieces",
        lambda: split_jpeg(segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(60000)) * 200),
    )
    yield refused("jpeg-5000-scans", lambda: raw.with_scans(5000, 512))
    yield refused("jpeg-101-scans-of-16-megapixels", lambda: raw.with_scans(101, 4000))
    yield refused("jpeg-80-scans-of-16-megapixels", lambda: raw.with_scans(80, 4000))
    yield picture("jpeg-30-scans", lambda: raw.with_scans(30, 512), (128, 128, 128))
    yield refused("gif-1000000-comments", lambda: raw.gif(4, 4, b"!\xfe\x01a\0" * 1_000_000))
    yield refused(
        "gif-one-comment-of-1000000-pieces", lambda: raw.gif(4, 4, b"!\xfe" + b"\x01a" * 1_000_000 + b"\0")
    )
    yield refused("bmp-rle-of-1000000-runs", lambda: raw.bmp(3000, 3000, 8, 1, b"\x01\x01" * 1_000_000))
    yield refused("ppm-16-bit-of-4-megapixels", lambda: b"P6 2000 2000 65535\n" + bytes(2000 * 2000 * 6))
    yield refused("ppm-of-white-100", lambda: b"P6 2000 2000 100\n" + bytes(2000 * 2000 * 3))
    yield refused("ppm-plain-of-10-mb", lambda: b"P3 1290 1290 9 " + b"1 " * 5_000_000)
    yield Case("ppm-plain-of-3-mb", lambda: b"P3 700 700 9 " + b"1 " * 1_470_000)
    yield refused("ppm-comment-of-3-mb", lambda: b"P6 #" + b"a" * 3_000_000 + b"\n2 2 255\n" + bytes(12))
    yield Case("webp-20000-unknown-chunks", lambda: _webp_chunks(20_000))
    yield Case("jpeg-30-mb-after", lambda: split_jpeg() + bytes(30 * 2**20))


def _webp_chunks(count: int) -> bytes:
    data = encoded(raw.quarters(), "WEBP")
    data += (b"abcd" + struct.pack("<I", 2) + b"xy") * count
    return data[:4] + struct.pack("<I", len(data) - 8) + data[8:]


def _tags() -> Iterator[Case]:
    """Directories whose tags lead to the same bytes, so that a little file is read as a great one."""
    tags = raw.plain_tags(8, 8)
    body = bytes(2**20)
    overlapping = [(code, raw.BYTE, 10**6, 8) for code in range(40000, 44000)]
    yield Case("tiff-4000-tags-of-one-megabyte", lambda: raw.tiff([*tags, *overlapping], body))
    yield Case(
        "tiff-offsets-of-5-million",
        lambda: raw.tiff(
            [*tags, raw.tag(273, raw.LONG, [8] * 5_000_000), raw.tag(279, raw.LONG, [64] * 5_000_000)], body
        ),
    )
    yield Case(
        "tiff-million-of-doubles",
        lambda: raw.tiff([*tags, raw.tag(50000, raw.DOUBLE, [0.0] * 3_000_000)], body),
    )
    overlap = raw.exif([(code, raw.BYTE, 60000, 8) for code in range(300, 5000)])
    yield Case("exif-4700-tags-of-60-kb", partial(_exif_png, overlap + bytes(10000)), "picture")
    yield Case(
        "exif-of-30-mb", partial(_exif_png, raw.exif([raw.tag(270, raw.ASCII, bytes(30 * 2**20))])), "picture"
    )
    yield Case(
        "exif-million-of-shorts",
        partial(_exif_png, raw.exif([raw.tag(50000, raw.SHORT, [1] * 5_000_000)])),
        "picture",
    )


def _exif_png(block: bytes) -> bytes:
    return split_png(chunk(b"eXIf", block.removeprefix(b"Exif\0\0")))
