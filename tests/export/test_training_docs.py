"""docs/training.md: every stage it names exists, takes the options shown, and none is left out."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from importlib import import_module
from pathlib import Path

import pytest

import faceavatar_export.toon
from faceavatar_export.toon import make_pack
from faceavatar_export.toon.settings import CONFIG

DOCUMENT = (Path(__file__).parents[2] / "docs" / "training.md").read_text("utf-8")
COMMANDS = re.findall(
    r"^(?:python|torchrun [^\n]*?) -m (faceavatar_export\S+)((?:.*\\\n)*.*)$", DOCUMENT, re.M
)


def options_of(module: str) -> set[str]:
    """The options that a command's own help shows."""
    main, shown = import_module(module).main, io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(shown):
        patch.setattr(sys, "argv", [module, "--help"])
        with pytest.raises(SystemExit, match="0"):
            main()
    return set(re.findall(r"--[\w-]+", shown.getvalue().partition("options:")[2]))


@pytest.mark.parametrize("module", sorted({module for module, _ in COMMANDS}))
def test_every_command_takes_the_options_shown(module: str) -> None:
    known = options_of(module)
    for arguments in (arguments for name, arguments in COMMANDS if name == module):
        assert set(re.findall(r"--[\w-]+", arguments)) <= known, arguments


def test_every_module_with_a_command_line_is_described() -> None:
    folder = Path(faceavatar_export.toon.__path__[0])
    stages = {file.stem for file in folder.glob("*.py") if "\ndef main(" in file.read_text("utf-8")}
    described = {module.removeprefix("faceavatar_export.toon.") for module, _ in COMMANDS}
    assert stages <= described


def test_the_runner_has_every_stage_of_the_table_in_its_order() -> None:
    plan = make_pack.Plan(Path("w"), Path("p"), CONFIG, "cpu", 1, warm=Path("old"), photos=(Path("a.jpg"),))
    table = re.findall(r"^\| `(\w+)` \| `(\w+)` \|", DOCUMENT, re.M)
    stages = make_pack.commands(plan)
    assert [name for name, _ in table] == list(stages)
    for name, module in table:
        assert f"faceavatar_export.toon.{module}" in stages[name]
