"""Every error this package raises on purpose.

FaceAvatarError                 error
 ├ InvalidRequest               invalid_request        a field of the request is out of its range
 │  └ OverBudget                over_budget            it would take more memory than it may
 ├ ImageError                   unreadable_image       the photo cannot be read, fetched or is too large
 │  └ UrlRefused                url_refused            its URL leads where nothing is fetched from
 ├ NoFaceFound                  no_face                the photo was read, but no face is in it
 ├ PackError                    pack_error
 │  ├ PackNotFound              pack_not_found         no pack of that name or at that path
 │  └ PackInvalid               pack_invalid           the manifest cannot be used
 │     ├ HashMismatch           hash_mismatch          a file is not the one the manifest names
 │     ├ EngineStale            engine_stale           a compiled engine is for another machine or graph
 │     ├ MissingGraph           missing_graph          a graph or its file is absent
 │     └ SignatureMismatch      signature_mismatch     a graph's inputs or outputs differ from the manifest
 ├ ProviderUnavailable          provider_unavailable   the execution provider is absent or fell back
 ├ MissingExtra                 missing_extra          an optional package is not installed
 ├ NumericalError               numerical_error        a model gave NaN or infinite values
 ├ OutOfMemory                  out_of_memory          the provider or the process ran out of memory
 └ DeadlineExceeded             timeout                the time that the caller gave is over

The second column is `code`: stable, for exit codes, HTTP answers and logs. A message says what was got, what
was expected and what to do next. All of them survive pickling, so that a worker process can hand them back.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "DeadlineExceeded",
    "EngineStale",
    "FaceAvatarError",
    "HashMismatch",
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
    "UrlRefused",
]

_LONGEST_VALUE = 80
# Extras that bring all but one package, which pip may not install with what it asks for (docs/decisions.md).
_FURTHER_COMMANDS = {"insightface": ", then pip install --no-deps insightface"}


class FaceAvatarError(Exception):
    """Base of all errors raised on purpose; `except FaceAvatarError` catches every one of them."""

    code: ClassVar[str] = "error"


class InvalidRequest(FaceAvatarError):
    """A request field holds a value outside its range; raised before any model runs.

    `field` is the field's name, `got` the value handed in, `allowed` words for what is accepted.
    """

    code = "invalid_request"

    def __init__(self, field: str, got: object, allowed: str) -> None:
        super().__init__(field, got, allowed)
        self.field = field
        self.got = got
        self.allowed = allowed

    def __str__(self) -> str:
        return f"{self.field}: got {_shorten(self.got)}, allowed {self.allowed}"


class OverBudget(InvalidRequest):
    """Raised before any work: the request would take `needed` bytes where `budget` are allowed.

    `field`, `got` and `allowed` as InvalidRequest's: what of the request to make smaller, and to what.
    """

    code = "over_budget"

    def __init__(self, field: str, got: object, allowed: str, needed: int, budget: int) -> None:
        super().__init__(field, got, allowed)
        self.args = (field, got, allowed, needed, budget)
        self.needed = needed
        self.budget = budget

    def __str__(self) -> str:
        return (
            f"{super().__str__()}: it would take {_gigabytes(self.needed)} where memory_budget is "
            f"{_gigabytes(self.budget)}"
        )


class ImageError(FaceAvatarError):
    """A picture is missing, is no picture, is too large, or its URL failed or is not allowed."""

    code = "unreadable_image"


class UrlRefused(ImageError):
    """A URL that is not followed: another scheme, a password in it, an address that is not public."""

    code = "url_refused"


class NoFaceFound(FaceAvatarError):
    """The picture was read, but no attempt of the detection ladder found a face in it."""

    code = "no_face"


class PackError(FaceAvatarError):
    """Base of everything that is wrong with a model pack."""

    code = "pack_error"


class PackNotFound(PackError):
    """No pack has this name, and no folder with a pack.json is at this path."""

    code = "pack_not_found"


class PackInvalid(PackError):
    """The pack's manifest is unreadable, of a newer schema, or contradicts itself."""

    code = "pack_invalid"


class HashMismatch(PackInvalid):
    """A file of the pack does not have the sha256 that the manifest names."""

    code = "hash_mismatch"


class EngineStale(PackInvalid):
    """A compiled engine does not fit: another processor, driver or version, or made of another graph."""

    code = "engine_stale"


class MissingGraph(PackInvalid):
    """The manifest lacks a graph that is needed, or names a file that is not there."""

    code = "missing_graph"


class SignatureMismatch(PackInvalid):
    """A graph's inputs or outputs differ from those in the manifest."""

    code = "signature_mismatch"


class ProviderUnavailable(FaceAvatarError):
    """The execution provider asked for is not installed, or gave way to another one in silence."""

    code = "provider_unavailable"


class MissingExtra(FaceAvatarError):
    """A feature needs a package that the base install does not bring; `extra` installs `package`."""

    code = "missing_extra"

    def __init__(self, extra: str, package: str) -> None:
        super().__init__(extra, package)
        self.extra = extra
        self.package = package

    def __str__(self) -> str:
        further = _FURTHER_COMMANDS.get(self.extra, "")
        return f"needs the package {self.package}: pip install 'faceavatar[{self.extra}]'{further}"


class NumericalError(FaceAvatarError):
    """A model gave NaN or infinite values; `stage` names it, `step` is the 0-based step or None."""

    code = "numerical_error"

    def __init__(self, stage: str, step: int | None = None) -> None:
        super().__init__(stage, step)
        self.stage = stage
        self.step = step

    def __str__(self) -> str:
        where = "" if self.step is None else f" at step {self.step}"
        return (
            f"{self.stage} gave NaN or infinite values{where}, expected finite ones; "
            "check the pack with `faceavatar packs verify`, or run it with provider='cpu'"
        )


class OutOfMemory(FaceAvatarError):
    """Memory ran out at work; the engine goes on, and a smaller request may well pass.

    `needed`: bytes that the request was forecast to take, None where that is not known.
    """

    code = "out_of_memory"

    def __init__(self, what: str, needed: int | None = None) -> None:
        super().__init__(what, needed)
        self.what = what
        self.needed = needed

    def __str__(self) -> str:
        forecast = (
            "" if self.needed is None else f"; the request was forecast to take {_gigabytes(self.needed)}"
        )
        return (
            f"memory ran out: {self.what}{forecast}; ask for a smaller size or batch, or load the engine "
            "with a memory_budget, which refuses such requests before they begin"
        )


class DeadlineExceeded(FaceAvatarError):
    """The time that the caller gave is over; nothing is left behind. `stage`: what was not begun any more.

    `seconds`: the time that was given. `step`: the 0-based step that was not begun, None between stages.
    """

    code = "timeout"

    def __init__(self, stage: str, seconds: float, step: int | None = None) -> None:
        super().__init__(stage, seconds, step)
        self.stage = stage
        self.seconds = seconds
        self.step = step

    def __str__(self) -> str:
        where = self.stage if self.step is None else f"{self.stage} at step {self.step}"
        return (
            f"not done after {self.seconds:g} s: stopped before {where}; give it more time, or ask for fewer "
            "steps, fewer pictures or a smaller size"
        )


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB"


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."
