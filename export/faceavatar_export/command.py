"""The door through which the command line reaches the export: plain values in, a parity report out."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from faceavatar_export.diffusion.checkpoint import Lora
from faceavatar_export.diffusion.export import Options, export_pack


def export_checkpoint(
    source: str,
    out: Path,
    name: str,
    license: str,
    say: Callable[[str], None],
    loras: Sequence[tuple[Path, float]] = (),
    **options: Any,
) -> dict[str, Any]:
    """Export SOURCE to the pack folder OUT; gives what parity.json holds.

    loras: files and their weights. options: the other fields of diffusion.export.Options.
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
        return export_pack(Options(source, out, name, license, loras=fused, **options), say)
