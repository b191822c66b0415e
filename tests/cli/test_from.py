"""`--from`: a picture repeats itself, flags override it, and a photo that moved can be given anew."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import tiny_pack
from PIL import Image

from faceavatar import read_metadata
from faceavatar.image import encode_png
from faceavatar_cli.order import EXAMPLE


def same_pixels(one: Path, other: Path) -> bool:
    with Image.open(one) as a, Image.open(other) as b:
        return bool(np.array_equal(np.asarray(a), np.asarray(b)))


def test_a_picture_repeats_itself_to_the_byte(make: Any, run: Any, place: Path) -> None:
    make("-o", "old.png", "--prompt", "a pirate", "--bg-color", "#123", "--steps", 3, "--width", 300)
    assert run("generate", "--from", "old.png", "--provider", "cpu", "-o", "new.png").code == 0
    assert (place / "new.png").read_bytes() == (place / "old.png").read_bytes()


def test_one_picture_of_a_batch_repeats_alone(make: Any, place: Path) -> None:
    make("-o", "old", "--batch", 3, "--seed", 20)
    assert make("--from", "old/avatar-21.png", "-o", "new.png").code == 0
    assert same_pixels(place / "new.png", place / "old" / "avatar-21.png")


def test_a_contact_sheet_repeats_its_whole_batch(make: Any, place: Path) -> None:
    make("-o", "old", "--batch", 2, "--seed", 30)
    make("--from", "old/contact-sheet.png", "-o", "new")
    for name in ("avatar-30.png", "avatar-31.png", "contact-sheet.png"):
        assert (place / "new" / name).read_bytes() == (place / "old" / name).read_bytes()


def test_flags_override_the_old_request(make: Any) -> None:
    make("-o", "old.png", "--prompt", "a pirate", "--seed", 1, "--remove-background")
    new = make("--from", "old.png", "--json", "--prompt", "a queen", "--batch", 2, "--keep-background")
    request = new.json["request"]
    assert request["prompt"] == "a queen"
    assert request["batch"] == 2
    assert request["seed"] == 1
    assert request["remove_background"] is False


def test_words_take_back_what_the_old_request_asked(make: Any) -> None:
    make("-o", "old.png", "--gender", "man", "--seed", 1, "--bg-color", "#fff", "--face-index", 0)
    taken_back = ("--gender", "none", "--seed", "random", "--bg-color", "none", "--face-index", "largest")
    request = make("--from", "old.png", "--json", *taken_back).json["request"]
    assert request["gender"] is None
    assert request["bg_color"] is None
    assert request["face_index"] is None
    assert request["seed"] != 1


def test_a_photo_that_moved_is_asked_for_and_can_be_given(make: Any, place: Path) -> None:
    shutil.copy(EXAMPLE, place / "me.jpg")
    make("PHOTO", "me.jpg", "-o", "old.png", "--seed", 2)
    (place / "elsewhere").mkdir()
    (place / "me.jpg").rename(place / "elsewhere" / "you.jpg")
    ran = make("--from", "old.png", "-o", "new.png")
    assert ran.code == 2
    assert "error[invalid_request]: PHOTO: got 'me.jpg'" in ran.err
    assert make("--from", "old.png", "PHOTO", "elsewhere/you.jpg", "-o", "new.png").code == 0
    assert same_pixels(place / "new.png", place / "old.png")


def test_a_photo_is_also_found_beside_the_old_picture(make: Any, place: Path) -> None:
    shutil.copy(EXAMPLE, place / "me.jpg")
    make("PHOTO", "me.jpg", "-o", "old.png", "--seed", 2)
    (place / "kept").mkdir()
    for name in ("me.jpg", "old.png"):
        (place / name).rename(place / "kept" / name)
    assert make("--from", "kept/old.png", "-o", "new.png").code == 0
    assert same_pixels(place / "new.png", place / "kept" / "old.png")


def test_the_example_of_another_installation_is_this_ones(make: Any, place: Path) -> None:
    make("-o", "old.png", "--seed", 2)
    about = read_metadata(place / "old.png")
    about["request"]["image"] = "/gone/faceavatar/examples/astronaut.jpg"
    with Image.open(place / "old.png") as image:
        (place / "far.png").write_bytes(encode_png(np.asarray(image), about))
    assert make("--from", "far.png", "-o", "new.png").code == 0
    assert same_pixels(place / "new.png", place / "old.png")


def test_another_version_of_the_pack_is_warned_of(make: Any, run: Any, tiny: Path, place: Path) -> None:
    make("-o", "old.png")
    newer = shutil.copytree(tiny, place / "newer")
    tiny_pack.change_manifest(newer, lambda content: content.update(version="9.9.9"))
    ran = run("generate", "--from", "old.png", "--pack", newer, "--provider", "cpu", "--json")
    assert ran.json["warnings"] == ["the old picture was made by tiny 0.0.1, this one by tiny 9.9.9"]


def test_a_picture_without_a_request_is_refused(make: Any, place: Path) -> None:
    Image.new("RGB", (8, 8)).save(place / "plain.png")
    (place / "odd.png").write_bytes(encode_png(np.zeros((8, 8, 3), np.uint8), json.loads('{"request": 3}')))
    for name in ("plain.png", "odd.png", "absent.png", str(EXAMPLE)):
        ran = make("--from", name)
        assert ran.code == 3, name
        assert ran.err.startswith("error[unreadable_image]: ")
