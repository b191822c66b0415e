"""Every error is one line on stderr and an exit code from one table."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_pack
from PIL import Image

from faceavatar import FaceAvatarError
from faceavatar_cli.exits import EXIT_CODES, CannotWrite
from faceavatar_cli.job import Job


def classes(root: type[FaceAvatarError]) -> Iterator[type[FaceAvatarError]]:
    yield root
    for child in root.__subclasses__():
        yield from classes(child)


def only_line(ran: Any) -> str:
    lines: list[str] = ran.err.splitlines()
    assert len(lines) == 1, ran.err
    return lines[0]


def test_every_error_has_an_exit_code_and_none_is_success() -> None:
    assert CannotWrite in classes(FaceAvatarError)
    for kind in classes(FaceAvatarError):
        assert EXIT_CODES[kind.code] > 0, kind


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (("--height", 100), "--height: got 100, allowed a whole number 256..1536"),
        (("--steps", 51), "--steps: got 51, allowed"),
        (("--guidance", "nan"), "--guidance: got nan, allowed"),
        (("--batch", 9), "--batch: got 9, allowed a whole number 1..8"),
        (("--gender", "robot"), "--gender: got 'robot', allowed man, woman,"),
        (("--bg-color", "red"), "--bg-color: got 'red', allowed"),
        (("--scheduler", "magic"), "--scheduler: got 'magic', allowed ddim,"),
        (("--seed", 2**32), "--seed: got 4294967296, allowed"),
        (("--face-index", 5), "--face-index: got 5, allowed 0..0"),
        (("--out", "a.gif"), "--out: got 'a.gif', allowed a folder"),
        (("-o", "a.jpg", "--remove-background"), "--out: got 'a.jpg', allowed .png or .webp"),
        (("PHOTO", "nope.jpg"), "PHOTO: got 'nope.jpg', allowed the path of an existing picture"),
    ],
)
def test_a_value_out_of_range_is_named_by_its_flag(make: Any, flags: tuple[object, ...], line: str) -> None:
    ran = make(*flags)
    assert ran.code == 2
    assert only_line(ran).startswith(f"error[invalid_request]: {line}")


@pytest.mark.parametrize(
    "arguments",
    [
        ("generate", "--seed", "x"),
        ("generate", "--width", "wide"),
        ("generate", "--threads", "0"),
        ("generate", "--no-such-flag"),
        ("generate",),
        ("generate", "me.jpg", "--example"),
        ("packs", "show"),
        ("packs", "frobnicate"),
        ("frobnicate",),
    ],
)
def test_a_wrong_command_is_told_in_the_same_style(run: Any, arguments: tuple[str, ...]) -> None:
    ran = run(*arguments)
    assert ran.code == 2
    line = only_line(ran)
    assert line.startswith("error[usage]: ")
    assert "--help" in line


def test_a_file_that_is_no_picture_ends_with_3(make: Any, place: Path) -> None:
    (place / "notes.txt").write_text("no picture")
    ran = make("PHOTO", "notes.txt")
    assert ran.code == 3
    assert only_line(ran).startswith("error[unreadable_image]: notes.txt")


def test_a_photo_without_a_face_ends_with_4_and_writes_nothing(make: Any, place: Path) -> None:
    Image.new("RGB", (300, 300), "grey").save(place / "wall.png")
    ran = make("PHOTO", "wall.png", "-o", "out")
    assert ran.code == 4
    assert only_line(ran).startswith("error[no_face]: no face in the 300x300 picture")
    assert not (place / "out").exists()


def test_an_unknown_pack_ends_with_5(run: Any) -> None:
    ran = run("generate", "--example", "--pack", "nope")
    assert ran.code == 5
    assert "packs found:" in only_line(ran)


def test_a_changed_file_of_the_pack_ends_with_6(run: Any, tiny: Path, place: Path) -> None:
    broken = shutil.copytree(tiny, place / "broken")
    (broken / "unet.onnx").write_bytes(b"changed")
    ran = run("generate", "--example", "--pack", broken)
    assert ran.code == 6
    assert only_line(ran).startswith("error[hash_mismatch]: ")


def test_an_unknown_provider_ends_with_7(run: Any) -> None:
    ran = run("generate", "--example", "--pack", "tiny", "--provider", "abacus")
    assert ran.code == 7
    assert only_line(ran).startswith("error[provider_unavailable]: provider: got 'abacus'")


def test_a_model_that_gives_nan_ends_with_9(run: Any, place: Path) -> None:
    poisoned = tiny_pack.build(place / "poisoned", poison=True)
    ran = run("generate", "--example", "--pack", poisoned, "--provider", "cpu")
    assert ran.code == 9
    assert only_line(ran).startswith("error[numerical_error]: ")


def test_a_place_that_cannot_be_written_ends_with_10_before_the_work(make: Any, place: Path) -> None:
    (place / "file").write_text("in the way")
    ran = make("-o", "file/out", "--pack", "not even looked for")
    assert ran.code == 10
    assert only_line(ran).startswith("error[cannot_write]: ")


def test_a_fault_of_the_program_ends_with_70_and_one_line(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*_: object) -> None:
        raise KeyError("two\nlines")

    monkeypatch.setattr(Job, "run", fault)
    ran = make()
    assert ran.code == 70
    assert only_line(ran).startswith("error[internal]: KeyError")
    assert "--debug" in ran.err


@pytest.mark.parametrize("before", [True, False])
def test_debug_shows_the_trace_and_the_line_last(run: Any, before: bool) -> None:
    command = ["generate", "--example", "--pack", "nope"]
    command.insert(0 if before else len(command), "--debug")
    ran = run(*command)
    assert ran.code == 5
    assert ran.err.startswith("Traceback")
    assert ran.err.splitlines()[-1].startswith("error[pack_not_found]: ")


@pytest.mark.parametrize("wrong", [("--height", 1), ("--no-such-flag",), ("--seed", "x")])
def test_machines_get_the_error_as_json_too(make: Any, wrong: tuple[object, ...]) -> None:
    ran = make("--json", *wrong)
    told = ran.json["error"]
    assert told["exit_code"] == ran.code == 2
    assert only_line(ran) == f"error[{told['code']}]: {told['message']}"
