"""The text encoder: padding and unknown words say nothing. Untrained weights, the pack's own tokenizer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from torch import Tensor

from faceavatar.pack import EMBEDDED
from faceavatar.request import DEFAULT_PROMPT
from faceavatar_export.toon.text_encoder import BOS, CONTEXT, EOS, VOCABULARY, WINDOW, Reader, TextEncoder
from faceavatar_export.toon.train_text import CLASSES, Pool, start_warm, tokenize

VOCABULARY_TEXT = "a smiling man woman with blue background vector cartoon, red t-shirt"
TEXTS = ["a smiling man", "vector cartoon, a woman with a red t-shirt, blue background", ""]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(EMBEDDED / "toon" / "tokenizer.json"))


@pytest.fixture(scope="module")
def encoder(tokenizer: Tokenizer) -> TextEncoder:
    torch.manual_seed(0)
    used = sorted({BOS, EOS, *tokenizer.encode(VOCABULARY_TEXT, add_special_tokens=False).ids})
    known = torch.zeros(VOCABULARY, dtype=torch.int64)
    known[torch.tensor(used)] = torch.arange(1, len(used) + 1)
    return TextEncoder(known).eval().requires_grad_(False)


def ids_of(tokenizer: Tokenizer, *texts: str) -> Tensor:
    return torch.from_numpy(tokenize(tokenizer, list(texts))[:, 0])


def test_a_window_is_start_text_end_and_padding(tokenizer: Tokenizer) -> None:
    ids = tokenize(tokenizer, TEXTS)
    assert ids.shape == (3, 1, WINDOW)
    assert ids.dtype == np.int64
    words = tokenizer.encode(TEXTS[0], add_special_tokens=False).ids
    assert ids[0, 0, : len(words) + 3].tolist() == [BOS, *words, EOS, EOS]
    assert ids[2, 0].tolist() == [BOS] + [EOS] * (WINDOW - 1)


def test_a_long_text_goes_on_in_a_second_window(tokenizer: Tokenizer) -> None:
    text = DEFAULT_PROMPT + ", " + TEXTS[1]
    words = tokenizer.encode(text, add_special_tokens=False).ids
    ids = tokenize(tokenizer, [text], windows=2)[0]
    assert ids[0].tolist() == [BOS, *words[:75], EOS]
    assert ids[1, : len(words) - 75 + 2].tolist() == [BOS, *words[75:], EOS]


def test_states_after_the_end_token_are_zeros(encoder: TextEncoder, tokenizer: Tokenizer) -> None:
    ids = ids_of(tokenizer, *TEXTS)
    states = encoder(ids)
    assert states.shape == (3, WINDOW, CONTEXT)
    for row, text in zip(states, TEXTS, strict=True):
        end = 1 + len(tokenizer.encode(text, add_special_tokens=False).ids)
        assert bool((row[: end + 1].abs().sum(1) > 0).all())
        assert not row[end + 1 :].any()


def test_padding_changes_no_state(encoder: TextEncoder, tokenizer: Tokenizer) -> None:
    ids = ids_of(tokenizer, TEXTS[0])
    torch.testing.assert_close(encoder(ids[:, :20]), encoder(ids)[:, :20], atol=1e-5, rtol=1e-4)


def test_all_unknown_words_are_one_word_that_has_no_embedding(
    encoder: TextEncoder, tokenizer: Tokenizer
) -> None:
    first, second = ids_of(tokenizer, "a zebra man", "a tractor man")
    unknown = encoder.known[torch.stack([first[2], second[2]])]
    assert unknown.tolist() == [0, 0]
    assert not encoder.token(unknown).any()
    a, b = encoder(first[None]), encoder(second[None])
    torch.testing.assert_close(a, b, atol=0, rtol=0)
    assert not torch.equal(a, encoder(ids_of(tokenizer, "a woman man")))


def test_training_never_gives_the_unknown_word_a_meaning(tokenizer: Tokenizer, encoder: TextEncoder) -> None:
    torch.manual_seed(1)
    net, reader = TextEncoder(encoder.known), Reader(CLASSES)
    optimizer = torch.optim.AdamW([*net.parameters(), *reader.parameters()], 1e-2, weight_decay=1e-2)
    before = net.token.weight[1:].clone()
    for _ in range(2):
        loss = torch.stack([x.square().mean() for x in reader(net(ids_of(tokenizer, *TEXTS, "zebra")))]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert not net.token.weight[0].any()
    assert bool((net.token.weight[1:] != before).any())


def test_word_order_and_words_matter(encoder: TextEncoder, tokenizer: Tokenizer) -> None:
    a, b, c = encoder(
        ids_of(tokenizer, "red background, blue t-shirt", "blue background, red t-shirt", "red")
    )
    assert (a - b).abs().max() > 1e-3
    assert (a - c).abs().max() > 1e-3


def test_the_reader_has_a_class_for_everything_and_one_for_not_said(
    encoder: TextEncoder, tokenizer: Tokenizer
) -> None:
    ids, classes = Pool(tokenizer, np.random.default_rng(0), 6).batch(np.random.default_rng(0), 6, WINDOW)
    assert ids.shape[0] == 6
    assert ids.shape[1] <= WINDOW + 2
    assert classes.shape == (6, len(CLASSES))
    logits = Reader(CLASSES)(encoder(ids))
    assert [tuple(x.shape) for x in logits] == [(6, n) for n in CLASSES.values()]


def test_a_warm_start_keeps_what_both_know_and_leaves_new_tokens_fresh(tmp_path: Path) -> None:
    torch.manual_seed(1)
    old_known, new_known = torch.zeros(2, VOCABULARY, dtype=torch.int64)
    old_known[torch.tensor([5, 7, BOS, EOS])] = torch.arange(1, 5)
    new_known[torch.tensor([5, 9, BOS, EOS])] = torch.arange(1, 5)
    old, new = TextEncoder(old_known), TextEncoder(new_known)
    fresh = new.token.weight[2].clone()
    torch.save({"text": old.state_dict()}, tmp_path / "warm.pt")
    start_warm(new, tmp_path / "warm.pt")
    assert torch.equal(new.token.weight[1], old.token.weight[1])
    assert torch.equal(new.token.weight[2], fresh)
    ids = torch.full((1, WINDOW), EOS)
    ids[0, :3] = torch.tensor([BOS, 5, 5])
    torch.testing.assert_close(new(ids), old(ids))
