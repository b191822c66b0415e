"""`faceavatar embed`, and `generate` with what it wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from faceavatar_cli.order import EXAMPLE


@pytest.fixture
def who(run: Any, place: Path) -> Path:
    ran = run("embed", "--example", "--pack", "tiny", "-o", "who.faceid")
    assert ran.code == 0, ran.err
    assert ran.out == "who.faceid\n"
    assert "20 numbers of tiny's face_encoder.onnx" in ran.err
    return place / "who.faceid"


def test_the_file_takes_the_photos_place(run: Any, make: Any, who: Path, place: Path) -> None:
    assert make("-o", "photo.png", "--seed", "5").code == 0
    ran = run(
        "generate",
        "who.faceid",
        "--pack",
        "tiny",
        "--provider",
        "cpu",
        "-o",
        "identity.png",
        "--seed",
        "5",
        "--json",
    )
    assert ran.code == 0
    assert ran.json["face"] is None
    assert ran.json["warnings"] == []
    from PIL import Image, ImageChops

    pictures = [Image.open(place / f"{name}.png") for name in ("photo", "identity")]
    assert ImageChops.difference(*pictures).getbbox() is None


def test_a_picture_of_an_identity_can_be_repeated(run: Any, who: Path) -> None:
    first = run("generate", who, "--pack", "tiny", "--provider", "cpu", "-o", "one.png", "--json").json
    again = run("generate", "--from", "one.png", "--provider", "cpu", "-o", "two.png", "--json").json
    assert again["seeds"] == first["seeds"]
    assert Path("two.png").read_bytes() == Path("one.png").read_bytes()


def test_json_tells_the_encoder(run: Any) -> None:
    told = run("embed", EXAMPLE, "--pack", "tiny", "-o", "new/who.faceid", "--json").json
    assert told["file"] == "new/who.faceid"
    assert (told["size"], told["image_states"], told["pack"]) == (20, False, "tiny")
    assert len(told["encoder"]) == 64


def test_what_cannot_be_written_is_refused_before_the_pack_is_looked_for(run: Any, who: Path) -> None:
    for out, code, words in (
        ("who.png", 2, "--out: got 'who.png', allowed a file ending in .faceid"),
        ("who.faceid", 10, "who.faceid: is there already; choose another name, or overwrite it with --force"),
        ("who.faceid/in.faceid", 10, "is not writable; choose another place with --out"),
    ):
        ran = run("embed", "--example", "--pack", "nowhere", "-o", out)
        assert (ran.code, words in ran.err) == (code, True), ran.err
    assert run("embed", "--example", "--pack", "tiny", "-o", "who.faceid", "--force").code == 0


def test_what_holds_no_face_of_a_photo_is_refused(run: Any, who: Path, place: Path) -> None:
    from PIL import Image

    Image.new("RGB", (300, 200)).save("grey.png")
    assert run("embed", "grey.png", "--pack", "tiny", "-o", "grey.faceid").code == 4
    ran = run("embed", who.relative_to(place), "--pack", "tiny", "-o", "again.faceid")
    assert ran.code == 2
    assert "PHOTO: got 'who.faceid'" in ran.err
    assert "allowed a photo: this is an identity file already" in ran.err
    assert run("embed", "--pack", "tiny", "-o", "none.faceid").code == 2
    ran = run("embed", "--example", "--face-index", "3", "--pack", "tiny", "-o", "third.faceid")
    assert "--face-index: got 3, allowed 0..0" in ran.err
    assert not list(place.glob("[!w]*.faceid"))


def test_another_packs_identity_is_refused_by_name(run: Any, who: Path) -> None:
    ran = run("generate", who, "--pack", "toon", "--provider", "cpu")
    assert ran.code == 2
    assert "PHOTO: got 'an identity of tiny's face_encoder.onnx" in ran.err.replace('"', "'")
    assert "faceavatar embed PHOTO --pack toon -o WHO.faceid" in ran.err
    Path("broken.faceid").write_bytes(who.read_bytes()[:-5])
    ran = run("generate", "broken.faceid", "--pack", "tiny", "--provider", "cpu")
    assert ran.code == 3
    assert "a damaged identity file" in ran.err


def test_similarities_and_kept_seeds_are_told(run: Any) -> None:
    ran = run(
        "generate",
        "--example",
        "--provider",
        "cpu",
        "--best-of",
        "2",
        "--batch",
        "2",
        "--seed",
        "5",
        "--json",
    )
    told = ran.json
    assert len(told["similarities"]) == 2
    assert all(0.5 < cosine < 1 for cosine in told["similarities"])
    assert told["seeds"][0] in {5, 6}
    assert told["seeds"][1] in {7, 8}
    assert [Path(file).name for file in told["files"]] == [f"avatar-{seed}.png" for seed in told["seeds"]]
    ran = run("generate", "--example", "--provider", "cpu", "--seed", "5", "--similarity", "-o", "one.png")
    assert ran.code == 0
    assert "seed 5, similarity 0." in ran.err
    plain = json.loads(run("generate", "--example", "--provider", "cpu", "--json", "-o", "two.png").out)
    assert plain["similarities"] is None
