"""Words: tokenized as CLIP does, in windows when there are many, and never cut."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_pack
from tiny_pack import Recording
from transformers import CLIPTokenizer

from faceavatar.manifest import DefaultStyle
from faceavatar.pack import Pack
from faceavatar.request import DEFAULT_PROMPT
from faceavatar.text import TextEncoder, open_tokenizer, with_style

TOKENIZER = tiny_pack.TOON / tiny_pack.TOKENIZER
BOS, EOS = 49406, 49407
PHRASES = [
    "",
    "   ",
    "a photo of a man",
    "It's 5 o'clock; they'll've left!!! #1",
    "naïve café, cafe\u0301, ÅNGSTRÖM, straße, İstanbul",
    "日本語のテキスト 한국어 русский ελληνικά العربية",
    "emoji 😀👩‍🚀🏳️‍🌈 and \u00a0 odd\u200bspaces\t\n\r here",
    "<|startoftext|>a<|endoftext|> b <|ENDOFTEXT|>",
    "1234567890 3.14 -5 50% $9 a_b a-b a/b @you http://x.y/z?q=1&r=2",
    DEFAULT_PROMPT,
]


@pytest.fixture
def encoder(tiny: Path) -> TextEncoder:
    pack = Pack.load(tiny)
    tokenizer = open_tokenizer(pack.file(pack.manifest.text.tokenizer))
    return TextEncoder(Recording(pack.open("text_encoder", "cpu")), tokenizer, pack.manifest.text)


def runs(encoder: TextEncoder) -> int:
    assert isinstance(encoder.session, Recording)
    return len(encoder.session.feeds)


def test_a_known_phrase_has_the_known_tokens(encoder: TextEncoder) -> None:
    (row,) = encoder.windows("a photo of a man")
    assert row.tolist() == [BOS, 320, 1125, 539, 320, 786] + [EOS] * 71


def test_tokens_are_those_of_transformers_for_any_text() -> None:
    model = json.loads(TOKENIZER.read_text(encoding="utf-8"))["model"]
    merges: Any = [tuple(pair) for pair in model["merges"]]
    theirs, ours = CLIPTokenizer(vocab=model["vocab"], merges=merges), open_tokenizer(TOKENIZER)
    draw = random.Random(0)
    letters = "abcXYZ 012 ,.!?'\"-_()<>|éß日😀İ\t\n\u00a0\u200b\u0301"
    noise = ["".join(draw.choices(letters, k=draw.randint(1, 40))) for _ in range(500)]
    for text in PHRASES + noise:
        assert ours.encode(text).ids == theirs(text).input_ids, repr(text)


def test_the_vocabulary_has_the_size_and_the_special_tokens_of_clip() -> None:
    tokenizer = open_tokenizer(TOKENIZER)
    assert tokenizer.get_vocab_size() == 49408
    assert (tokenizer.token_to_id("<|startoftext|>"), tokenizer.token_to_id("<|endoftext|>")) == (BOS, EOS)


def test_the_tokenizer_opens_quickly() -> None:
    times = []
    for _ in range(3):
        start = time.process_time()
        open_tokenizer(TOKENIZER)
        times.append(time.process_time() - start)
    assert min(times) < 0.3


def test_the_default_prompt_fits_in_one_window(encoder: TextEncoder) -> None:
    assert len(encoder.windows(DEFAULT_PROMPT.format(gender_word="woman"))) == 1


@pytest.mark.parametrize(
    ("words", "windows"), [(0, 1), (1, 1), (75, 1), (76, 2), (150, 2), (151, 3), (600, 8)]
)
def test_a_long_prompt_is_split_into_windows_and_no_token_is_lost(
    encoder: TextEncoder, words: int, windows: int
) -> None:
    text = " ".join(["man", "photo", "a"][index % 3] for index in range(words))
    rows = encoder.windows(text)
    assert rows.shape == (windows, 77)
    assert rows[:, 0].tolist() == [BOS] * windows
    assert rows[:, -1].tolist() == [EOS] * windows
    content = [token for row in rows.tolist() for token in row if token not in (BOS, EOS)]
    assert content == [[786, 1125, 320][index % 3] for index in range(words)]


def test_windows_are_joined_in_order_along_the_tokens(encoder: TextEncoder) -> None:
    first, second = " ".join(["man"] * 75), "a photo"
    (joined,) = encoder.encode(f"{first} {second}")
    assert joined.shape == (1, 154, tiny_pack.CONTEXT)
    assert joined.dtype == np.float32
    np.testing.assert_array_equal(joined[:, :77], encoder.encode(first)[0])
    np.testing.assert_array_equal(joined[:, 77:], encoder.encode(second)[0])


def test_the_shorter_of_two_texts_is_filled_up_with_windows_of_the_empty_text(encoder: TextEncoder) -> None:
    long, short = encoder.encode("man " * 160, "ugly")
    assert long.shape == short.shape == (1, 231, tiny_pack.CONTEXT)
    (empty,) = encoder.encode("")
    np.testing.assert_array_equal(short[:, :77], encoder.encode("ugly")[0])
    np.testing.assert_array_equal(short[:, 77:154], empty)
    np.testing.assert_array_equal(short[:, 154:], empty)


def test_a_text_seen_before_runs_no_model_and_gives_the_same_numbers(encoder: TextEncoder) -> None:
    (first,) = encoder.encode("a man")
    assert runs(encoder) == 1
    (again, _) = encoder.encode("a man", "a photo")
    assert runs(encoder) == 2
    np.testing.assert_array_equal(first, again)


STYLE = DefaultStyle(words=("ink", "8-bit", "c++ art"), style="flat ink")


@pytest.mark.parametrize(
    "prompt", ["ink", "A man, INK drawing", "8-bit hero", "(ink)", "c++ art", "two\nink lines"]
)
def test_a_prompt_that_names_a_style_stays_as_it_is(prompt: str) -> None:
    assert with_style(prompt, STYLE) == prompt


@pytest.mark.parametrize(
    ("prompt", "whole"),
    [
        ("a pirate", "a pirate, flat ink"),
        ("drinking a pink drink", "drinking a pink drink, flat ink"),
        ("18-bit", "18-bit, flat ink"),
        ("", "flat ink"),
        ("  ", "flat ink"),
    ],
)
def test_to_a_prompt_that_names_none_the_packs_default_is_added(prompt: str, whole: str) -> None:
    assert with_style(prompt, STYLE) == whole
    assert with_style(prompt, None) == prompt
