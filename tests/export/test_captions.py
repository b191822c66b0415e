"""Captions: what they name is said, what they leave to the photo is not; the default prompt is one."""

from __future__ import annotations

import re

import numpy as np
import pytest
from tokenizers import Tokenizer

from faceavatar.manifest import DefaultStyle
from faceavatar.pack import EMBEDDED
from faceavatar.request import DEFAULT_PROMPT
from faceavatar.text import with_style
from faceavatar_export.toon import captions, colors, wordings
from faceavatar_export.toon.captions import Caption
from faceavatar_export.toon.draw import sample
from faceavatar_export.toon.identity import Identity, Scene
from faceavatar_export.toon.train_text import CLASSES, labels

Told = tuple[Identity, Scene, Caption]
ALL_NAMES = {
    "style", "expression", "garment", "garment_color", "headwear", "headwear_color", "background", "pattern",
    "framing", "female", "old", "hair", "curly", "hair_color", "beard", "glasses",
}  # fmt: skip


def tell(held_out: bool) -> list[Told]:
    rng = np.random.default_rng(2)
    people = [sample(11, i) for i in range(3000)]
    return [(who, scene, captions.sample(who, scene, rng, held_out)) for who, scene in people]


@pytest.fixture(scope="module")
def told() -> list[Told]:
    return tell(held_out=False)


@pytest.fixture(scope="module")
def free(told: list[Told]) -> list[Told]:
    return [row for row in told if not row[2].default]


@pytest.fixture(scope="module")
def held_out() -> list[Told]:
    return tell(held_out=True)


def says(text: str, words: tuple[str, ...]) -> bool:
    return any(
        re.search(rf"(?<!\w){re.escape(word.strip(' ,').lower())}(?!\w)", text.lower()) for word in words
    )


def color_words(color: str, names: dict[str, str]) -> tuple[str, ...]:
    name = colors.nearest_name(color, names)
    return wordings.COLOR.get(name, (name,))


def assert_said(identity: Identity, scene: Scene, caption: Caption) -> None:
    expected = {
        "style": wordings.STYLE[scene.style],
        "expression": wordings.EXPRESSION[scene.expression],
        "framing": wordings.FRAMING[scene.framing],
        "garment": wordings.GARMENT[scene.garment],
        "garment_color": color_words(scene.garment_color, colors.CLOTH_COLORS),
        "headwear_color": color_words(scene.headwear_color, colors.CLOTH_COLORS),
        "background": color_words(scene.background, colors.BACKGROUND_COLORS),
        "hair_color": color_words(identity.hair_color, colors.HAIR_COLORS),
        "beard": wordings.BEARD[identity.beard],
        "glasses": wordings.GLASSES[identity.glasses],
    }
    for key, words in expected.items():
        if key in caption.named:
            assert says(caption.text, words), (key, caption)
    if "background" in caption.named and scene.pattern != "plain":
        assert says(caption.text, color_words(scene.background_end, colors.BACKGROUND_COLORS)), caption
    if "headwear" in caption.named:
        words = wordings.NO_HAT if scene.headwear == "none" else wordings.HEADWEAR[scene.headwear]
        assert says(caption.text, words), caption


def test_the_default_prompt_is_word_for_word_the_engines() -> None:
    assert captions.DEFAULT_PROMPT == DEFAULT_PROMPT


def test_what_is_named_is_said(free: list[Told], held_out: list[Told]) -> None:
    for row in (*free, *held_out):
        assert_said(*row)


def test_every_attribute_is_named_in_some_captions_and_left_out_of_others(
    free: list[Told], held_out: list[Told]
) -> None:
    for rows in (free, held_out):
        for name in ALL_NAMES:
            share = np.mean([name in caption.named for *_, caption in rows])
            assert 0.02 < share < 0.9, (name, share)
        assert set().union(*(caption.named for *_, caption in rows)) == ALL_NAMES


def test_words_for_hats_beards_glasses_and_patterns_stand_only_where_they_are_named(free: list[Told]) -> None:
    tables = {
        "headwear": tuple(w for words in wordings.HEADWEAR.values() for w in words) + wordings.NO_HAT,
        "beard": tuple(w for words in wordings.BEARD.values() for w in words),
        "glasses": tuple(w for words in wordings.GLASSES.values() for w in words),
        "pattern": ("striped", "stripes", "dots", "polka", "checkered", "checks", "gradient"),
    }
    for *_, caption in free:
        for name, words in tables.items():
            assert not says(caption.text, words) or name in caption.named, (name, caption)


def test_a_hair_color_or_kind_is_often_named_without_a_length(told: list[Told], held_out: list[Told]) -> None:
    lengths = (
        "bald",
        "no hair",
        "shaved head",
        "short",
        "cropped",
        "medium",
        "shoulder-length",
        "long",
        "flowing",
    )
    for rows in (told, held_out):
        looks = [c for *_, c in rows if c.named & {"hair_color", "curly"}]
        assert 0.2 < np.mean(["hair" not in caption.named for caption in looks]) < 0.6
        assert all(says(c.text, lengths) == ("hair" in c.named) for *_, c in rows)


def first_pieces() -> set[str]:
    """How a training caption may begin: an opening, a subject or any part, as captions._join puts them."""
    hats = [word for words in wordings.HEADWEAR.values() for word in words]
    clothes = [word for words in wordings.GARMENT.values() for word in words] + [*wordings.ANY_GARMENT]
    named = {*colors.CLOTH_COLORS, *colors.BACKGROUND_COLORS}
    shades = named | {word for name in named for word in wordings.COLOR.get(name, ())}
    things = {f"{shade} {word}" for shade in shades for word in (*clothes, *hats)}
    things |= {gold + word for gold in wordings.GOLDEN for word in hats} | {*hats}
    subjects = (
        *wordings.MAN, *wordings.WOMAN, *wordings.OLD_MAN, *wordings.OLD_WOMAN, *wordings.PERSON,
        *wordings.OLD, *wordings.YOUNG,
    )  # fmt: skip
    pieces = {*wordings.NOISE, *wordings.NO_HAT, *wordings.OPENINGS, *subjects}
    pieces |= {captions._article(subject) for subject in subjects}
    for table in (wordings.STYLE, wordings.EXPRESSION, wordings.FRAMING, wordings.PATTERN_ALONE):
        pieces |= {word for words in table.values() for word in words}
    for template in (template for templates in wordings.PATTERN.values() for template in templates):
        pieces |= {template.format(c=one, d=other) for one in shades for other in shades}
    return pieces | {w.format(g=g) for w in (*wordings.WEAR, *wordings.WEAR_PLURAL) for g in things}


def test_no_training_caption_can_begin_as_those_kept_for_scores_do() -> None:
    pieces = first_pieces()
    for kept in wordings.HELD_OUT_OPENINGS:
        assert not DEFAULT_PROMPT.lower().startswith(kept)
        for piece in pieces:
            # A caption begins with `kept` only if its first piece does, or is itself how `kept` begins.
            assert not piece.lower().startswith(kept), (piece, kept)
            assert not kept.startswith(piece.lower()), (piece, kept)


def test_no_caption_contradicts_the_person(told: list[Told], held_out: list[Told]) -> None:
    for identity, _, caption in (*told, *held_out):
        assert not says(caption.text, wordings.MAN if identity.female else wordings.WOMAN), caption
        assert not says(caption.text, wordings.YOUNG if identity.old else wordings.OLD), caption


def test_no_wording_kept_for_scores_is_ever_trained_on(told: list[Told], held_out: list[Told]) -> None:
    def kept(text: str) -> bool:
        return any(opening.lower() in text.lower() for opening in wordings.HELD_OUT_OPENINGS)

    assert not any(kept(caption.text) for *_, caption in told)
    assert all(kept(caption.text) for *_, caption in held_out)
    assert not any(caption.default for *_, caption in held_out)
    assert {caption.text for *_, caption in told}.isdisjoint(caption.text for *_, caption in held_out)


def test_wordings_kept_for_scores_say_nothing_with_tokens_that_training_never_meets(
    held_out: list[Told],
) -> None:
    """What is not known is silent, so only openings, joints and small words may be unknown."""
    tokenizer = Tokenizer.from_file(str(EMBEDDED / "toon" / "tokenizer.json"))

    def tokens(texts: list[str]) -> set[int]:
        return {i for e in tokenizer.encode_batch(texts, add_special_tokens=False) for i in e.ids}

    small = tokens([*wordings.HELD_OUT_OPENINGS, *wordings.HELD_OUT_JOINS, "who", "up", "the", "nice"])
    unknown = tokens([caption.text for *_, caption in held_out]) - small
    rng = np.random.default_rng(2)
    for i in range(20_000):  # as long as anything is left that training has not met
        if not unknown:
            break
        unknown -= tokens([captions.sample(*sample(11, i), rng, False).text])
    assert not unknown, [tokenizer.id_to_token(i) for i in unknown]


def test_the_default_prompt_is_told_of_default_scenes_alone_and_with_the_right_word(told: list[Told]) -> None:
    default = [row for row in told if row[2].default]
    assert len(default) > 10
    for identity, scene, caption in default:
        assert captions.is_default_scene(scene)
        if "female" in caption.named:
            word = "woman" if identity.female else "man"
            assert caption.text == DEFAULT_PROMPT.format(gender_word=word)
        else:
            assert caption.text == DEFAULT_PROMPT.format(gender_word="person")


def test_captions_fit_one_window(told: list[Told], held_out: list[Told]) -> None:
    tokenizer = Tokenizer.from_file(str(EMBEDDED / "toon" / "tokenizer.json"))
    texts = [caption.text for *_, caption in told]
    texts += [DEFAULT_PROMPT.format(gender_word=word) for word in ("man", "woman", "person")]
    counts = [len(e.ids) for e in tokenizer.encode_batch(texts, add_special_tokens=False)]
    assert max(counts) <= 75
    texts = [caption.text for *_, caption in held_out]
    long = [len(e.ids) > 75 for e in tokenizer.encode_batch(texts, add_special_tokens=False)]
    assert np.mean(long) < 0.02


def test_a_seed_words_a_picture_the_same_again() -> None:
    identity, scene = sample(3, 8)
    first, second = (captions.sample(identity, scene, np.random.default_rng(4)) for _ in range(2))
    assert first == second


def test_labels_say_not_said_for_what_a_caption_leaves_out(told: list[Told]) -> None:
    for identity, scene, caption in told[:500]:
        row = dict(zip(CLASSES, labels(identity, scene, caption), strict=True))
        assert all(0 <= value < CLASSES[key] for key, value in row.items())
        for key in ALL_NAMES:
            assert (row[key] == CLASSES[key] - 1) == (key not in caption.named)


def test_every_wording_of_a_style_names_one_and_other_captions_name_none(free: list[Told]) -> None:
    default = DefaultStyle(words=wordings.STYLE_WORDS, style=wordings.DEFAULT_STYLE)
    phrases = [*(phrase for style in wordings.STYLE.values() for phrase in style), wordings.DEFAULT_STYLE]
    assert [phrase for phrase in phrases if with_style(phrase, default) != phrase] == []
    silent = [caption for _, _, caption in free if "style" not in caption.named]
    assert len(silent) > 20
    assert [one.text for one in silent if with_style(one.text, default) == one.text] == []
