"""The door through which the command line reaches the export: plain values in, a parity report out."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from faceavatar_export.diffusion.checkpoint import Lora, Reading
from faceavatar_export.diffusion.export import Options, export_pack
from faceavatar_export.diffusion.schedule import Variant
from faceavatar_export.diffusion.single_file import Prediction


def export_checkpoint(
    source: str,
    out: Path,
    name: str,
    license: str,
    say: Callable[[str], None],
    loras: Sequence[tuple[Path, float]] = (),
    config: Path | None = None,
    prediction: str | None = None,
    variant: str | None = None,
    vae: Path | None = None,
    tiny_vae: Path | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Export SOURCE to the pack folder OUT; gives what parity.json holds.

    loras: files and their weights. config, prediction, variant, vae, tiny_vae: checkpoint.Reading's fields.
    options: the other fields of diffusion.export.Options.
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
        reading = Reading(
            config, cast("Prediction | None", prediction), cast("Variant | None", variant), vae, tiny_vae
        )
        wanted = Options(source, out, name, license, loras=fused, reading=reading, **options)
        return export_pack(wanted, say)
