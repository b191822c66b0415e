"""What a file's head would make its decoder do, read before any decoder sees it.

Only what Pillow does not bound by itself (13.0): how often a JPEG makes libjpeg go through the whole picture,
and how many tiles a JPEG 2000 makes OpenJPEG prepare for. Everything else is left to Pillow.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from faceavatar.errors import ImageError

MOST_SEGMENTS = 5_000
MOST_SCANS = 100  # encoders write 10 or so; libjpeg-turbo's own fuzzers stop at 500
MOST_TILES = 1_024
MOST_CHANNELS = 5
MOST_EXIF = 2**20
MOST_PLAIN_PPM = 4 * 2**20  # numbers as text are read in Python, a second for this much
_SIZED = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF markers
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length


@dataclass(frozen=True)
class Jpeg:
    """coefficient_bytes: what libjpeg keeps of a whole picture, 0 for a baseline one. scans: of the file."""

    coefficient_bytes: int
    scans: int


def check_head(kind: str | None, data: bytes, name: str) -> None:
    """Raises ImageError for a head that asks for more work than its picture can be worth."""
    if kind == "JPEG":
        scans = data.count(b"\xff\xda")
        if scans > MOST_SCANS:
            raise ImageError(f"{name}: {scans} scans, allowed {MOST_SCANS}; save it anew as JPEG")
        read_jpeg(data, name)
    elif kind == "JPEG2000":
        _check_jpeg_2000(data, name)
    elif kind == "PPM" and data[:2] in {b"P1", b"P2", b"P3"} and len(data) > MOST_PLAIN_PPM:
        raise ImageError(f"{name}: {len(data)} bytes of numbers as text, allowed 4 MB; save it as PNG")


def read_jpeg(data: bytes, name: str) -> Jpeg:
    """Walks a JPEG's segments up to its first scan. Raises ImageError for too many of them."""
    at, exif, kept = 2, 0, 0
    for _ in range(MOST_SEGMENTS):
        at = data.find(b"\xff", at)
        # 0xFF may fill the space before a marker: Pillow walks over it byte by byte.
        end = at + 64
        while 0 <= at < end and data[at + 1 : at + 2] == b"\xff":
            at += 1
        if not 0 <= at < end or at + 4 > len(data):
            break
        marker = data[at + 1]
        if marker == 0xDA:
            return Jpeg(kept, data.count(b"\xff\xda"))
        if marker in _ALONE or marker == 0:
            at += 2
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if marker in _SIZED:
            kept = _coefficient_bytes(data[at + 4 : at + 2 + length]) if marker in _PROGRESSIVE else 0
        exif += length if marker == 0xE1 else 0
        if exif > MOST_EXIF:
            raise ImageError(f"{name}: more than {MOST_EXIF} bytes of EXIF and XMP; save it without them")
        at += 2 + length
    else:
        raise ImageError(f"{name}: more than {MOST_SEGMENTS} segments before the picture; save it anew")
    return Jpeg(kept, 0)


def _coefficient_bytes(frame: bytes) -> int:
    """Of a frame header: two bytes a coefficient, for each component as many as its sampling says."""
    if len(frame) < 6:
        return 0
    height, width, count = struct.unpack(">xHHB", frame[:6])
    factors = [(spec >> 4, spec & 15) for spec in frame[7 : 6 + 3 * count : 3]]
    widest = max((h for h, _ in factors), default=0), max((v for _, v in factors), default=0)
    if not all(widest):
        return 0
    area = sum(h * v for h, v in factors) / (widest[0] * widest[1])
    return int(2 * width * height * area)


def _check_jpeg_2000(data: bytes, name: str) -> None:
    """Every codestream header in the file, since a box before the real one may hold another."""
    at = data.find(b"\xff\x4f\xff\x51")
    while at >= 0:
        head = data[at + 8 : at + 43]
        if len(head) == 35:
            _check_codestream(head, name)
        at = data.find(b"\xff\x4f\xff\x51", at + 4)


def _check_codestream(head: bytes, name: str) -> None:
    """head: the segment SIZ from its sizes to the first channel's depth."""
    width, height, _, _, tile_width, tile_height, x, y, channels, depth = struct.unpack(">8IHB", head)
    if not tile_width or not tile_height:
        raise ImageError(f"{name}: a JPEG 2000 picture with tiles of no size; save it anew")
    tiles = -(-max(0, width - x) // tile_width) * -(-max(0, height - y) // tile_height)
    if tiles > MOST_TILES or not 0 < channels <= MOST_CHANNELS:
        got = f"{tiles} tiles and {channels} channels, allowed {MOST_TILES} and {MOST_CHANNELS}"
        raise ImageError(f"{name}: a JPEG 2000 picture of {got}; save it anew")
    if channels > 1 and (depth & 0x7F) + 1 > 8:
        # Pillow's rounding overflows there: what is all but white comes out black.
        bits = (depth & 0x7F) + 1
        raise ImageError(f"{name}: a JPEG 2000 picture of {bits} bits a colour, allowed 8; save it as PNG")
