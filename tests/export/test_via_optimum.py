"""The cross-check with optimum-onnx: who cannot run it is told, and where it runs it agrees."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import bare_venv
import checkpoints
import pytest

from faceavatar.errors import InvalidRequest
from faceavatar_export.diffusion.export import export_pack
from faceavatar_export.diffusion.options import Options
from faceavatar_export.diffusion.via_optimum import VARIABLE, find_optimum


def test_an_environment_without_optimum_is_refused_with_the_command_that_makes_one(tmp_path: Path) -> None:
    lean = bare_venv.build(tmp_path / "lean")
    with pytest.raises(
        InvalidRequest, match=r"pip install optimum-onnx diffusers.* No module named 'optimum'"
    ):
        find_optimum(lean)
    with pytest.raises(InvalidRequest, match=r"cannot be run: .*No such file"):
        find_optimum(tmp_path / "nowhere")


def test_without_an_environment_the_option_and_the_variable_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    options = Options(str(tmp_path), tmp_path / "pack", "pack", "CC0-1.0", via="optimum")
    with pytest.raises(InvalidRequest, match=f"--optimum-python: got None, .*or set {VARIABLE}"):
        export_pack(options, print)


@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_optimums_graphs_of_the_same_checkpoint_agree(family: str, tmp_path: Path) -> None:
    """Makes the environment of its own, unless the variable names one: some 3 GB and several minutes."""
    named = os.environ.get(VARIABLE)
    python = Path(named) if named else tmp_path / "optimum" / "bin" / "python"
    if not named:
        subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "optimum")], check=True)
        for packages in (["torch==2.13.0"], ["optimum-onnx==0.1.0", "diffusers==0.39.0", "onnxruntime"]):
            subprocess.run([str(python), "-m", "pip", "install", "-q", *packages], check=True)
    source = getattr(checkpoints, family)(tmp_path / family)
    options = Options(str(source), tmp_path / "pack", "pack", "CC0-1.0", via="optimum", optimum_python=python)
    report = export_pack(options, print)
    assert report["misses"] == []
    assert set(report["optimum"]) == set(report["graphs"])
    assert 0 < max(report["optimum"].values()) < 1e-4
