"""`faceavatar cutout` and `packs add-matting`: files, colours, licences, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_pack
from PIL import Image

PHOTO = Path(__file__).parents[1] / "fixtures" / "photos" / "obama.jpg"
SELFIE = tiny_pack.TOON.parents[1] / "matting" / "selfie_segmentation.onnx"


def test_a_person_is_cut_out_of_a_photo(run: Any, place: Path) -> None:
    told = run("cutout", str(PHOTO), "--json").json
    assert told["file"] == "obama-cutout.png"
    assert told["net"] == "selfie_segmentation"
    assert told["transparent"]
    rgba = np.asarray(Image.open("obama-cutout.png"))
    assert rgba.shape[2] == 4
    assert rgba[5, 5, 3] == 0
    assert run("cutout", str(PHOTO)).out == "obama-cutout-1.png\n"


def test_a_colour_may_be_a_jpeg_and_a_packs_net_may_do_it(run: Any, place: Path) -> None:
    ran = run("cutout", str(PHOTO), "--bg-color", "#f00", "--out", "red.jpg", "--pack", "tiny")
    assert ran.code == 0
    red = np.asarray(Image.open("red.jpg"))
    assert np.abs(red[2, 2].astype(int) - (255, 0, 0)).max() < 8


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (
            ["--out", "a.jpg"],
            2,
            "--out: got 'a.jpg', allowed .png or .webp, since JPEG has no transparency; or add",
        ),
        (["--out", "a.gif"], 2, "--out: got 'a.gif', allowed a file ending in .png, .webp or .jpg"),
        (["--bg-color", "red"], 2, "--bg-color: got 'red', allowed \"#RRGGBB\""),
        (["--pack", "nobody"], 5, "no pack called 'nobody'"),
    ],
)
def test_what_cannot_be_is_refused_before_the_work(
    run: Any, place: Path, arguments: list[str], code: int, words: str
) -> None:
    ran = run("cutout", str(PHOTO), *arguments)
    assert ran.code == code
    assert words in ran.err


def test_a_picture_that_is_none_is_refused(run: Any, place: Path) -> None:
    Path("words.txt").write_text("no picture")
    assert run("cutout", "words.txt").code == 3


def test_a_pack_gets_a_matting_net_with_its_licence(run: Any, place: Path, tiny: Path) -> None:
    ran = run("packs", "add-matting", str(SELFIE), "--to", "tiny", "--preset", "selfie", "--out", "mine")
    assert ran.code == 0
    assert "MediaPipe Selfie Segmentation by Google, Apache-2.0" in ran.out
    content = json.loads(Path("mine/pack.json").read_text())
    assert content["files"]["matting.onnx"]["license"] == "Apache-2.0"
    assert content["matting"]["size"] == [256, 256]
    assert run("packs", "verify", "mine").code == 0
    assert run("cutout", str(PHOTO), "--pack", "mine", "--json").json["net"] == "mine"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--to", "toon", "--preset", "selfie"],
            "--out: got None, allowed a new folder, for toon ships with",
        ),
        (["--to", "tiny", "--preset", "rmbg"], "--preset: got 'rmbg', allowed with your word alone"),
        (["--to", "tiny", "--preset", "best"], "--preset: got 'best', allowed u2net, isnet"),
        (
            ["--to", "tiny", "--preset", "selfie", "--alpha", "beta", "--out", "x"],
            "--alpha: got 'beta', allowed an",
        ),
    ],
)
def test_nets_are_added_with_everything_said(run: Any, place: Path, arguments: list[str], words: str) -> None:
    ran = run("packs", "add-matting", str(SELFIE), *arguments)
    assert ran.code == 2
    assert words in ran.err
    assert not Path("x").exists()


def test_the_users_word_adds_a_net_for_non_commercial_use(run: Any, place: Path) -> None:
    ran = run(
        "packs",
        "add-matting",
        str(SELFIE),
        "--to",
        "tiny",
        "--preset",
        "rmbg",
        "--non-commercial",
        "--out",
        "nc",
    )
    assert ran.code == 0
    assert "bria-rmbg-1.4" in ran.out


def test_a_hub_id_needs_a_whole_commit_and_a_file(run: Any, place: Path) -> None:
    ran = run(
        "packs", "add-matting", "briaai/RMBG-1.4@main:onnx/model.onnx", "--to", "tiny", "--preset", "u2net"
    )
    assert ran.code == 2
    assert "OWNER/NAME@COMMIT:FILE of the hub with all 40 digits" in ran.err
