"""`faceavatar packs`: what is there, what is in it, whether it is whole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny_pack


def test_list_names_the_packs_of_the_search_path(run: Any, tiny: Path) -> None:
    ran = run("packs", "list")
    assert ran.code == 0
    line = next(line for line in ran.out.splitlines() if line.startswith("tiny "))
    assert "0.0.1" in line
    assert str(tiny) in line
    found = {pack["name"]: pack for pack in run("packs", "list", "--json").json["packs"]}
    assert found["tiny"]["folder"] == str(tiny)
    assert found["tiny"]["size"] == sum(
        path.stat().st_size for path in tiny.iterdir() if path.name != "pack.json"
    )


def test_list_shows_a_broken_pack_with_its_problem(
    run: Any, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = place / "packs" / "old"
    folder.mkdir(parents=True)
    (folder / "pack.json").write_text('{"schema_version": 99}')
    monkeypatch.setenv("FACEAVATAR_PACKS", str(place / "packs"))
    ran = run("packs", "list")
    assert ran.code == 0
    assert "old" in ran.out
    assert "schema_version" in ran.out


def test_show_tells_graphs_defaults_and_licences(run: Any, tiny: Path) -> None:
    for name in ("tiny", tiny):
        out = run("packs", "show", name).out
        for word in (
            "unet.onnx",
            "fp32",
            "512x512",
            "64 pixels a cell; 24 numbers",
            "num_inference_steps 4",
            "Apache-2.0 (8 files)",
        ):
            assert word in out
    told = run("packs", "show", "tiny", "--json").json
    assert told["folder"] == str(tiny)
    assert told["manifest"]["graphs"]["unet"]["file"] == "unet.onnx"


def test_verify_says_that_a_whole_pack_is_whole(run: Any) -> None:
    ran = run("packs", "verify", "tiny")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("ok: tiny 0.0.1, 8 files and 6 graphs")
    assert run("packs", "verify", "tiny", "--json").json["ok"] is True


def test_verify_names_every_problem_and_ends_with_6(run: Any, tiny: Path, place: Path) -> None:
    broken = shutil.copytree(tiny, place / "broken")
    with (broken / "tokenizer.json").open("a") as file:
        file.write(" ")

    def other_tokens(content: dict[str, Any]) -> None:
        content["graphs"]["face_projection"]["outputs"]["face_tokens"]["shape"] = ["batch", 16, 24]

    tiny_pack.change_manifest(broken, other_tokens)
    ran = run("packs", "verify", broken)
    assert ran.code == 6
    assert "tokenizer.json has sha256" in ran.out
    assert "face_projection" in ran.out
    assert ran.err == "error[pack_invalid]: tiny: 3 of its checks failed; install it again\n"
    told = run("packs", "verify", broken, "--json").json
    assert told["ok"] is False
    assert len(told["problems"]) == 3


def test_verify_names_a_missing_file(run: Any, tiny: Path, place: Path) -> None:
    broken = shutil.copytree(tiny, place / "broken")
    (broken / "unet.onnx").unlink()
    ran = run("packs", "verify", broken)
    assert ran.code == 6
    assert ran.out.startswith("tiny: the file unet.onnx is missing")
    assert ran.err == "error[pack_invalid]: tiny: 1 of its checks failed; install it again\n"


def test_show_tells_what_the_export_proved(run: Any, tiny: Path, tmp_path: Path) -> None:
    pack = shutil.copytree(tiny, tmp_path / "proved")
    assert "proof" not in run("packs", "show", str(pack)).out
    rows = [{"max_difference": 1}, {"max_difference": 2}]
    (pack / "parity.json").write_text(json.dumps({"pipeline": rows, "misses": []}))
    assert "pictures at most 2/255 from diffusers' (all bounds held)" in run("packs", "show", str(pack)).out
    (pack / "parity.json").write_text("not JSON")
    assert "proof" not in run("packs", "show", str(pack)).out
