"""`faceavatar generate`: files, names, flags, what is printed, and that it stops cleanly."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_pack
from numpy.typing import NDArray
from PIL import Image

from faceavatar import AvatarEngine, AvatarRequest, read_metadata
from faceavatar_cli.order import EXAMPLE

Process = Callable[..., subprocess.Popen[bytes]]


def pixels(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image)


def test_the_first_command_needs_no_file_of_the_users(make: Any, place: Path) -> None:
    ran = make("--seed", 7)
    assert ran.code == 0
    assert ran.out.splitlines() == [str(Path("avatars") / "avatar-7.png")]
    assert pixels(place / "avatars" / "avatar-7.png").shape == (512, 512, 3)


def test_the_file_equals_what_the_python_api_makes(make: Any, place: Path, engine: AvatarEngine) -> None:
    make("-o", "mine.png", "--seed", 3, "--prompt", "a pirate", "--steps", 3, "--guidance", 2.5)
    request = AvatarRequest(
        image=str(EXAMPLE), seed=3, prompt="a pirate", num_inference_steps=3, guidance_scale=2.5
    )
    np.testing.assert_array_equal(pixels(place / "mine.png"), engine.generate(request).images[0])


def test_every_flag_reaches_its_field(make: Any) -> None:
    flags: dict[str, tuple[str, object]] = {
        "prompt": ("--prompt", "a pirate"),
        "negative_prompt": ("--negative-prompt", "a hat"),
        "gender": ("--gender", "woman"),
        "batch": ("--batch", 2),
        "height": ("--height", 300),
        "width": ("--width", 260),
        "num_inference_steps": ("--steps", 2),
        "guidance_scale": ("--guidance", 1.5),
        "seed": ("--seed", 11),
        "bg_color": ("--bg-color", "#abcdef"),
        "scheduler": ("--scheduler", "euler"),
        "face_scale": ("--face-scale", 0.5),
        "face_index": ("--face-index", 0),
        "preview_every": ("--preview-every", 1),
        "step_cache": ("--step-cache", 1),
    }
    ran = make("--json", "--remove-background", *(part for pair in flags.values() for part in pair))
    request = ran.json["request"]
    assert {field: request[field] for field in flags} == {field: value for field, (_, value) in flags.items()}
    assert request["remove_background"] is True
    assert (ran.json["width"], ran.json["height"]) == (260, 300)


def test_a_guidance_interval_is_told_and_taken_back(make: Any) -> None:
    request = make("-o", "a.png", "--json", "--guidance-interval", "0.25,0.75").json["request"]
    assert request["guidance_interval"] == [0.25, 0.75]
    assert make("--from", "a.png", "--json").json["request"]["guidance_interval"] == [0.25, 0.75]
    whole = make("--from", "a.png", "--json", "--guidance-interval", "whole").json["request"]
    assert whole["guidance_interval"] is None
    for wrong in ("0.5", "0.9,0.1", "a,b", "0,1,1"):
        ran = make("--guidance-interval", wrong)
        assert ran.code == 2
        assert "--guidance-interval" in ran.err


def test_a_controlnets_scale_is_refused_by_a_pack_without_one(make: Any, place: Path) -> None:
    ran = make("--controlnet-scale", 0.5)
    assert ran.code == 2
    assert "--controlnet-scale: got 0.5, allowed None: the pack tiny has no ControlNet" in ran.err
    assert not list(place.iterdir())


def test_a_batch_in_a_folder_gets_a_contact_sheet(make: Any, place: Path) -> None:
    ran = make("-o", "out", "--batch", 3, "--seed", 4294967295)
    names = ["avatar-4294967295.png", "avatar-0.png", "avatar-1.png", "contact-sheet.png"]
    assert ran.out.splitlines() == [str(Path("out") / name) for name in names]
    assert sorted(path.name for path in (place / "out").iterdir()) == sorted(names)
    assert pixels(place / "out" / "contact-sheet.png").shape[1] > 3 * 512


def test_a_batch_in_a_file_is_numbered_and_has_no_sheet(make: Any, place: Path) -> None:
    assert make("-o", "a/me.webp", "--batch", 2).code == 0
    assert sorted(path.name for path in (place / "a").iterdir()) == ["me-0.webp", "me-1.webp"]


def test_existing_files_are_kept_and_a_number_is_added(make: Any, place: Path) -> None:
    (place / "me.png").write_bytes(b"mine")
    assert make("-o", "me.png").out.split() == ["me-1.png"]
    assert make("-o", "me.png").out.split() == ["me-2.png"]
    assert (place / "me.png").read_bytes() == b"mine"
    make("-o", "out", "--batch", 2, "--seed", 1)
    again = make("-o", "out", "--batch", 2, "--seed", 1)
    names = [Path(line).name for line in again.out.splitlines()]
    assert names == ["avatar-1-1.png", "avatar-2-1.png", "contact-sheet-1.png"]


def test_force_overwrites(make: Any, place: Path) -> None:
    (place / "me.png").write_bytes(b"mine")
    assert make("-o", "me.png", "--force").out.split() == ["me.png"]
    assert read_metadata(place / "me.png")["pack"] == "tiny"
    assert [path.name for path in place.iterdir()] == ["me.png"]


def test_a_removed_background_is_transparent(make: Any, place: Path) -> None:
    make("-o", "me.png", "--remove-background")
    assert pixels(place / "me.png").shape == (512, 512, 4)


def test_json_is_one_object_with_all_there_is_to_know(make: Any) -> None:
    ran = make("--json", "--batch", 2, "--seed", 5)
    assert ran.err == ""
    told = ran.json
    assert [Path(name).name for name in told["files"]] == ["avatar-5.png", "avatar-6.png"]
    assert Path(told["contact_sheet"]).is_file()
    assert told["seeds"] == [5, 6]
    assert told["pack"] == {"name": "tiny", "version": "0.0.1"}
    assert told["provider"] == "cpu"
    assert told["warnings"] == []
    assert told["timings"]["total"] > 0
    assert told["face"]["faces_found"] == 1
    assert np.shape(told["face"]["landmarks"]) == (5, 2)


def test_the_photo_may_come_from_standard_input(process: Process, place: Path) -> None:
    command = ("generate", "-", "--pack", "tiny", "--provider", "cpu", "-o", "me.png")
    child = process(*command, stdin=subprocess.PIPE)
    _, err = child.communicate(EXAMPLE.read_bytes(), timeout=60)
    assert child.returncode == 0, err
    assert read_metadata(place / "me.png")["request"]["image"].startswith("sha256:")


def test_empty_standard_input_and_an_empty_name_are_refused_as_photos(process: Process, run: Any) -> None:
    child = process("generate", "-", "--pack", "tiny", stdin=subprocess.PIPE)
    _, err = child.communicate(b"", timeout=60)
    assert (child.returncode, "PHOTO: got b''" in err.decode()) == (2, True)
    ran = run("generate", "", "--pack", "tiny")
    assert (ran.code, "PHOTO: got ''" in ran.err) == (2, True)


def test_threads_change_no_pixel(make: Any, place: Path) -> None:
    make("-o", "a.png", "--seed", 1, "--threads", 1)
    make("-o", "b.png", "--seed", 1, "--threads", 2)
    difference = pixels(place / "a.png").astype(int) - pixels(place / "b.png")
    assert np.abs(difference).max() <= 1


def test_previews_are_written_while_it_runs_and_removed_at_the_end(make: Any, place: Path) -> None:
    assert make("-o", "out", "--preview-every", 1, "--seed", 2).code == 0
    assert [path.name for path in (place / "out").iterdir()] == ["avatar-2.png"]


def test_a_log_gets_no_bar_but_the_outcome(make: Any) -> None:
    err = make("--seed", 9).err
    assert len(err.splitlines()) == 1
    assert "seed 9" in err
    assert "\r" not in err


@pytest.mark.skipif(os.name == "nt", reason="a pseudo-terminal is a thing of Unix")
def test_a_terminal_gets_a_bar_with_the_time_left(process: Process) -> None:
    outer, inner = os.openpty()
    seen = b""
    with process("generate", "--example", "--pack", "tiny", "--provider", "cpu", stderr=inner) as child:
        os.close(inner)
        try:
            while part := os.read(outer, 4096):
                seen += part
        except OSError:  # how Linux reports the end of a terminal
            pass
    os.close(outer)
    assert child.returncode == 0
    text = seen.decode()
    assert "loading tiny" in text
    assert "1/4 steps" in text
    assert "4/4 steps, 0.0 s left" in text


@pytest.mark.skipif(os.name == "nt", reason="signals are a thing of Unix")
def test_ctrl_c_ends_with_130_one_line_and_no_files(process: Process, place: Path) -> None:
    size = ("--batch", 8, "--steps", 50, "--height", 1536, "--width", 1536, "--preview-every", 1)
    # A shell starts background jobs with SIGINT ignored, children inherit that, and tests may be such a job.
    heard = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    child = process(
        "generate", "--example", "--pack", "tiny", "--provider", "cpu", "-o", "out", *size, **heard
    )
    deadline = time.monotonic() + 60
    while not (place / "out" / "preview.png").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130, err
    assert out == b""
    assert err.decode().strip().splitlines() == [
        "error[interrupted]: stopped; nothing half-done was left behind"
    ]
    assert list((place / "out").iterdir()) == []


def test_several_faces_are_told_of(make: Any, run: Any, place: Path) -> None:
    one = tiny_pack.photo("obama")
    Image.fromarray(np.hstack([one, one])).save(place / "two.png")
    ran = make("PHOTO", "two.png", "--json")
    assert ran.json["face"]["faces_found"] == 2
    assert "2 faces" in ran.json["warnings"][0]
    assert "warning: 2 faces" in make("PHOTO", "two.png").err
    second = make("PHOTO", "two.png", "--json", "--face-index", 1)
    assert second.json["face"]["bbox"] != ran.json["face"]["bbox"]
