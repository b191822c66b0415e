"""docs/python-api.md tells the fields, ranges, defaults, results and errors that there are."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

import faceavatar
from faceavatar import AvatarRequest, AvatarResult, FaceAvatarError, FaceInfo, InvalidRequest, Step

PAGE = (Path(__file__).parents[1] / "docs" / "python-api.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table under a heading."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    table = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[1:]]


FIELDS = {name.strip("`"): (kind, default) for name, kind, default, _ in rows("AvatarRequest")}
RANGES = {name: kind.split()[0].split("..") for name, (kind, _) in FIELDS.items() if ".." in kind}


def test_every_field_of_a_request_is_told_in_order_with_its_default() -> None:
    assert list(FIELDS) == list(AvatarRequest.model_fields)
    for name, field in AvatarRequest.model_fields.items():
        told = FIELDS[name][1]
        expected = "required" if field.is_required() else str(field.default) or '""'
        assert told == expected, name
        assert (field.default is None) == FIELDS[name][0].endswith("or None"), name


@pytest.mark.parametrize("name", list(RANGES))
def test_the_ranges_told_are_those_that_hold(name: str) -> None:
    low, high = (float(end) for end in RANGES[name])
    whole = "float" not in str(AvatarRequest.model_fields[name].annotation)
    step = 1.0 if whole else 0.01

    def ask(value: float) -> AvatarRequest:
        chosen: dict[str, Any] = {name: int(value) if whole else value}
        return AvatarRequest(image=b"a photo", **chosen)

    for inside in (low, high):
        assert getattr(ask(inside), name) == inside
    for outside in (low - step, high + step):
        with pytest.raises(InvalidRequest, match=name):
            ask(outside)


@pytest.mark.parametrize("name", ["gender", "scheduler"])
def test_the_words_told_are_those_that_are_taken(name: str) -> None:
    chosen: dict[str, Any] = {}
    for word in FIELDS[name][0].removesuffix(" or None").split(", "):
        chosen[name] = word
        assert getattr(AvatarRequest(image=b"a photo", **chosen), name) == word
    with pytest.raises(InvalidRequest) as caught:
        AvatarRequest(image=b"a photo", **chosen | {name: "other"})
    assert caught.value.allowed == FIELDS[name][0]


def test_every_error_is_told_with_its_code() -> None:
    told = {name.strip("`"): code.strip("`") for name, code, _ in rows("Errors")}
    errors = {
        name: value.code
        for name in faceavatar.__all__
        if isinstance(value := getattr(faceavatar, name), type) and issubclass(value, FaceAvatarError)
    }
    assert told == errors


@pytest.mark.parametrize("kind", [AvatarResult, FaceInfo, Step])
def test_every_attribute_of_what_comes_back_is_told(kind: Any) -> None:
    for field in dataclasses.fields(kind):
        assert f"`{field.name}`" in PAGE, field.name
