"""Identities as numbers: what `embed` writes, `read` gives back."""

from __future__ import annotations

import numpy as np
import pytest

from faceavatar_export.toon import colors
from faceavatar_export.toon.identity import (
    BEARDS,
    EMBEDDING_SIZE,
    GLASSES,
    HAIR_LENGTHS,
    Identity,
    embed,
    read,
    sample_identity,
    sample_scene,
)

PEOPLE = [sample_identity(np.random.default_rng((1, i))) for i in range(400)]


def test_reading_an_embedding_gives_the_identity_back() -> None:
    for person in PEOPLE:
        got = read(embed(person))
        for field in ("female", "hair_length", "curly", "bun", "beard", "glasses"):
            assert getattr(got, field) == getattr(person, field)
        assert _delta(got.skin, person.skin) < 1
        if person.hair_length != "bald" or person.beard != "none":
            assert _delta(got.hair_color, person.hair_color) < 1


def test_embedding_what_was_read_changes_nothing() -> None:
    for person in PEOPLE[:100]:
        np.testing.assert_allclose(embed(read(embed(person)))[7:], embed(person)[7:], atol=0)


def test_an_embedding_is_24_floats_within_a_few_units_and_never_all_zeros() -> None:
    vectors = np.stack([embed(person) for person in PEOPLE])
    assert vectors.shape == (400, EMBEDDING_SIZE)
    assert vectors.dtype == np.float32
    assert np.all(vectors[:, 0] == 1)  # all zeros is kept for "no face"
    assert np.abs(vectors).max() < 6
    assert np.all(np.isin(vectors[:, 7:19], (-1, 1)))
    assert not vectors[:, 19:].any()


def test_only_the_bald_and_shaven_have_no_hair_color() -> None:
    for person in PEOPLE:
        hairless = person.hair_length == "bald" and person.beard == "none"
        assert hairless == (not embed(person)[4:7].any())


def test_a_soft_embedding_reads_as_the_nearest_identity() -> None:
    person = Identity(False, "#d29a6c", "#3a2619", "short", True, False, "full", "sunglasses")
    noisy = embed(person) * 0.6 + np.random.default_rng(0).normal(0, 0.1, EMBEDDING_SIZE)
    got = read(noisy)
    assert (got.female, got.hair_length, got.curly) == (False, "short", True)
    assert (got.beard, got.glasses) == ("full", "sunglasses")


def test_a_seed_makes_the_same_person_and_scene_again() -> None:
    for make in (sample_identity, sample_scene):
        assert make(np.random.default_rng(5)) == make(np.random.default_rng(5))
        assert make(np.random.default_rng(5)) != make(np.random.default_rng(6))


@pytest.mark.parametrize(
    ("field", "values"), [("hair_length", HAIR_LENGTHS), ("beard", BEARDS), ("glasses", GLASSES)]
)
def test_every_kind_of_person_is_sampled(field: str, values: tuple[str, ...]) -> None:
    assert {getattr(person, field) for person in PEOPLE} == set(values)


def test_habits_hold_no_beard_on_a_woman_and_no_bun_on_a_man() -> None:
    assert all(person.beard == "none" for person in PEOPLE if person.female)
    assert not any(person.bun for person in PEOPLE if not person.female)
    assert not any(person.curly for person in PEOPLE if person.hair_length == "bald")


def _delta(first: str, second: str) -> float:
    a, b = (colors.rgb_to_lab(colors.hex_to_rgb(color)) for color in (first, second))
    return float(colors.ciede2000(a, b))
