"""Stable Diffusion 1.5 at its full width, random weights, with FaceID: exported and proved, in minutes."""

from __future__ import annotations

from pathlib import Path

import checkpoints
import pytest

from faceavatar_export.diffusion.export import export_pack
from faceavatar_export.diffusion.options import Options


@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore")
def test_full_width_sd15_with_faceid_is_exported_and_proved(tmp_path: Path) -> None:
    source = checkpoints.full_sd15(tmp_path / "sd15")
    adapter = checkpoints.face_adapter(tmp_path / "ip-adapter-faceid_sd15.bin", source, "faceid")
    options = Options(str(source), tmp_path / "pack", "sd15-faceid", "CC0-1.0", face_adapter=adapter)
    report = export_pack(options, print)
    assert report["misses"] == []
    assert report["peak_memory_gb"] < 20
