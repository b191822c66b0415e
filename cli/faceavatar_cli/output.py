"""Where pictures go: names, numbers that keep old files, the contact sheet, previews."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from faceavatar import AvatarRequest, AvatarResult, ImageError, InvalidRequest, Step
from faceavatar.image import encode_lossy, encode_png
from faceavatar_cli.exits import CannotWrite

_WRITTEN = {".png", ".jpg", ".jpeg", ".webp"}
_OTHER_PICTURES = {".avif", ".bmp", ".gif", ".heic", ".jxl", ".svg", ".tif", ".tiff"}
_WITHOUT_ALPHA = {".jpg", ".jpeg"}
_SHEET = "contact-sheet.png"


@dataclass(frozen=True)
class Written:
    """The pictures' files in the order of the batch, and the contact sheet's where there is one."""

    files: list[Path]
    contact_sheet: Path | None


class Output:
    """A folder or a file that the pictures of one run go to. `force` overwrites what is there."""

    def __init__(self, target: Path, force: bool) -> None:
        self._target = target.expanduser()
        self._force = force
        self._is_file = self._target.suffix.lower() in _WRITTEN and not self._target.is_dir()
        self._preview: Path | None = None

    def check(self, request: AvatarRequest) -> None:
        """Refuses what could not be written, before the work. Raises InvalidRequest and CannotWrite."""
        suffix = self._target.suffix.lower()
        if suffix in _OTHER_PICTURES and not self._target.is_dir():
            raise InvalidRequest(
                "out", str(self._target), "a folder, or a file ending in .png, .jpg or .webp"
            )
        transparent = request.remove_background and request.bg_color is None
        if self._is_file and transparent and suffix in _WITHOUT_ALPHA:
            allowed = ".png or .webp, since JPEG has no transparency; or add --bg-color"
            raise InvalidRequest("out", str(self._target), allowed)
        check_folder(self._target.parent if self._is_file else self._target)

    def write(self, result: AvatarResult) -> Written:
        """Writes every picture, and for several of them in a folder the contact sheet. Raises CannotWrite."""
        files = []
        for name, image, seed in zip(self._names(result), result.images, result.seeds, strict=True):
            one = replace(result, images=(image,), seeds=(seed,))
            files.append(self._put(name, one.save))
        if self._is_file or len(files) == 1:
            return Written(files, None)
        # The sheet's own request is the whole batch's, so that --from repeats the batch.
        about = result.metadata() | {"request": result.request.to_metadata()}
        sheet = encode_png(result.contact_sheet(), about)
        return Written(files, self._put(self._target / _SHEET, lambda path: path.write_bytes(sheet)))

    def preview(self, step: Step) -> None:
        """Rewrites the preview with the pictures of a step that has some, side by side."""
        if step.preview is None:
            return
        data = encode_png(np.hstack(step.preview))
        if self._preview is not None:
            _fill(self._preview, lambda path: path.write_bytes(data))
            return
        stem = f"{self._target.stem}-preview.png"
        name = self._target.with_name(stem) if self._is_file else self._target / "preview.png"
        self._preview = self._put(name, lambda path: path.write_bytes(data))

    def drop_preview(self) -> None:
        """Removes the preview: the pictures are there, or never will be."""
        if self._preview is not None:
            self._preview.unlink(missing_ok=True)

    def _names(self, result: AvatarResult) -> list[Path]:
        if not self._is_file:
            return [self._target / f"avatar-{seed}.png" for seed in result.seeds]
        if len(result.images) == 1:
            return [self._target]
        stem, suffix = self._target.stem, self._target.suffix
        return [self._target.with_name(f"{stem}-{index}{suffix}") for index in range(len(result.images))]

    def _put(self, path: Path, write: Callable[[Path], object]) -> Path:
        return put(path, write, self._force)


def check_folder(folder: Path) -> None:
    """Refuses a folder that is none or cannot be written to. Raises CannotWrite."""
    nearest = next(place for place in [folder.absolute(), *folder.absolute().parents] if place.exists())
    if not nearest.is_dir():
        raise CannotWrite(f"{folder}: {nearest} is a file; give a folder, or a name ending in .png")
    if not os.access(nearest, os.W_OK):
        raise CannotWrite(f"{folder}: {nearest} is not writable; choose another place with --out")


def write_picture(path: Path, picture: NDArray[np.uint8], force: bool) -> Path:
    """One picture (H, W, 3 | 4) as PNG, WebP or JPEG, told by the name; gives the name it got.

    Raises CannotWrite.
    """
    kind = path.suffix.lower()
    if kind == ".png":
        data = encode_png(picture)
    else:
        data = encode_lossy(picture, "webp" if kind == ".webp" else "jpeg")
    return put(path, lambda part: part.write_bytes(data), force)


def put(path: Path, write: Callable[[Path], object], force: bool) -> Path:
    """Writes under this name, or under the first number that is free; nothing half-written stays."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path = path if force else _claim(path)
    except OSError as error:
        raise _cannot(path, error) from error
    try:
        _fill(path, write)
    except BaseException:  # Ctrl-C too
        if not force:
            path.unlink(missing_ok=True)
        raise
    return path


def _fill(path: Path, write: Callable[[Path], object]) -> None:
    """Writes to a file beside it first: whoever looks at `path` sees a whole picture, or the one before."""
    part = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        write(part)
        part.replace(path)
    except (OSError, ImageError) as error:
        raise _cannot(path, error) from error
    finally:
        part.unlink(missing_ok=True)


def _cannot(path: Path, error: Exception) -> CannotWrite:
    return CannotWrite(f"{path}: cannot be written ({error}); choose another place with --out")


def _claim(path: Path) -> Path:
    """An empty new file of this name, or of the name with the first number that is free."""
    for number in count():
        candidate = path.with_name(f"{path.stem}-{number}{path.suffix}") if number else path
        try:
            candidate.touch(exist_ok=False)
        except FileExistsError:
            continue
        return candidate
    raise AssertionError("unreachable: count() has no end")
