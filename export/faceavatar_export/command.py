"""The door through which the command line reaches the export: plain values in, a parity report out."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from faceavatar_export.additions import add_to, check_additions
from faceavatar_export.diffusion.checkpoint import Lora, Reading
from faceavatar_export.diffusion.export import export_pack
from faceavatar_export.diffusion.options import Options
from faceavatar_export.face_models import FaceSource


def export_checkpoint(
    source: str,
    out: Path,
    name: str,
    license: str,
    say: Callable[[str], None],
    loras: Sequence[tuple[Path, float]] = (),
    additions: Sequence[str] = (),
    **options: Any,
) -> dict[str, Any]:
    """Export SOURCE to the pack folder OUT; gives what parity.json holds.

    loras: files and their weights. additions: names of additions.ADDITIONS. options: the other fields of
    diffusion.export.Options, those of diffusion.checkpoint.Reading, and face_pack with its licence or
    with_face_pack with the terms agreed to.
    Raises InvalidRequest, PackInvalid and its kin.
    """
    check_additions(additions)
    with _quiet_libraries():
        report = export_pack(_options(source, out, name, license, loras, options), say)
    add_to(out, additions, say)
    return report


def prove_checkpoint(
    source: str,
    pack: Path,
    say: Callable[[str], None],
    loras: Sequence[tuple[Path, float]] = (),
    **options: Any,
) -> dict[str, Any]:
    """Prove the pack in a folder against SOURCE once more; gives the new parity report, and writes nothing.

    loras, options and errors as export_checkpoint's.
    """
    from faceavatar_export.diffusion.reproof import prove_again

    with _quiet_libraries():
        return prove_again(_options(source, pack, pack.name, "", loras, options), say)


def _options(
    source: str,
    out: Path,
    name: str,
    license: str,
    loras: Sequence[tuple[Path, float]],
    more: dict[str, Any],
) -> Options:
    own = {field.name for field in fields(Reading)}
    models = ("face_pack", "face_pack_license", "with_face_pack", "accept_license")
    faces = FaceSource(*(more.get(name) for name in models))
    reading = Reading(**{key: value for key, value in more.items() if key in own})
    fused = tuple(Lora(path, weight) for path, weight in loras)
    rest = {key: value for key, value in more.items() if key not in {*own, *models}}
    return Options(source, out, name, license, loras=fused, faces=faces, reading=reading, **rest)


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """No chatter of the libraries about themselves; what matters is measured."""
    import diffusers
    import transformers

    diffusers.logging.set_verbosity_error()
    diffusers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.getLogger("torch").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
