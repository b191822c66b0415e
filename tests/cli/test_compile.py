"""`faceavatar compile`, and `packs verify` with a provider and a precision."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "tiny"))


def test_a_pack_is_compiled_verified_and_drawn_with(run: Any, folder: Path, tmp_path: Path) -> None:
    ran = run("compile", folder, "--provider", "cpu")
    assert ran.code == 0
    assert ran.out.startswith(f"{folder / 'engines'}: 6 engines of tiny for cpu, ")
    assert "unet: fp32, 0.0e+00 away from fp32" in ran.err
    assert run("packs", "verify", folder).code == 0
    drawn = run(
        "generate", "--example", "--pack", folder, "--provider", "cpu", "-o", tmp_path / "a.png", "--json"
    )
    assert drawn.json["warnings"] == []
    assert drawn.json["precisions"]["unet"] == "fp32"


def test_compile_tells_a_machine_what_it_made(run: Any, folder: Path, tmp_path: Path) -> None:
    told = run("compile", folder, "--provider", "cpu", "--into", tmp_path / "here", "--json").json
    assert told["folder"] == str(tmp_path / "here")
    assert told["graphs"]["unet"] == {"precision": "fp32", "error": 0.0}
    assert told["bytes"] == sum(
        path.stat().st_size for path in (tmp_path / "here").iterdir() if path.name != "engines.json"
    )


def test_a_stale_engine_ends_with_6_and_may_be_ignored(run: Any, folder: Path, tmp_path: Path) -> None:
    run("compile", folder, "--provider", "cpu")
    listed = folder / "engines" / "engines.json"
    listed.write_text(listed.read_text().replace('"onnxruntime": "', '"onnxruntime": "0.'))
    draw = (
        "generate",
        "--example",
        "--pack",
        folder,
        "--provider",
        "cpu",
        "-o",
        tmp_path / "a.png",
        "--json",
    )
    ran = run(*draw)
    assert ran.code == 6
    assert ran.json["error"]["code"] == "engine_stale"
    assert f"faceavatar compile {folder} --provider cpu" in ran.json["error"]["message"]
    verified = run("packs", "verify", folder)
    assert verified.code == 6
    assert "does not fit" in verified.out
    assert "left aside" in run(*draw, "--engines", "ignore").json["warnings"][0]
    assert run("packs", "verify", folder, "--engines", "ignore").code == 0


@pytest.mark.parametrize(("flag", "value"), [("--shapes", "512"), ("--precision", "fp8")])
def test_a_wrong_flag_is_told_by_its_name(run: Any, folder: Path, flag: str, value: str) -> None:
    ran = run("compile", folder, "--provider", "cpu", flag, value)
    assert ran.code == 2
    assert ran.err.startswith(f"error[invalid_request]: {flag}: got '{value}'")


def test_verify_holds_every_graph_to_float32(run: Any, folder: Path) -> None:
    ran = run("packs", "verify", folder, "--provider", "openvino", "--json")
    assert ran.code == 0
    rows = {row["role"]: row for row in ran.json["precision"]}
    assert rows["unet"]["precision"] == "fp32"
    assert 0 <= rows["unet"]["error"] < rows["unet"]["allowed"] == 1e-4
    (folder / "parity.json").write_text(json.dumps({"tolerances": {"fp32": 1e-12}}))
    ran = run("packs", "verify", folder, "--provider", "openvino")
    assert ran.code == 6
    assert "openvino: unet is " in ran.out


def test_a_precision_for_some_graphs_is_read_from_the_flag(run: Any, folder: Path) -> None:
    ran = run("packs", "verify", folder, "--provider", "cpu", "--precision", "unet=fp32, matting=bf16")
    assert ran.code == 7
    assert "matting would have to compute in bf16" in ran.err
