"""The door through which the command line reaches the export: plain values in, a parity report out."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faceavatar_export.diffusion.export import Options, export_pack


def export_checkpoint(
    source: str, out: Path, name: str, license: str, say: Callable[[str], None], **options: Any
) -> dict[str, Any]:
    """Export SOURCE to the pack folder OUT; gives what parity.json holds.

    options: the other fields of diffusion.export.Options. Raises InvalidRequest, PackInvalid and its kin.
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
        return export_pack(Options(source, out, name, license, **options), say)
