"""A result saves itself, and a saved PNG tells how to make it again."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faceavatar import (
    AvatarRequest,
    AvatarResult,
    FaceInfo,
    ImageError,
    InvalidRequest,
    Step,
    __version__,
    read_metadata,
)

FACE = FaceInfo((1.0, 2.0, 30.0, 40.0), np.zeros((5, 2), np.float32), 0.9, 1, (), "640")


def make(batch: int = 1, channels: int = 3, height: int = 20, width: int = 30) -> AvatarResult:
    random = np.random.default_rng(0)
    images = tuple(random.integers(0, 256, (height, width, channels), np.uint8) for _ in range(batch))
    return AvatarResult(
        images=images,
        seeds=tuple(range(7, 7 + batch)),
        timings={"total": 1.0},
        face=FACE,
        warnings=(),
        request=AvatarRequest(image=b"a photo", batch=batch, prompt="žlutý 🐎", guidance_scale=3),
        pack="toon",
        pack_version="0.1.0",
        width=width,
        height=height,
    )


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_a_folder_gets_one_file_a_seed(tmp_path: Path) -> None:
    result = make(batch=3)
    paths = result.save(tmp_path / "new" / "folder")
    assert [path.name for path in paths] == ["avatar-7.png", "avatar-8.png", "avatar-9.png"]
    for path, image in zip(paths, result.images, strict=True):
        assert np.array_equal(pixels(path), image)


def test_a_file_name_is_taken_as_it_is_for_one_image_and_numbered_for_several(tmp_path: Path) -> None:
    assert make().save(tmp_path / "me.png") == [tmp_path / "me.png"]
    assert make(batch=2).save(str(tmp_path / "me.png")) == [tmp_path / "me-0.png", tmp_path / "me-1.png"]
    assert all(path.is_file() for path in tmp_path.iterdir())


def test_a_folder_that_is_named_like_a_file_is_still_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "out.png"
    folder.mkdir()
    assert make().save(folder) == [folder / "avatar-7.png"]


@pytest.mark.parametrize(
    ("format", "kind"), [("jpg", "JPEG"), ("jpeg", "JPEG"), ("webp", "WEBP"), ("PNG", "PNG")]
)
def test_the_format_of_a_folder_is_chosen_by_name_and_that_of_a_file_by_its_suffix(
    tmp_path: Path, format: str, kind: str
) -> None:
    for path in make().save(tmp_path / "out", format=format) + make().save(tmp_path / f"me.{format}"):
        with Image.open(path) as image:
            assert image.format == kind


@pytest.mark.parametrize("format", ["gif", "", "avif"])
def test_an_unknown_format_is_refused_and_nothing_is_written(tmp_path: Path, format: str) -> None:
    with pytest.raises(InvalidRequest, match="allowed png, jpg or webp"):
        make().save(tmp_path / "out", format=format)
    assert list(tmp_path.iterdir()) == []


def test_transparency_in_a_jpeg_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="png or webp, since the picture has transparency"):
        make(channels=4).save(tmp_path / "me.jpg")
    assert list(tmp_path.iterdir()) == []


def test_transparency_is_kept_in_png_and_webp(tmp_path: Path) -> None:
    result = make(channels=4)
    assert np.array_equal(pixels(result.save(tmp_path / "me.png")[0]), result.images[0])
    assert pixels(result.save(tmp_path / "me.webp")[0]).shape == (20, 30, 4)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ImageError, match="cannot be written"):
        make().save(tmp_path / "file" / "out")


def test_each_saved_png_holds_the_request_that_makes_this_one_picture_again(tmp_path: Path) -> None:
    result = make(batch=2)
    second = read_metadata(result.save(tmp_path)[1])
    assert second["seed"] == 8
    assert (second["pack"], second["pack_version"], second["version"]) == ("toon", "0.1.0", __version__)
    again = AvatarRequest.from_metadata(second["request"], image=b"a photo")
    assert again == result.request.model_copy(update={"batch": 1, "seed": 8})


def test_the_same_result_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = make().save(tmp_path / "a.png")[0], make().save(tmp_path / "b.png")[0]
    assert first.read_bytes() == second.read_bytes()


def test_metadata_of_a_picture_that_has_none_is_refused(tmp_path: Path) -> None:
    plain, jpeg, text = tmp_path / "plain.png", tmp_path / "a.jpg", tmp_path / "a.txt"
    Image.new("RGB", (2, 2)).save(plain)
    Image.new("RGB", (2, 2)).save(jpeg)
    text.write_text("hello")
    for path in (plain, jpeg, text, tmp_path / "missing.png", tmp_path):
        with pytest.raises(ImageError):
            read_metadata(path)


@pytest.mark.parametrize(
    ("count", "rows", "columns"),
    [(1, 1, 1), (2, 1, 2), (3, 1, 3), (4, 2, 2), (5, 2, 3), (6, 2, 3), (7, 2, 4), (8, 2, 4)],
)
def test_a_contact_sheet_shows_every_image_once_in_reading_order(count: int, rows: int, columns: int) -> None:
    result = make(batch=count)
    sheet = result.contact_sheet()
    assert sheet.shape == (rows * 28 - 8, columns * 38 - 8, 3)
    for index, image in enumerate(result.images):
        y, x = index // columns * 28, index % columns * 38
        assert np.array_equal(sheet[y : y + 20, x : x + 30], image)


def test_a_contact_sheet_of_cut_outs_is_clear_between_them() -> None:
    sheet = make(batch=2, channels=4).contact_sheet()
    assert sheet.shape == (20, 68, 4)
    assert not sheet[:, 30:38, 3].any()


@pytest.mark.parametrize(
    "value", [make(), FACE, Step(0, 20, 999.0, 1.5)], ids=lambda value: type(value).__name__
)
def test_what_comes_back_cannot_be_changed(value: object) -> None:
    for field in dataclasses.fields(value):  # type: ignore[arg-type]  # all three are dataclasses
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, field.name, None)


def test_a_step_has_neither_preview_nor_result_unless_given() -> None:
    step = Step(index=0, total=20, timestep=999.0, seconds_left=1.5)
    assert (step.preview, step.result) == (None, None)
