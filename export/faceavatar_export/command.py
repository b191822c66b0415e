"""The door through which the command line reaches the export: plain values in, a parity report out."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from faceavatar_export.diffusion.checkpoint import Lora
from faceavatar_export.diffusion.export import Options, export_pack
from faceavatar_export.face_models import FaceSource


def export_checkpoint(
    source: str,
    out: Path,
    name: str,
    license: str,
    say: Callable[[str], None],
    loras: Sequence[tuple[Path, float]] = (),
    face_pack: Path | None = None,
    face_pack_license: str | None = None,
    with_face_pack: str | None = None,
    accept_license: str | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Export SOURCE to the pack folder OUT; gives what parity.json holds.

    loras: files and their weights. face_pack and its licence, or with_face_pack and the terms agreed to: face
    models. options: the other fields of diffusion.export.Options.
    Raises InvalidRequest, PackInvalid and its kin.
    """
    import diffusers
    import transformers

    diffusers.logging.set_verbosity_error()
    diffusers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.getLogger("torch").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries, about themselves; what matters is measured
        fused = tuple(Lora(path, weight) for path, weight in loras)
        faces = FaceSource(face_pack, face_pack_license, with_face_pack, accept_license)
        return export_pack(Options(source, out, name, license, loras=fused, faces=faces, **options), say)
