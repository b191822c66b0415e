"""Captions: what they name is said, what they leave to the photo is not; the default prompt is one."""

from __future__ import annotations

import re

import numpy as np
import pytest
from tokenizers import Tokenizer

from faceavatar.pack import EMBEDDED
from faceavatar.request import DEFAULT_PROMPT
from faceavatar_export.toon import captions, colors
from faceavatar_export.toon.captions import Caption
from faceavatar_export.toon.draw import sample
from faceavatar_export.toon.identity import Identity, Scene
from faceavatar_export.toon.train_text import CLASSES, labels

Told = tuple[Identity, Scene, Caption]


@pytest.fixture(scope="module")
def told() -> list[Told]:
    people = [sample(11, i) for i in range(1500)]
    rng = np.random.default_rng(2)
    return [(identity, scene, captions.sample(identity, scene, rng)) for identity, scene in people]


@pytest.fixture(scope="module")
def free(told: list[Told]) -> list[Told]:
    """Those that are not the default prompt."""
    return [row for row in told if not row[2].text.startswith("SFW Content, black plain")]


def says(text: str, words: tuple[str, ...]) -> bool:
    return any(re.search(rf"(?<!\w){re.escape(word.lower())}(?!\w)", text.lower()) for word in words)


def color_words(color: str, names: dict[str, str]) -> tuple[str, ...]:
    name = colors.nearest_name(color, names)
    return captions._COLOR_WORDS.get(name, (name,))


def test_the_default_prompt_is_word_for_word_the_engines() -> None:
    assert captions.DEFAULT_PROMPT == DEFAULT_PROMPT


def test_what_is_named_of_the_scene_is_said(free: list[Told]) -> None:
    for _, scene, caption in free:
        expected = {
            "style": captions._STYLE_WORDS[scene.style],
            "expression": captions._EXPRESSION_WORDS[scene.expression],
            "framing": captions._FRAMING_WORDS[scene.framing],
            "garment": (*captions._GARMENT_WORDS[scene.garment], *captions._ANY_GARMENT),
        }
        for key, words in expected.items():
            if key in caption.named:
                assert says(caption.text, words), (key, caption)
        if "garment" in caption.named:
            assert says(caption.text, color_words(scene.garment_color, colors.CLOTH_COLORS)), caption
        if "background" in caption.named:
            for color in (scene.background, scene.background_end):
                assert says(caption.text, color_words(color, colors.BACKGROUND_COLORS)), caption
        assert ("gradient" in caption.text.lower() or "fading" in caption.text.lower()) == (
            "background" in caption.named and scene.background != scene.background_end
        )


def test_what_is_named_of_the_person_is_said_and_nothing_else_of_the_person_is(free: list[Told]) -> None:
    for identity, _, caption in free:
        hair = captions._HAIR_LENGTH_WORDS[identity.hair_length]
        color = color_words(identity.hair_color, colors.HAIR_COLORS)
        said = {
            "female": says(caption.text, captions._WOMAN if identity.female else captions._MAN),
            "hair": any(says(caption.text, (t.format(c=c),)) for t in hair for c in color),
            "beard": says(caption.text, ("clean-shaven", "a beard", "a moustache")),
            "glasses": says(caption.text, ("glasses", "sunglasses")),
        }
        assert {key for key, value in said.items() if value} == caption.named & set(said), caption


def test_no_caption_contradicts_the_person(told: list[Told]) -> None:
    for identity, _, caption in told:
        assert not says(caption.text, captions._MAN if identity.female else captions._WOMAN), caption
        if says(caption.text, ("with a beard",)):
            assert identity.beard == "full"
        if says(caption.text, ("no glasses",)):
            assert identity.glasses == "none"


def test_the_default_prompt_is_told_of_default_scenes_alone_and_with_the_right_word(told: list[Told]) -> None:
    default = [row for row in told if row[2].text.startswith("SFW Content, black plain")]
    assert len(default) > 10
    for identity, scene, caption in default:
        assert captions.is_default_scene(scene)
        if "female" in caption.named:
            word = "woman" if identity.female else "man"
            assert caption.text == DEFAULT_PROMPT.format(gender_word=word)
        else:
            assert caption.text == DEFAULT_PROMPT.format(gender_word="person")


def test_captions_fit_one_window(told: list[Told]) -> None:
    tokenizer = Tokenizer.from_file(str(EMBEDDED / "toon" / "tokenizer.json"))
    texts = [caption.text for *_, caption in told]
    texts += [DEFAULT_PROMPT.format(gender_word=word) for word in ("man", "woman", "person")]
    counts = [len(e.ids) for e in tokenizer.encode_batch(texts, add_special_tokens=False)]
    assert max(counts) <= 75


def test_a_seed_words_a_picture_the_same_again() -> None:
    identity, scene = sample(3, 8)
    first, second = (captions.sample(identity, scene, np.random.default_rng(4)) for _ in range(2))
    assert first == second


def test_labels_say_not_said_for_what_a_caption_leaves_out(told: list[Told]) -> None:
    for identity, scene, caption in told[:500]:
        row = dict(zip(CLASSES, labels(identity, scene, caption), strict=True))
        assert all(0 <= value < CLASSES[key] for key, value in row.items())
        default = caption.text.startswith("SFW Content, black plain")
        for key in ("style", "expression", "background", "framing"):
            assert (row[key] == CLASSES[key] - 1) == (key not in caption.named and not default)
        for key in ("female", "hair", "beard", "glasses", "garment"):
            assert (row[key] == CLASSES[key] - 1) == (key not in caption.named)
