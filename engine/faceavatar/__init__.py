"""A photo in, avatars out, without torch: the public names, loaded when they are first asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from faceavatar.errors import (
    DeadlineExceeded,
    EngineStale,
    FaceAvatarError,
    HashMismatch,
    ImageError,
    InvalidRequest,
    MissingExtra,
    MissingGraph,
    NoFaceFound,
    NumericalError,
    OutOfMemory,
    OverBudget,
    PackError,
    PackInvalid,
    PackNotFound,
    ProviderUnavailable,
    SignatureMismatch,
    UrlRefused,
)

if TYPE_CHECKING:
    from faceavatar.engine import AvatarEngine
    from faceavatar.identity import Identity
    from faceavatar.request import AvatarRequest
    from faceavatar.result import AvatarResult, FaceInfo, Step, read_metadata

__version__ = "0.1.0"

__all__ = [
    "AvatarEngine",
    "AvatarRequest",
    "AvatarResult",
    "DeadlineExceeded",
    "EngineStale",
    "FaceAvatarError",
    "FaceInfo",
    "HashMismatch",
    "Identity",
    "ImageError",
    "InvalidRequest",
    "MissingExtra",
    "MissingGraph",
    "NoFaceFound",
    "NumericalError",
    "OutOfMemory",
    "OverBudget",
    "PackError",
    "PackInvalid",
    "PackNotFound",
    "ProviderUnavailable",
    "SignatureMismatch",
    "Step",
    "UrlRefused",
    "__version__",
    "read_metadata",
]

_ROOMS = {
    "AvatarEngine": "engine",
    "AvatarRequest": "request",
    "AvatarResult": "result",
    "FaceInfo": "result",
    "Identity": "identity",
    "Step": "result",
    "read_metadata": "result",
}


def __getattr__(name: str) -> object:
    """Loads a room on first use: numpy and pydantic cost more than all the rest of `import faceavatar`."""
    room = _ROOMS.get(name)
    if room is None:
        raise AttributeError(f"module 'faceavatar' has no attribute {name!r}")
    value: object = getattr(import_module(f"faceavatar.{room}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
