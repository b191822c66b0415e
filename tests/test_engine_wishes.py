"""What steers a run: guidance, prompts and the face, each with the effect it should have and no other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tiny_pack
from asking import OTHER, ask, assert_same, difference, recorded

from faceavatar import AvatarEngine


def test_guidance_1_runs_no_unconditional_half(engine: AvatarEngine) -> None:
    for guidance, batch in ((1.0, 3), (2.0, 6)):
        with recorded(engine) as sessions:
            engine.generate(ask(batch=3, guidance_scale=guidance))
        assert [len(feed["sample"]) for feed in sessions["unet"].feeds] == [batch] * 4


@pytest.fixture(scope="module")
def distilled(tmp_path_factory: pytest.TempPathFactory) -> AvatarEngine:
    folder = tiny_pack.build(tmp_path_factory.mktemp("distilled"))
    tiny_pack.change_manifest(
        folder, lambda m: m["defaults"].update(guidance_scale=3.0, built_in_guidance=3.0)
    )
    return AvatarEngine.load(folder, provider="cpu")


def test_a_distilled_pack_runs_one_half_at_its_own_guidance_and_more_only_for_what_differs(
    distilled: AvatarEngine,
) -> None:
    """The empty prompt's half beside a negative one's: guidance is measured from it."""
    asked = {2: {}, 4: {"guidance_scale": 7.5}, 6: {"negative_prompt": "ugly"}}
    pictures = []
    for batch, change in asked.items():
        with recorded(distilled) as sessions:
            pictures.append(distilled.generate(ask(batch=2, **change)).images[0])
        assert [len(feed["sample"]) for feed in sessions["unet"].feeds] == [batch] * 4
    assert difference(pictures[0], pictures[1]) > 0
    assert difference(pictures[0], pictures[2]) > 0


def test_the_unconditional_half_is_the_projection_of_zeros(engine: AvatarEngine) -> None:
    with recorded(engine) as sessions:
        engine.generate(ask(batch=2))
    zeros = engine.adapter.session.run({"face_embeds": np.zeros((1, tiny_pack.EMBEDDING), np.float32)})
    fed = sessions["unet"].feeds[0]["face_tokens"]
    np.testing.assert_array_equal(fed[:2], np.repeat(zeros["face_tokens"], 2, axis=0))
    assert not np.allclose(fed[2], fed[0])


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "a pirate"},
        {"gender": "woman"},
        {"negative_prompt": "ugly, blurred"},
        {"image": OTHER},
        {"guidance_scale": 9.0},
        {"face_scale": 0.3},
        {"num_inference_steps": 9},
        {"scheduler": "euler_ancestral"},
        {"seed": 2},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_wish_changes_the_picture(engine: AvatarEngine, change: dict[str, Any]) -> None:
    assert difference(engine.generate(ask(**change)).images[0], engine.generate(ask()).images[0]) > 0


def test_gender_says_nothing_beside_a_prompt_of_ones_own(engine: AvatarEngine) -> None:
    assert_same(
        engine.generate(ask(prompt="a pirate", gender="man")),
        engine.generate(ask(prompt="a pirate", gender="woman")),
    )


def test_the_negative_prompt_says_nothing_without_guidance(engine: AvatarEngine) -> None:
    assert_same(
        engine.generate(ask(guidance_scale=1.0)),
        engine.generate(ask(guidance_scale=1.0, negative_prompt="ugly")),
    )


def test_face_scale_0_removes_the_faces_influence(engine: AvatarEngine) -> None:
    assert_same(engine.generate(ask(face_scale=0.0)), engine.generate(ask(image=OTHER, face_scale=0.0)))


def test_the_last_word_of_a_long_prompt_still_counts(engine: AvatarEngine) -> None:
    long = "man " * 200
    with recorded(engine) as sessions:
        hat = engine.generate(ask(prompt=long + "hat"))
    assert sessions["unet"].feeds[0]["encoder_hidden_states"].shape == (2, 3 * 77, tiny_pack.CONTEXT)
    assert difference(hat.images[0], engine.generate(ask(prompt=long + "sea")).images[0]) > 3


def test_a_negative_prompt_longer_than_the_prompt_is_not_cut_either(engine: AvatarEngine) -> None:
    with recorded(engine) as sessions:
        engine.generate(ask(prompt="a pirate", negative_prompt="ugly " * 100))
    assert sessions["unet"].feeds[0]["encoder_hidden_states"].shape[:2] == (2, 2 * 77)
