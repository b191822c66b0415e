"""What the UNet is told in training: faces and texts are sometimes missing, named looks sometimes hidden."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from faceavatar.pack import EMBEDDED
from faceavatar_export.toon.conditions import HIDDEN, ConditionMaker, Conditions, scramble
from faceavatar_export.toon.draw import sample
from faceavatar_export.toon.identity import Identity, embed
from faceavatar_export.toon.text_encoder import CONTEXT, VOCABULARY, WINDOW, TextEncoder

BEARDED = Identity(False, "#d29a6c", "#3a2619", "short", False, False, "full", "glasses")
WOMAN = Identity(True, "#d29a6c", "#3a2619", "long", False, False, "none", "none")
PEOPLE = [sample(21, i) for i in range(150)]
SLOTS = {
    "hair": slice(7, 11),
    "curly": slice(11, 13),
    "beard": slice(13, 15),
    "glasses": slice(15, 17),
    "female": slice(17, 18),
    "old": slice(18, 19),
}


@pytest.fixture(scope="module")
def maker() -> ConditionMaker:
    torch.manual_seed(0)
    tokenizer = Tokenizer.from_file(str(EMBEDDED / "toon" / "tokenizer.json"))
    return ConditionMaker(tokenizer, TextEncoder(torch.arange(VOCABULARY) % 500, layers=1))


@pytest.fixture(scope="module")
def made(maker: ConditionMaker) -> Conditions:
    embeddings = np.stack([embed(identity) for identity, _ in PEOPLE])
    return maker.make(PEOPLE, embeddings, np.random.default_rng(1), windows=1)


def scrambled(identity: Identity, named: set[str], count: int = 400) -> np.ndarray:
    rng, embedding = np.random.default_rng(3), embed(identity)
    return np.stack([scramble(embedding, frozenset(named), identity, rng) for _ in range(count)])


def hidden(rows: np.ndarray, identity: Identity, name: str) -> float:
    """The share of rows in which a slot is not the truth times 0.7 to 1."""
    ratio = rows[:, SLOTS[name]] / embed(identity)[SLOTS[name]]
    return float(np.mean(np.any((ratio < 0.699) | (ratio > 1.001), axis=1)))


def test_one_row_a_picture(made: Conditions) -> None:
    assert made.states.shape == (150, WINDOW, CONTEXT)
    assert made.face_embeds.shape == (150, 24)
    assert made.face_embeds.dtype == torch.float32


def test_dropped_faces_are_zeros_and_no_other_face_is(made: Conditions) -> None:
    gone = ~made.face_embeds.any(dim=1)
    assert 0.04 < gone.float().mean() < 0.25
    assert bool((made.face_embeds[~gone][:, 0] == 1).all())


def test_dropped_texts_are_the_empty_text_and_some_have_no_face_either(
    made: Conditions, maker: ConditionMaker
) -> None:
    silent = (made.states == maker.states([""], 1)).flatten(1).all(dim=1)
    gone = ~made.face_embeds.any(dim=1)
    assert 0.04 < silent.float().mean() < 0.25
    assert bool((silent & gone).any())
    assert bool((~silent & gone).any())
    assert bool((silent & ~gone).any())


def test_a_second_window_is_joined_behind_the_first(maker: ConditionMaker) -> None:
    one, two = maker.states(["a man"], 1), maker.states(["a man"], 2)
    assert two.shape == (1, 2 * WINDOW, CONTEXT)
    torch.testing.assert_close(two[:, :WINDOW], one, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(two[:, WINDOW:], maker.states([""], 1), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", list(SLOTS))
def test_a_named_look_is_sometimes_hidden(name: str) -> None:
    share = hidden(scrambled(BEARDED, {name}), BEARDED, name)
    assert 0.6 * HIDDEN < share < 1.1 * HIDDEN


def test_what_is_not_named_is_never_hidden() -> None:
    rows = scrambled(BEARDED, {"style", "expression", "background"})
    assert all(hidden(rows, BEARDED, name) == 0 for name in SLOTS)


def test_a_woman_asked_for_by_word_sometimes_comes_with_a_bearded_photo() -> None:
    rows = scrambled(WOMAN, {"female"})
    assert hidden(rows, WOMAN, "beard") > 0.2
    assert hidden(scrambled(BEARDED, {"female"}), BEARDED, "beard") == 0


def test_colors_are_jittered_and_the_truth_stays_unchanged() -> None:
    before = embed(BEARDED)
    rows = scrambled(BEARDED, set())
    np.testing.assert_array_equal(before, embed(BEARDED))
    np.testing.assert_allclose(rows[:, 1:7].mean(0), before[1:7], atol=0.03)
    assert np.all(rows[:, 1:7].std(0) > 0.08)
    assert np.all(rows[:, 0] == 1)
    assert not rows[:, 19:].any()


def test_a_named_hair_color_is_sometimes_another_one() -> None:
    rows, truth = scrambled(BEARDED, {"hair_color"}), embed(BEARDED)[4:7]
    far = np.abs(rows[:, 4:7] - truth).max(axis=1) > 0.6
    assert 0.6 * HIDDEN < far.mean() < 1.1 * HIDDEN
    assert not (np.abs(scrambled(BEARDED, {"hair"})[:, 4:7] - truth).max(axis=1) > 0.6).any()


BALD = Identity(False, "#d29a6c", "#3a2619", "bald", False, False, "none", "none")


@pytest.mark.parametrize(
    ("identity", "name"),
    [(BALD, "hair"), (BALD, "beard"), (WOMAN, "hair"), (replace(BALD, beard="full"), "beard")],
)
def test_hidden_hair_or_beard_is_not_told_by_whether_there_is_a_hair_color(
    identity: Identity, name: str
) -> None:
    rows, truth = scrambled(identity, {name}, 2000), embed(identity)[SLOTS[name]]
    ratio = rows[:, SLOTS[name]] / truth
    unseen = np.any((ratio < 0.699) | (ratio > 1.001), axis=1)
    colored = np.count_nonzero(rows[:, 4:7], axis=1) > 0
    assert 0.7 < colored[unseen].mean() < 0.9
    seen_as_is = colored[~unseen] == embed(identity)[4:7].any()
    assert seen_as_is.mean() > 0.95  # a few hidden ones look seen by chance


def test_hair_that_is_seen_keeps_its_color_whatever_else_is_hidden() -> None:
    assert scrambled(WOMAN, {"female", "beard", "glasses"})[:, 4:7].any(axis=1).all()
    assert scrambled(BEARDED, {"hair"})[:, 4:7].any(axis=1).all()


def test_the_bald_and_shaven_get_no_hair_color_by_jitter() -> None:
    assert not scrambled(BALD, set())[:, 4:7].any()
