"""Encoded bytes or a Pillow image -> a Pillow image in RGB, upright, in sRGB, at most 1536 pixels a side."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from faceavatar.decoding.costs import refuse_costly, refuse_pixels
from faceavatar.decoding.heads import check_head, read_jpeg
from faceavatar.decoding.kinds import kind_of, unread_kind
from faceavatar.decoding.profiles import to_srgb
from faceavatar.decoding.rationed import Rationed, quiet
from faceavatar.errors import FaceAvatarError, ImageError

if TYPE_CHECKING:
    from PIL.Image import Image, Transpose

MAX_SIDE = 1536
# Raster formats only: Pillow also opens PostScript, which starts another program.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
_ORIENTATION = 0x0112  # the EXIF tag
_WHITE = (255, 255, 255, 255)
_LONGEST_REASON = 120
_ROWS = 256  # of a grey picture, brought to 8 bits at a time
_BROAD = frozenset({"F", "I", "I;16", "I;16L", "I;16B", "I;16N"})


def decoded(data: bytes, name: str) -> Image:
    """The picture in a file, RGB; `name` stands in messages. Raises ImageError."""
    with _opened(data, name) as image:
        jpeg = read_jpeg(data, name) if image.format in {"JPEG", "MPO"} else None
        refuse_costly(image, name, jpeg)
        # JPEG alone heeds this: it decodes at 1/2, 1/4 or 1/8 as long as twice the final size remains.
        width, height = _small(image.size)
        image.draft(None, (2 * width, 2 * height))
        return _normalise(image)


def refuse_large(data: bytes, most: int, name: str = "the picture") -> None:
    """Looks at a picture's head only. Raises ImageError for more than `most` pixels, or for no picture."""
    with _opened(data, name) as image:
        refuse_pixels(image.size, name, most)


def to_small_rgb(image: Image, name: str) -> Image:
    """As decoded, of an image that Pillow has opened already. Raises ImageError."""
    with _damage_refused(name):
        refuse_pixels(image.size, name)
        return _normalise(image)


@contextmanager
def _opened(data: bytes, name: str) -> Iterator[Image]:
    from PIL import Image, UnidentifiedImageError

    kind = kind_of(data)
    with _damage_refused(name):
        check_head(kind, data, name)
        try:
            image = Image.open(Rationed(data, name), formats=_FORMATS)
        except UnidentifiedImageError as error:
            raise ImageError(_unidentified(data, kind, name)) from error
        with image:
            yield image


@contextmanager
def _damage_refused(name: str) -> Iterator[None]:
    """Maps all that Pillow raises on files that are no picture, or a broken one."""
    from PIL import Image

    try:
        with quiet():
            yield
    except FaceAvatarError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{name}: {error}; shrink it first") from error
    except Exception as error:  # a dozen parsers on bytes of a stranger raise nearly anything
        raise ImageError(f"{name}: damaged or of an unknown kind ({_reason(error)}); save it anew") from error


def _unidentified(data: bytes, kind: str | None, name: str) -> str:
    """What is wrong with a file that Pillow takes for none of the formats."""
    if kind is not None:
        return f"{name}: {kind}, damaged or of an unknown kind ({_complaint(data, kind)}); save it anew"
    unread = unread_kind(data)
    kinds = ", ".join(_FORMATS[:6])
    if unread is not None:
        return f"{name}: {unread[0]} and no picture, expected {kinds} or the like; {unread[1]}"
    return f"{name}: no picture, expected {kinds} or the like; save it anew"


def _complaint(data: bytes, kind: str) -> str:
    """Image.open keeps to itself why a plugin gave up; asked directly, the plugin says it."""
    from PIL import Image

    try:
        with Image.OPEN[kind][0](Rationed(data, "the picture"), ""):
            return "it cannot be told apart"
    except Exception as error:
        return _reason(error)


def _reason(error: Exception) -> str:
    """A message of Pillow's on one line; bytes of the file may stand in it."""
    text = " ".join(str(error).split()) or type(error).__name__
    return "".join(sign if sign.isprintable() else "?" for sign in text[:_LONGEST_REASON])


def _normalise(image: Image) -> Image:
    from PIL import Image

    image.load()
    turn, profile = _turn(image), image.info.get("icc_profile")
    image = _shrink(_resizable(image))
    if turn is not None:
        image = image.transpose(turn)
    image = to_srgb(image, profile if isinstance(profile, bytes) else None)
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, _WHITE), image)
    return image.convert("RGB")


def _resizable(image: Image) -> Image:
    """Any mode as one that resizes well and that a profile may speak of: L, RGB, RGBA, CMYK, LAB."""
    if image.mode in _BROAD:
        return _eight_bit(image)
    if image.mode == "RGBA" or (
        image.mode in {"L", "RGB", "CMYK", "LAB"} and not image.has_transparency_data
    ):
        return image  # convert would copy it
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _eight_bit(image: Image) -> Image:
    """16-bit, 32-bit and float grey as L. NaN is black, infinity white; neither says how bright white is."""
    from PIL import Image

    bands = [
        (0, top, image.size[0], min(top + _ROWS, image.size[1])) for top in range(0, image.size[1], _ROWS)
    ]
    brightest = max(_brightest(image.crop(band)) for band in bands) if image.mode in {"F", "I"} else 0.0
    scale = 255.0 / _full_scale(image.mode, brightest)
    grey = Image.new("L", image.size)
    for band in bands:
        samples = np.asarray(image.crop(band)).astype(np.float64)
        samples = np.nan_to_num(samples * scale, nan=0.0, posinf=255.0, neginf=0.0)
        grey.paste(Image.fromarray(np.clip(samples + 0.5, 0, 255).astype(np.uint8)), band)
    return grey


def _brightest(image: Image) -> float:
    samples = np.asarray(image)
    return float(np.max(samples, initial=0, where=np.isfinite(samples)))


def _full_scale(mode: str, brightest: float) -> float:
    """White of a grey mode: 16-bit samples reach 65535, float ones 1, unless they show that they do not."""
    if mode.startswith("I;16"):
        return 65535.0
    if mode == "F":
        return 1.0 if brightest <= 1.0 else max(255.0, brightest)
    return 255.0 if brightest <= 255 else max(65535.0, brightest)


def _turn(image: Image) -> Transpose | None:
    """What sets the picture upright, from its EXIF block; a damaged block turns nothing."""
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    try:
        return turns.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # it is somebody's idea of EXIF
        return None


def _small(size: tuple[int, int]) -> tuple[int, int]:
    longest = max(size)
    if longest <= MAX_SIDE:
        return size
    width, height = (max(1, round(side * MAX_SIDE / longest)) for side in size)
    return width, height


def _shrink(image: Image) -> Image:
    from PIL import Image

    size = _small(image.size)
    return image if size == image.size else image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
