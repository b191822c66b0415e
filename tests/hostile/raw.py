"""Files written by hand, byte by byte: what no encoder would write."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED, FLOAT, DOUBLE = 1, 2, 3, 4, 5, 7, 11, 12
_FORMATS = {BYTE: "B", ASCII: "B", SHORT: "H", LONG: "I", UNDEFINED: "B", FLOAT: "f", DOUBLE: "d"}
Tag = tuple[int, int, int, bytes | int]


def quarters(height: int = 40, width: int = 60) -> NDArray[np.uint8]:
    """Red, green over blue, white: every turn and flip of it looks different."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2] = (255, 0, 0)
    picture[: height // 2, width // 2 :] = (0, 255, 0)
    picture[height // 2 :, : width // 2] = (0, 0, 255)
    picture[height // 2 :, width // 2 :] = 255
    return picture


def noise(side: int) -> NDArray[np.uint8]:
    """Random colours (side, side, 3), always the same."""
    return np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)


def encoded(picture: Image.Image | NDArray[Any], kind: str = "PNG", **options: Any) -> bytes:
    """As Pillow writes it."""
    buffer = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes = b"", wrong: bool = False) -> bytes:
    """A PNG chunk; `wrong`: with a checksum that is not its own."""
    checksum = zlib.crc32(kind + body) ^ wrong
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


def header(width: int, height: int, depth: int = 8, color: int = 2, interlaced: int = 0) -> bytes:
    """The chunk IHDR."""
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlaced))


def png(*chunks: bytes) -> bytes:
    """Signature, chunks, and the end."""
    return PNG_SIGNATURE + b"".join(chunks) + chunk(b"IEND")


def rows(width: int, height: int, bytes_a_pixel: int = 3, value: int = 0) -> bytes:
    """Plain rows of a PNG, compressed; a row is made once, so that a bomb is quickly built."""
    packer = zlib.compressobj(9)
    row = bytes([0]) + bytes([value]) * (width * bytes_a_pixel)
    return b"".join([packer.compress(row) for _ in range(height)]) + packer.flush()


def split_png(*between: bytes) -> bytes:
    """The quarters as PNG, with further chunks after the header."""
    data = encoded(quarters())
    return data[:33] + b"".join(between) + data[33:]


def segment(marker: int, body: bytes = b"") -> bytes:
    """A JPEG segment."""
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def split_jpeg(*between: bytes, **options: Any) -> bytes:
    """The quarters as JPEG, with further segments after its start."""
    data = encoded(quarters(), "JPEG", quality=95, **options)
    return data[:2] + b"".join(between) + data[2:]


def with_scans(count: int, side: int) -> bytes:
    """A progressive JPEG whose last scan, a few bytes, comes again and again."""
    data = encoded(Image.new("L", (side, side), 128), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    scan, end = data[last:-2], data[-2:]
    return data[:-2] + scan * count + end


def resized_jpeg(width: int, height: int, **options: Any) -> bytes:
    """A small JPEG whose header claims another size."""
    data = bytearray(encoded(quarters(), "JPEG", **options))
    at = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def tag(code: int, kind: int, values: Any) -> Tag:
    """A TIFF tag of plain values, text or bytes."""
    if isinstance(values, bytes):
        return code, kind, len(values), values
    values = values if isinstance(values, (list, tuple)) else [values]
    if kind == RATIONAL:
        return code, kind, len(values), b"".join(struct.pack("<II", *pair) for pair in values)
    return code, kind, len(values), struct.pack(f"<{len(values)}{_FORMATS[kind]}", *values)


def directory(tags: list[Tag], start: int, following: int = 0) -> bytes:
    """A directory of tags at `start` with its data behind it. A tag's data may also be an offset."""
    body, at = b"", start + 2 + 12 * len(tags) + 4
    entries = b""
    for code, kind, count, data in sorted(tags, key=lambda entry: entry[0]):
        if isinstance(data, int):
            field = struct.pack("<I", data)
        elif len(data) <= 4:
            field = data.ljust(4, b"\0")
        else:
            field = struct.pack("<I", at + len(body))
            body += data
        entries += struct.pack("<HHI", code, kind, count) + field
    return struct.pack("<H", len(tags)) + entries + struct.pack("<I", following) + body


def tiff(tags: list[Tag], pixels: bytes = b"", following: int = 0) -> bytes:
    """Pixels in one strip, then a directory: StripOffsets and StripByteCounts are added."""
    place = 8 + len(pixels)
    strips = [tag(273, LONG, 8), tag(279, LONG, len(pixels))]
    given = {entry[0] for entry in tags}
    return (
        b"II*\0"
        + struct.pack("<I", place)
        + pixels
        + directory([*tags, *(entry for entry in strips if entry[0] not in given)], place, following)
    )


def plain_tags(width: int, height: int, bits: Any = 8, samples: int = 1, **other: int) -> list[Tag]:
    """Tags of an uncompressed picture; other: format (SampleFormat), photometric, compression."""
    return [
        tag(256, LONG, width),
        tag(257, LONG, height),
        tag(258, SHORT, bits),
        tag(259, SHORT, other.get("compression", 1)),
        tag(262, SHORT, other.get("photometric", 1 if samples == 1 else 2)),
        tag(277, SHORT, samples),
        tag(278, LONG, height),
        tag(339, SHORT, [other.get("format", 1)] * samples),
    ]


def exif(tags: list[Tag], following: int = 0) -> bytes:
    """An EXIF block, as JPEG holds it."""
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + directory(tags, 8, following)


def gif(width: int, height: int, *blocks: bytes, frame: tuple[int, int] = (1, 1)) -> bytes:
    """A screen of a size, blocks, and a frame of black pixels."""
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    image = b"," + struct.pack("<HHHHB", 0, 0, *frame, 0) + b"\x02\x02\x44\x01\0"
    return head + b"".join(blocks) + image + b";"


def bmp(width: int, height: int, bits: int, compression: int, pixels: bytes) -> bytes:
    """With a palette of 256 greys where bits is 8 or less."""
    palette = b"".join(bytes([i, i, i, 0]) for i in range(256)) if bits <= 8 else b""
    offset = 14 + 40 + len(palette)
    info = struct.pack(
        "<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(pixels), 0, 0, len(palette) // 4, 0
    )
    return b"BM" + struct.pack("<IHHI", offset + len(pixels), 0, 0, offset) + info + palette + pixels


def jpeg_2000_size(data: bytes, **fields: int) -> bytes:
    """A JPEG 2000 file with fields of its codestream's header changed: width, height, tile (both sides)."""
    at = data.index(b"\xff\x4f\xff\x51") + 8
    changed = bytearray(data)
    places = {"width": (0,), "height": (4,), "tile": (16, 20)}
    for name, value in fields.items():
        if name == "channels":
            changed[at + 32 : at + 34] = struct.pack(">H", value)
            continue
        for place in places[name]:
            changed[at + place : at + place + 4] = struct.pack(">I", value)
    return bytes(changed)


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


SRGB = ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))
DISPLAY_P3 = ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841))
REC_2020 = ((0.6735, 0.2790, -0.0019), (0.1657, 0.6753, 0.0300), (0.1250, 0.0456, 0.7970))
SWAPPED = (SRGB[1], SRGB[0], SRGB[2])  # what it calls red is green


def profile(primaries: Any = SRGB, gamma: float = 2.2) -> bytes:
    """An RGB ICC profile: XYZ of its primaries under D50, and a gamma."""
    colorants = dict(zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True))
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    tags = {
        name: b"XYZ \0\0\0\0" + b"".join(map(_fixed, value))
        for name, value in {**colorants, b"wtpt": (0.9642, 1.0, 0.8249)}.items()
    }
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    text = b"made by hand"
    tags[b"desc"] = b"desc\0\0\0\0" + struct.pack(">I", len(text) + 1) + text + b"\0" + bytes(78)
    tags[b"cprt"] = b"text\0\0\0\0" + text + b"\0"
    return _assembled(tags, b"RGB ")


def _assembled(tags: dict[bytes, bytes], space: bytes) -> bytes:
    table, body, start = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(
        ">I4sI4s4s4s12s4s",
        start + len(body),
        b"\0\0\0\0",
        0x02400000,
        b"mntr",
        space,
        b"XYZ ",
        bytes(12),
        b"acsp",
    )
    head = head.ljust(68, b"\0") + b"".join(map(_fixed, (0.9642, 1.0, 0.8249)))
    return head.ljust(128, b"\0") + table + body


def srgb() -> bytes:
    """LittleCMS's own sRGB."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
