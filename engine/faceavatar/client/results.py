"""What comes back over the wire: a Task that goes on, and the Avatars of one that is done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from faceavatar.errors import ImageError

if TYPE_CHECKING:
    from PIL.Image import Image

ENDED = frozenset({"completed", "failed", "cancelled"})


@dataclass(frozen=True)
class Task:
    """How a task stands.

    status: queued, running, completed, failed or cancelled. step of total are done (total 0: none yet).
    queue_position: how many run before it, None where it does not wait or that is not known. seconds: from
    its arrival to its end, or so far. urls: of the pictures, once completed. error, error_data: of a failed
    one. input: the request as the server took it. warnings: sentences on what
    was done otherwise than one may expect. previews: encoded pictures, in `on_step` only.
    """

    id: str
    status: str
    app_id: str | None = None
    ref_id: str | None = None
    step: int = 0
    total: int = 0
    queue_position: int | None = None
    seconds: float = 0.0
    urls: tuple[str, ...] = ()
    error: str | None = None
    error_data: Mapping[str, Any] = field(default_factory=dict)
    input: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    previews: tuple[bytes, ...] = field(default=(), repr=False)

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.status in ENDED


@dataclass(frozen=True, eq=False)
class Avatars:
    """The finished pictures. `files[i]` is picture i as the server encoded it (PNG), made by `seeds[i]`.

    seeds is empty where the server did not tell them. task: the task that made them.
    """

    files: tuple[bytes, ...] = field(repr=False)
    seeds: tuple[int, ...]
    task: Task

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.files)

    def pictures(self) -> tuple[Image, ...]:
        """As PIL images, RGB or RGBA."""
        import io

        from PIL import Image

        opened = tuple(Image.open(io.BytesIO(data)) for data in self.files)
        for picture in opened:
            picture.load()
        return opened

    def arrays(self) -> tuple[NDArray[np.uint8], ...]:
        """As uint8 (H, W, 3) RGB, or (H, W, 4) straight RGBA."""
        return tuple(np.asarray(picture, dtype=np.uint8) for picture in self.pictures())

    def save(self, target: str | Path) -> list[Path]:
        """Writes every picture, byte for byte as it came, and gives the paths in order.

        A target that ends in .png is that file (with -0, -1, ... before the suffix when there are several);
        any other is a folder that gets avatar-<seed>.png. Missing folders are made. Raises ImageError (cannot
        write).
        """
        target = Path(target).expanduser()
        if target.suffix.lower() == ".png" and not target.is_dir():
            many = len(self.files) > 1
            names = [f"{target.stem}{f'-{index}' if many else ''}.png" for index in range(len(self.files))]
            folder = target.parent
        else:
            labels = self.seeds or range(1, len(self.files) + 1)
            folder, names = target, [f"avatar-{label}.png" for label in labels]
        paths = [folder / name for name in names]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for path, data in zip(paths, self.files, strict=True):
                path.write_bytes(data)
        except OSError as error:
            raise ImageError(
                f"{folder}: cannot be written ({error.strerror}); choose another place"
            ) from error
        return paths
