"""What decoding a picture takes, by its kind and size; and the refusal of what takes too much.

Measured with Pillow 13.0 (peak over idle a pixel, time a megapixel on one core): JPEG 4 bytes, 7 ms; PNG 4
and 31 ms; WebP 17 and 25 ms (two canvases of its animation decoder, a copy, the picture); AVIF 11 at 8 bits,
37 ms; JPEG 2000 22 and 180 ms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from faceavatar.decoding.heads import Jpeg
from faceavatar.errors import ImageError

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 89_478_485  # where Pillow begins to speak of a decompression bomb
LONGEST = 65_535  # pixels of a side; JPEG ends there too
BUDGET = 220_000_000  # bytes; the file itself and the interpreter's own come to that, 300 MB in all
_PLANES = 4.2  # bytes a pixel of most modes in Pillow, with the rows under way
_WHOLE = {"WEBP": 16.7, "AVIF": 18.0, "JPEG2000": 27.0}  # the last for its time: two seconds are 8 megapixels
_BYTES = {"1": 1.1, "L": 1.1, "P": 1.1, "I;16": 2.1, "I;16B": 2.1, "I;16L": 2.1}
_SAMPLES, _BITS = 277, 258  # TIFF tags


def refuse_costly(image: Image, name: str, jpeg: Jpeg | None) -> None:
    """Raises ImageError for a picture, opened but not decoded, that would take more than the budget."""
    refuse_pixels(image.size, name)
    pixels = image.size[0] * image.size[1]
    if max(image.size) > LONGEST:
        raise ImageError(f"{name}: {_size(image)} pixels, allowed {LONGEST} a side; shrink it first")
    if jpeg is not None:
        # It is decoded small, but a progressive one is kept whole until then.
        if jpeg.coefficient_bytes > BUDGET or jpeg.scans * pixels > 10**9:
            kept = f"{jpeg.coefficient_bytes / 1e6:.0f} MB, allowed {BUDGET / 1e6:.0f}"
            raise ImageError(
                f"{name}: {_size(image)} pixels in {jpeg.scans} scans take {kept}; "
                "shrink it first, or save it as a baseline JPEG"
            )
        return
    cost = _WHOLE.get(image.format or "") or _by_mode(image)
    if pixels * cost > BUDGET:
        kind = f"{image.format} in {image.mode}"
        raise ImageError(
            f"{name}: {_size(image)} pixels, allowed {BUDGET / cost / 1e6:.0f} megapixels of {kind}; "
            "shrink it first, or save it as JPEG"
        )


def refuse_pixels(size: tuple[int, int], name: str, most: int = MAX_PIXELS) -> None:
    """Raises ImageError for more than `most` pixels."""
    width, height = size
    if width * height > most:
        allowed = f"allowed {most / 10**6:.0f} megapixels"
        raise ImageError(f"{name}: {width}x{height} pixels, {allowed}; shrink it first")


def _by_mode(image: Image) -> float:
    """Bytes a pixel of the picture and of what it is turned into before it is small."""
    own = _BYTES.get(image.mode, _PLANES)
    if image.has_transparency_data:
        own += _PLANES  # colours premultiplied
    if image.mode in {"P", "LA", "PA", "LAB", "YCbCr", "HSV"}:
        own += _PLANES
    if image.format == "TIFF":
        own += _strip_bytes(getattr(image, "tag_v2", {}))
    return own


def _strip_bytes(tags: Any) -> float:
    """A compressed strip may be the whole picture, in samples as they are stored."""
    bits = tags.get(_BITS, (8,))
    widest = max(bits) if isinstance(bits, tuple) else bits
    return int(tags.get(_SAMPLES, 1)) * int(widest) / 8


def _size(image: Image) -> str:
    return f"{image.size[0]}x{image.size[1]}"
