"""docs/training.md: every stage it names exists, takes the options shown, and none is left out."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import faceavatar_export.toon

DOCUMENT = Path(__file__).parents[2] / "docs" / "training.md"
COMMANDS = re.findall(
    r"^(?:python|torchrun [^\n]*?) -m (faceavatar_export\S+)(.*)$", DOCUMENT.read_text(), re.M
)


def source_of(module: str) -> str:
    spec = find_spec(module)
    assert spec is not None, module
    assert spec.origin is not None
    return Path(spec.origin).read_text("utf-8")


def test_every_command_names_a_module_that_takes_its_options() -> None:
    assert len(COMMANDS) >= 13
    for module, arguments in COMMANDS:
        source = source_of(module)
        for option in re.findall(r"--[\w-]+", arguments):
            assert f'"{option}"' in source, (module, option)


def test_every_stage_with_a_command_line_is_described() -> None:
    folder = Path(faceavatar_export.toon.__path__[0])
    stages = {file.stem for file in folder.glob("*.py") if "ArgumentParser" in file.read_text("utf-8")}
    described = {module.removeprefix("faceavatar_export.toon.") for module, _ in COMMANDS}
    assert stages <= described
