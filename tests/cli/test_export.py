"""`faceavatar export`: what is refused before any work, and what a machine without torch is told."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from faceavatar_cli.main import cli
from faceavatar_export.face_models import TERMS

DOCS = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
pytestmark = pytest.mark.filterwarnings("ignore")


def test_a_source_that_is_none_is_refused(run: Any, tmp_path: Path) -> None:
    ran = run("export", "nowhere", "--license", "CC0-1.0", "-o", str(tmp_path / "pack"))
    assert ran.code == 2
    assert "SOURCE: got 'nowhere', allowed a folder in diffusers' layout" in ran.err
    assert not (tmp_path / "pack").exists()


def test_the_four_commands_of_the_docs_are_understood(place: Path) -> None:
    block, instantid = re.findall(r"```sh\n(.*?)```", DOCS, flags=re.S)
    first, second, third, fourth = block.strip().splitlines()
    extras = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    for command in (first, third):
        for extra in re.findall(r"faceavatar\[(.*?)\]", command)[0].split(","):
            assert extra in extras["project"]["optional-dependencies"]
    (place / "stable-diffusion-v1-5").mkdir()
    for file in ("ip-adapter-faceid_sd15.bin", "ip-adapter.bin", "ControlNetModel", "selfie.jpg"):
        (place / file).touch()
    arguments = shlex.split(second)[1:]
    understood = cli.commands["export"].make_context("export", arguments[1:]).params
    assert understood["with_face_pack"] == "buffalo_l"
    assert understood["accept_license"] == TERMS
    assert understood["face_adapter"] == Path("ip-adapter-faceid_sd15.bin")
    arguments = shlex.split(instantid)[1:]
    assert (
        cli.commands["export"].make_context("export", arguments[1:]).params["with_face_pack"] == "antelopev2"
    )
    arguments = shlex.split(fourth)[1:]
    understood = cli.commands["generate"].make_context("generate", arguments[1:]).params
    assert (understood["photo"], understood["pack"]) == ("selfie.jpg", "./sd15-faceid")


def test_a_folder_that_is_no_checkpoint_is_refused(run: Any, tmp_path: Path) -> None:
    ran = run("export", str(tmp_path), "--license", "CC0-1.0", "-o", str(tmp_path / "pack"))
    assert ran.code == 6
    assert "not a checkpoint folder" in ran.err
    assert not list(tmp_path.iterdir())


def test_a_licence_has_to_be_named(run: Any, tmp_path: Path) -> None:
    ran = run("export", str(tmp_path), "-o", str(tmp_path / "pack"))
    assert ran.code == 2
    assert "--license" in ran.err


def test_without_torch_the_extra_is_named() -> None:
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from faceavatar_cli.main import main\n"
        "sys.exit(main(['export', '.', '--license', 'x', '-o', 'never-written']))"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ran.returncode == 8
    assert "pip install 'faceavatar[export]'" in ran.stderr
    assert not Path("never-written").exists()


def test_a_lora_that_is_not_there_is_refused(run: Any, tmp_path: Path) -> None:
    for value, words in (("nowhere.safetensors", "there is no file"), ("a:strong", "is no number")):
        ran = run("export", ".", "--license", "x", "-o", str(tmp_path / "pack"), "--lora", value)
        assert ran.code == 2
        assert words in ran.err


def test_a_controlnet_without_instantids_adapter_is_refused(run: Any, tmp_path: Path) -> None:
    ran = run("export", ".", "--license", "x", "-o", str(tmp_path / "pack"), "--controlnet", str(tmp_path))
    assert ran.code == 2
    assert "--controlnet: got" in ran.err
    assert "nothing without InstantID's --face-adapter (here: none)" in ran.err
