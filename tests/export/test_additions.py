"""`faceavatar export --add`: graphs on the weights that a pack has, added as soon as it is written."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import click
import pytest
import tiny_pack

from faceavatar import AvatarEngine, AvatarRequest, InvalidRequest
from faceavatar.pack import Pack, verify
from faceavatar_cli.main import cli
from faceavatar_export import command
from faceavatar_export.additions import ADDITIONS


def test_the_command_line_knows_all_of_them() -> None:
    (option,) = [one for one in cli.commands["export"].params if one.name == "additions"]
    assert isinstance(option.type, click.Choice)
    assert list(option.type.choices) == list(ADDITIONS)


@pytest.mark.parametrize(
    ("names", "words"),
    [(["tile"], "allowed one of tiles, step-cache, step-graph"), (list(ADDITIONS), "allowed one of the two")],
)
def test_what_cannot_be_added_is_refused_before_anything_is_read(
    tmp_path: Path, names: list[str], words: str
) -> None:
    with pytest.raises(InvalidRequest, match=f"--add: got .*, {words}"):
        command.export_checkpoint("nowhere", tmp_path / "pack", "x", "x", print, additions=names)


def test_an_export_adds_them_to_the_pack_that_it_has_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = tiny_pack.build(tmp_path / "plain", tiny_pack.SD_LIKE)

    def write(options: Any, say: Any) -> dict[str, Any]:
        shutil.copytree(plain, options.out)
        return {"misses": []}

    monkeypatch.setattr(command, "export_pack", write)
    said: list[str] = []
    out = tmp_path / "pack"
    report = command.export_checkpoint("any", out, "x", "x", said.append, additions=["step-graph"])
    assert report == {"misses": []}
    assert said == ["adding step-graph"]
    pack = Pack.load(out)
    assert verify(pack) == []
    assert set(pack.manifest.graphs) - set(Pack.load(plain).manifest.graphs) == {"unet_step"}
    engine = AvatarEngine.load(out, provider="cpu")
    request = AvatarRequest(image=tiny_pack.photo("astronaut"), num_inference_steps=2)
    assert len(engine.generate(request).images) == 1
