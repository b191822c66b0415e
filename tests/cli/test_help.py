"""Help and docs tell the same, all of it, and help comes at once."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import click
import pytest

from faceavatar import AvatarRequest, __version__
from faceavatar.request import Gender, SchedulerName
from faceavatar_cli.exits import EXITS
from faceavatar_cli.generate import generate
from faceavatar_cli.main import cli

DOCS = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
ELSEWHERE = {"image": "photo", "app_id": "pack"}
NOT_HERE = {"celery": "one command has no queue to put itself into"}


def commands(command: click.Command = cli, path: str = "faceavatar") -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from commands(child, f"{path} {name}")


def test_every_field_of_a_request_has_a_flag() -> None:
    flags = {parameter.name for parameter in generate.params}
    fields = set(AvatarRequest.model_fields) - set(NOT_HERE)
    assert {ELSEWHERE.get(field, field) for field in fields} <= flags


@pytest.mark.parametrize(("path", "command"), list(commands()), ids=lambda value: str(value))
def test_every_command_and_flag_is_in_the_docs(path: str, command: click.Command) -> None:
    assert f"`{path}" in DOCS
    for parameter in command.params:
        for flag in [*parameter.opts, *parameter.secondary_opts]:
            if isinstance(parameter, click.Option):
                assert re.search(rf"`{flag}\b", DOCS), flag


def test_every_flag_in_the_docs_exists() -> None:
    real = {
        flag
        for _, command in commands()
        for parameter in command.params
        for flag in [*parameter.opts, *parameter.secondary_opts]
    }
    for flag in re.findall(r"`(--[a-z-]+)", DOCS):
        assert flag in real | {"--help"}, flag


def test_help_and_docs_name_the_schedulers_and_genders(run: Any) -> None:
    for text in (run("generate", "--help").out, DOCS):
        for name in (*get_args(SchedulerName), *get_args(Gender)):
            assert re.search(rf"\b{name}\b", text), name


def test_the_exit_codes_are_one_table_in_help_and_docs(run: Any) -> None:
    rows = [
        f"| {number} | {meaning} | {', '.join(f'`{code}`' for code in codes)} |"
        for number, (meaning, codes) in EXITS.items()
    ]
    assert "\n".join(row.replace("|  |", "| |") for row in rows) in DOCS
    for path in ((), ("generate",)):
        words = " ".join(run(*path, "--help").out.split())
        for number, (meaning, _) in EXITS.items():
            assert f"{number} {meaning}" in words


def test_the_version_is_the_packages(run: Any) -> None:
    assert run("--version").out == f"faceavatar {__version__}\n"


@pytest.mark.parametrize("path", [(), ("packs",)])
def test_without_a_command_help_is_shown(run: Any, path: tuple[str, ...]) -> None:
    ran = run(*path)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("Usage: faceavatar")


def test_help_loads_neither_numpy_nor_pydantic_nor_pillow() -> None:
    script = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "from faceavatar_cli.main import main\n"
        "assert main(['generate', '--help']) == 0\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, *sys.path], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = set(ran.stderr.split())
    assert "click" in loaded
    assert not loaded & {"numpy", "pydantic", "PIL", "cv2", "onnxruntime", "openvino", "tokenizers", "torch"}
