"""Over 500 hostile pictures: each gives a picture or one typed error, soon, in little memory, without a word.

What the files are says corpus.py, what is measured says measure.py. docs/reliability.md has the last figures.
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hostile.cases import Case
from hostile.corpus import corpus
from PIL import Image

from faceavatar.errors import ImageError
from faceavatar.image import load_image

CASES = corpus()
SECONDS, MEGABYTES = 2.0, 300.0
# What libtiff itself prints of damaged data; Pillow leaves its error handler in place. A line, and no trace.
LIBTIFF = re.compile(r"(tempfile\.tif|TIFF\w*|\w*(Decode|SetupState|Lib|Required)\w*): .*")


@dataclass(frozen=True)
class Run:
    """What came of every file, by its name, and what the children said on stderr."""

    found: dict[str, dict[str, Any]]
    said: str


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """All files, opened by a child; where one kills it, the next child goes on behind that file."""
    folder = tmp_path_factory.mktemp("hostile")
    for name, case in CASES.items():
        (folder / name).write_bytes(case.build())
    left, said = list(CASES), ""
    found: dict[str, dict[str, Any]] = {}
    while left:
        child = [sys.executable, "-W", "error", str(Path(__file__).with_name("measure.py"))]
        ran = subprocess.run(
            [*child, *(str(folder / name) for name in left)], capture_output=True, text=True, timeout=600
        )
        lines = [json.loads(line) for line in ran.stdout.splitlines()]
        found |= {Path(line["file"]).name: line for line in lines}
        said += ran.stderr
        if len(lines) < len(left):
            found[left[len(lines)]] = {
                "comes": f"the end of the process, {ran.returncode}: {ran.stderr[-500:]}"
            }
        left = left[len(lines) + 1 :]
    return Run(found, said)


def test_the_corpus_has_more_than_200_files_of_every_format() -> None:
    assert len(CASES) > 200
    for kind in ("jpeg", "png", "gif", "webp", "bmp", "tiff", "ppm", "avif", "jpeg2000"):
        assert sum(f"-{kind}-" in name for name in CASES) >= 15, kind


def test_each_gives_a_picture_or_one_typed_error_and_what_it_should(opened: Run) -> None:
    wrong = {
        name: (found["comes"], case.comes, found.get("words"))
        for name, case in CASES.items()
        if (found := opened.found[name])["comes"] not in {"picture", "refused"}
        or case.comes not in {"either", found["comes"]}
    }
    assert wrong == {}


def test_a_refusal_names_the_file_on_one_line_with_what_to_do(opened: Run) -> None:
    for name, found in opened.found.items():
        if found["comes"] == "refused":
            assert found["code"] == "unreadable_image", name
            assert name in found["words"]
            assert ";" in found["words"], found["words"]
            assert found["words"].isprintable(), found["words"]
            assert len(found["words"]) < 600, found["words"]


def test_none_takes_longer_than_2_seconds_or_more_than_300_mb(opened: Run) -> None:
    costly = {
        name: (round(found["seconds"], 2), round(found["megabytes"]))
        for name, found in opened.found.items()
        if found["seconds"] > SECONDS or found["megabytes"] > MEGABYTES
    }
    assert costly == {}


def test_pictures_have_their_size_and_colours(opened: Run) -> None:
    wrong = {
        name: found for name, case in CASES.items() if not looks_right(case, found := opened.found[name])
    }
    assert wrong == {}


def looks_right(case: Case, found: dict[str, Any]) -> bool:
    if found["comes"] != "picture":
        return True
    if max(found["size"]) > 1536 or found["dtype"] != "uint8":
        return False
    if case.size is not None and tuple(found["size"]) != case.size:
        return False
    look = (case.look * 4)[:4] if case.look else found["colors"]
    pairs = zip(found["colors"], look, strict=True)
    return all(abs(a - b) <= case.near for got, want in pairs for a, b in zip(got, want, strict=True))


def test_nothing_is_printed_but_libtiff_s_own_lines(opened: Run) -> None:
    strange = [line for line in opened.said.splitlines() if not LIBTIFF.fullmatch(line)]
    assert strange == []


def test_threads_that_meet_damaged_metadata_at_once_leave_warnings_as_they_were() -> None:
    """catch_warnings would not: it is not made for threads. Warnings are errors in all tests here."""
    damaged = [CASES[f"broken-exif-{name}-in-jpeg"].build() for name in ("cut", "loop", "of-65535-tags")]
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(load_image, damaged * 100))
    assert len(found) == 300
    assert list(warnings.filters) == before
    with (
        pytest.warns(UserWarning, match="EXIF|Metadata|expecting"),
        Image.open(io.BytesIO(damaged[0])) as seen,
    ):
        seen.getexif()


def test_a_pipe_a_folder_a_device_and_names_that_cannot_be_are_refused_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    names = (
        pipe,
        tmp_path,
        Path("/dev/zero"),
        Path("a\0b"),
        Path("x" * 5000),
        Path("~nobody-of-that-name/a.png"),
    )
    for path in names:
        with pytest.raises(ImageError, match=r"check the path|hand in its bytes"):
            load_image(path)
    link = tmp_path / "loop.png"
    link.symlink_to(link)
    with pytest.raises(ImageError, match="cannot be read"):
        load_image(link)
