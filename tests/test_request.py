"""A request is valid once it exists; anything else is refused by the name of its field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from faceavatar import AvatarRequest, InvalidRequest
from faceavatar.request import DEFAULT_PROMPT, SchedulerName
from faceavatar.schedulers import SCHEDULER_NAMES

PHOTO = np.zeros((4, 4, 3), np.uint8)
BOUNDS: dict[str, tuple[float, float]] = {
    "batch": (1, 8),
    "height": (256, 1536),
    "width": (256, 1536),
    "num_inference_steps": (1, 50),
    "guidance_scale": (1, 30),
    "seed": (0, 2**32 - 1),
    "face_scale": (0, 1.5),
    "controlnet_scale": (0, 1.5),
    "step_cache": (1, 10),
}


def make(**fields: Any) -> AvatarRequest:
    return AvatarRequest(**({"image": PHOTO} | fields))


def refusal(**fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        make(**fields)
    return caught.value


@pytest.mark.parametrize("field", BOUNDS)
def test_both_ends_of_a_range_are_allowed_and_what_lies_beyond_is_refused_by_name(field: str) -> None:
    low, high = BOUNDS[field]
    for inside in (low, high):
        assert getattr(make(**{field: inside}), field) == inside
    for outside in (low - 1, high + 1):
        error = refusal(**{field: outside})
        assert (error.field, error.got) == (field, outside)
        assert f"{low}..{high}" in str(error)


@pytest.mark.parametrize("field", BOUNDS)
@pytest.mark.parametrize("value", [True, "3", float("nan"), float("inf"), [3], {}])
def test_a_number_field_takes_no_bool_text_nan_or_infinity(field: str, value: object) -> None:
    assert refusal(**{field: value}).field == field


@pytest.mark.parametrize("field", ["batch", "height", "seed", "num_inference_steps", "preview_every"])
def test_a_whole_number_field_takes_no_fraction(field: str) -> None:
    assert refusal(**{field: 300.5}).field == field


SIDES = st.one_of(st.integers(200, 1600), st.integers())


@given(SIDES, SIDES)
def test_a_size_is_accepted_exactly_when_both_sides_lie_in_256_to_1536(height: int, width: int) -> None:
    valid = 256 <= height <= 1536 and 256 <= width <= 1536
    if valid:
        made = make(height=height, width=width)
        assert (made.height, made.width) == (height, width)
    else:
        assert refusal(height=height, width=width).field in ("height", "width")


def test_numbers_from_numpy_become_plain_ones() -> None:
    made = make(seed=np.int64(7), guidance_scale=np.float32(2.5), batch=np.uint8(2))
    assert (made.seed, made.guidance_scale, made.batch) == (7, 2.5, 2)
    assert type(made.seed) is int
    json.dumps(made.to_metadata())


def test_the_first_bad_field_is_named_when_several_are_bad() -> None:
    assert refusal(width=1, batch=99, height=1).field == "batch"


def test_an_unknown_field_is_refused_and_the_known_ones_are_listed() -> None:
    error = refusal(steps=20)
    assert error.field == "steps"
    assert "num_inference_steps" in str(error)


@pytest.mark.parametrize(
    "field", ["gender", "scheduler", "bg_color", "prompt", "remove_background", "celery"]
)
def test_a_value_of_another_kind_is_refused_by_name(field: str) -> None:
    assert refusal(**{field: 3}).field == field
    assert refusal(**{field: b"x"}).field == field


def test_every_scheduler_that_exists_can_be_asked_for_and_no_other() -> None:
    assert [make(scheduler=name).scheduler for name in SCHEDULER_NAMES] == list(SCHEDULER_NAMES)
    assert set(get_args(SchedulerName)) == set(SCHEDULER_NAMES)
    assert "dpmpp_2m_karras" in str(refusal(scheduler="pndm"))


def test_an_unknown_gender_is_refused_with_the_known_ones() -> None:
    assert "man, woman, male, female, person, neutral" in str(refusal(gender="robot"))


@pytest.mark.parametrize(
    ("gender", "word"),
    [
        ("man", "man"),
        ("male", "man"),
        ("woman", "woman"),
        ("female", "woman"),
        ("person", "person"),
        ("neutral", "person"),
        (None, "person"),
    ],
)
def test_the_default_prompt_carries_the_word_of_the_gender(gender: Any, word: str) -> None:
    text = make(gender=gender).text()
    assert f"pleasurable nice {word}, looking at camera" in text
    assert text == DEFAULT_PROMPT.replace("{gender_word}", word)


def test_the_default_prompt_is_the_contract_s_word_for_word() -> None:
    assert DEFAULT_PROMPT == (
        "SFW Content, black plain background, joyous dating profile, VECTOR CARTOON ILLUSTRATION, half-body "
        "shot portrait enjoyable pleasing pleasurable nice {gender_word}, looking at camera, Relaxed, "
        "Charming, Cordial, Gracious, 5 o clock shadow, 3d bitmoji avatar render, pixar, high def textures "
        "8k, highly detailed, 3d render, award winning, no background elements"
    )


def test_a_prompt_of_one_s_own_replaces_the_default_whole_and_gender_is_not_inserted() -> None:
    assert make(prompt="a {gender_word} in {blue}", gender="woman").text() == "a {gender_word} in {blue}"
    assert make(prompt="", gender="woman").text() == ""


@pytest.mark.parametrize(("given_color", "kept"), [("#FF8800", "#ff8800"), ("#F80", "#ff8800"), (None, None)])
def test_a_colour_is_kept_as_six_lower_case_digits(given_color: str | None, kept: str | None) -> None:
    assert make(bg_color=given_color).bg_color == kept


@pytest.mark.parametrize(
    "color", ["red", "ff8800", "#ff88", "#gg0000", "#ff8800ff", "", "#ff8800\n", " #fff"]
)
def test_a_bad_colour_is_refused(color: str) -> None:
    error = refusal(bg_color=color)
    assert (error.field, error.got) == ("bg_color", color)


@pytest.mark.parametrize(
    "image",
    ["https://example.com/a.jpg", "HTTP://example.com/a.jpg", "data:image/png;base64,AAAA", b"bytes", PHOTO],
    ids=["https", "http", "data", "bytes", "array"],
)
def test_an_image_may_be_a_url_a_data_uri_bytes_or_an_array(image: Any) -> None:
    assert make(image=image).image is image


def test_an_image_may_be_a_pil_image_or_a_path(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    picture = Image.new("RGB", (2, 2))
    picture.save(path)
    for image in (picture, path, str(path)):
        assert make(image=image).image is image


@pytest.mark.parametrize(
    "image",
    [
        None,
        3,
        b"",
        "",
        "ftp://example.com/a.jpg",
        "file:///etc/passwd",
        "data:image/png",
        "a\0b.jpg",
        "~nobody-here/a",
        "x" * 9999,
    ],
    ids=lambda image: str(image)[:12],
)
def test_what_can_be_no_image_is_refused_before_anything_runs(image: Any) -> None:
    assert refusal(image=image).field == "image"


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3)),
        np.zeros((0, 4, 3), np.uint8),
    ],
    ids=["grey", "alpha", "float", "empty"],
)
def test_an_array_of_another_shape_or_type_is_refused_with_its_shape(array: np.ndarray) -> None:
    error = refusal(image=array)
    assert str(array.shape) in str(error)


def test_a_missing_file_is_refused_with_its_path(tmp_path: Path) -> None:
    missing = tmp_path / "selfie.jpg"
    for image in (missing, str(missing)):
        error = refusal(image=image)
        assert error.field == "image"
        assert "no such file" in str(error)
    assert refusal(image=tmp_path).field == "image"


def test_a_request_without_an_image_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="image: got 'nothing'"):
        AvatarRequest()  # type: ignore[call-arg]  # that is the point


def test_a_request_cannot_be_changed() -> None:
    made = make()
    with pytest.raises(InvalidRequest, match="seed: got 3, allowed no change"):
        made.seed = 3  # type: ignore[misc]  # that is the point


def test_a_copy_with_changes_is_checked_like_a_new_request() -> None:
    made = make(seed=1)
    assert made.model_copy(update={"seed": 2}) == make(seed=2)
    with pytest.raises(InvalidRequest, match="height"):
        made.model_copy(update={"height": 1})


def test_a_request_does_not_show_the_photo_s_bytes() -> None:
    assert "secret" not in repr(make(image=b"secret"))


def test_metadata_makes_the_same_request_again(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (2, 2)).save(path)
    made = make(
        image=path, seed=3, bg_color="#fff", guidance_scale=3, scheduler="ddim", prompt="žluťoučký 🐎"
    )
    again = AvatarRequest.from_metadata(json.loads(json.dumps(made.to_metadata())))
    assert again == made
    assert hash(again) == hash(made)
    assert again != make(image=path, seed=4)


@pytest.mark.parametrize(
    "image",
    [b"the photo", PHOTO, Image.new("RGB", (2, 2)), "data:image/png;base64,AAAA"],
    ids=["bytes", "array", "pil", "data"],
)
def test_a_photo_handed_in_as_data_is_recorded_by_its_hash_only(image: Any) -> None:
    made = make(image=image)
    metadata = made.to_metadata()
    assert metadata["image"].startswith("sha256:")
    assert len(metadata["image"]) == 71
    with pytest.raises(InvalidRequest, match="only its hash was recorded"):
        AvatarRequest.from_metadata(metadata)
    assert AvatarRequest.from_metadata(metadata, image=image) == made


def test_metadata_with_unknown_fields_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="sharpness"):
        AvatarRequest.from_metadata({"image": "sha256:0", "sharpness": 1}, image=PHOTO)


def test_a_schema_of_the_request_can_be_published() -> None:
    schema = AvatarRequest.model_json_schema()
    assert schema["properties"]["image"]["type"] == "string"
    assert schema["properties"]["height"]["maximum"] == 1536


@pytest.mark.parametrize("value", [(0.0, 1.0), (0.2, 0.8), [0, 0.5]])
def test_a_guidance_interval_is_two_shares_in_order(value: Any) -> None:
    assert make(guidance_interval=value).guidance_interval == tuple(value)


@pytest.mark.parametrize(
    "value",
    [
        (0.5, 0.5),
        (0.8, 0.2),
        (-0.1, 0.5),
        (0.5, 1.1),
        (float("nan"), 1.0),
        (0.5,),
        (0, 0.2, 1),
        0.5,
        "0,1",
        (),
    ],
)
def test_anything_else_is_refused_in_words(value: object) -> None:
    error = refusal(guidance_interval=value)
    assert error.field == "guidance_interval"
    assert "two numbers of 0..1, the smaller first" in str(error)


def test_an_interval_survives_metadata_as_json_has_it() -> None:
    asked = AvatarRequest(image="https://example.com/a.jpg", guidance_interval=(0.25, 0.75), step_cache=2)
    again = AvatarRequest.from_metadata(json.loads(json.dumps(asked.to_metadata())))
    assert again == asked
