"""Similarity and best_of, with the embedded pack: it draws faces that its own detector finds again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_pack
from numpy.typing import NDArray

from faceavatar import AvatarEngine, AvatarRequest, AvatarResult, InvalidRequest, Step
from faceavatar.errors import MissingGraph
from faceavatar.likeness import Kept, candidates, rounds
from faceavatar.result import read_metadata

PHOTOS = Path(__file__).parent / "fixtures" / "photos"
OBAMA = AvatarRequest(image=PHOTOS / "obama.jpg", gender="man", seed=40)
Picture = NDArray[np.uint8]


@pytest.fixture(scope="module")
def toon() -> AvatarEngine:
    return AvatarEngine.load("toon", provider="cpu")


@pytest.fixture(scope="module")
def eight(toon: AvatarEngine) -> AvatarResult:
    """The pictures of eight seeds, each with its similarity."""
    return toon.generate(OBAMA.model_copy(update={"batch": 8, "similarity": True}))


@pytest.fixture(scope="module")
def faceless(tmp_path_factory: pytest.TempPathFactory) -> AvatarEngine:
    """A pack without face models, to which embeddings are handed in."""
    folder = tiny_pack.build(tmp_path_factory.mktemp("packs") / "faceless")

    def change(content: dict[str, Any]) -> None:
        for part in ("detector", "alignment", "encoder"):
            del content["face"][part]
        del content["graphs"]["face_encoder"]

    tiny_pack.change_manifest(folder, change)
    return AvatarEngine.load(folder, provider="cpu")


def ask(**fields: Any) -> AvatarRequest:
    return OBAMA.model_copy(update=fields)


def assert_same(one: Picture, other: Picture) -> None:
    """The same picture; another size of the batch moves single values by one level."""
    assert np.abs(one.astype(int) - other.astype(int)).max() <= 1


def best(eight: AvatarResult, start: int, stop: int) -> int:
    """The first of the most similar of the pictures from start to stop."""
    assert eight.similarities is not None
    found = [-2.0 if cosine is None else cosine for cosine in eight.similarities[start:stop]]
    return start + int(np.argmax(found))


def test_a_similarity_is_the_cosine_of_the_embeddings(toon: AvatarEngine, eight: AvatarResult) -> None:
    photo = toon.look(PHOTOS / "obama.jpg").embeds[0]
    assert eight.similarities is not None
    for image, cosine in zip(eight.images, eight.similarities, strict=True):
        drawn = toon.look(image).embeds[0]
        expected = drawn @ photo / np.linalg.norm(drawn) / np.linalg.norm(photo)
        assert cosine == pytest.approx(float(expected), abs=1e-5)
    assert len(set(eight.similarities)) == 8


def test_a_picture_resembles_its_own_face_more_than_anothers(toon: AvatarEngine) -> None:
    for name, other, gender in (("obama", "ardern", "man"), ("ardern", "obama", "woman")):
        request = AvatarRequest(image=PHOTOS / f"{name}.jpg", gender=gender, seed=1, similarity=True)
        result = toon.generate(request)
        assert result.similarities is not None
        assert result.similarities[0] is not None
        stranger = toon.look(PHOTOS / f"{other}.jpg").embeds[0]
        drawn = toon.look(result.images[0]).embeds[0]
        cosine = drawn @ stranger / np.linalg.norm(drawn) / np.linalg.norm(stranger)
        assert result.similarities[0] > 0.8
        assert result.similarities[0] > cosine + 0.1


def test_who_does_not_ask_pays_nothing(toon: AvatarEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert toon.faces.detector is not None
    looked: list[tuple[int, ...]] = []
    detect = toon.faces.detector.detect
    monkeypatch.setattr(
        toon.faces.detector, "detect", lambda image: (looked.append(image.shape), detect(image))[1]
    )
    toon.look(PHOTOS / "obama.jpg")
    looked.clear()
    assert toon.generate(OBAMA).similarities is None
    assert looked == []
    assert toon.generate(ask(similarity=True)).similarities is not None
    assert looked == [(512, 512, 3)]


def test_the_best_of_its_own_seeds_is_kept_for_each_picture(toon: AvatarEngine, eight: AvatarResult) -> None:
    result = toon.generate(ask(batch=2, best_of=3))
    kept = [best(eight, 0, 3), best(eight, 3, 6)]
    assert result.seeds == tuple(40 + index for index in kept)
    assert result.similarities is not None
    assert eight.similarities is not None
    for image, cosine, index in zip(result.images, result.similarities, kept, strict=True):
        assert_same(image, eight.images[index])
        assert cosine == pytest.approx(eight.similarities[index], abs=1e-3)


def test_a_kept_seed_alone_draws_its_picture_again(toon: AvatarEngine, tmp_path: Path) -> None:
    result = toon.generate(ask(batch=2, best_of=3))
    path = result.save(tmp_path)[1]
    again = AvatarRequest.from_metadata(read_metadata(path)["request"])
    assert (again.seed, again.batch, again.best_of) == (result.seeds[1], 1, 1)
    assert_same(toon.generate(again).images[0], result.images[1])


def test_a_picture_does_not_depend_on_the_batch_it_is_the_best_in(toon: AvatarEngine) -> None:
    both = toon.generate(ask(batch=2, best_of=2))
    second = toon.generate(ask(best_of=2, seed=42))
    assert both.seeds[1] == second.seeds[0]
    assert_same(both.images[1], second.images[0])


def test_many_candidates_are_drawn_in_rounds_and_all_steps_are_told(
    toon: AvatarEngine, eight: AvatarResult
) -> None:
    request = ask(best_of=8)
    assert rounds(request) == 2  # four pictures of 512x512 are a megapixel
    steps: list[Step] = list(toon.stream(request))
    assert [step.index for step in steps] == list(range(8))
    assert {step.total for step in steps} == {8}
    assert [step.result is not None for step in steps] == [False] * 7 + [True]
    assert steps[-1].seconds_left == 0
    result = steps[-1].result
    assert result is not None
    assert_same(result.images[0], eight.images[best(eight, 0, 8)])


@pytest.mark.parametrize(
    ("height", "width", "batch", "best_of"),
    [
        (512, 512, 1, 8),
        (1024, 1024, 1, 8),
        (1536, 1536, 2, 3),
        (256, 256, 8, 8),
        (512, 520, 3, 7),
        (256, 256, 1, 1),
    ],
)
def test_rounds_draw_every_candidate_once_and_no_more_at_a_time_than_fit(
    height: int, width: int, batch: int, best_of: int
) -> None:
    request = ask(height=height, width=width, batch=batch, best_of=best_of)
    drawn = [list(range(64))[candidates(request, index)] for index in range(rounds(request))]
    assert [index for part in drawn for index in part] == list(range(batch * best_of))
    for part in drawn:
        assert len(part) <= batch or len(part) * height * width <= 1024 * 1024


def test_requests_of_several_callers_keep_their_own_best(toon: AvatarEngine) -> None:
    requests = [
        ask(best_of=3, seed=7),
        AvatarRequest(image=PHOTOS / "ardern.jpg", seed=9, batch=2, best_of=2),
        ask(similarity=True),
        ask(seed=3),
    ]
    prepared = [toon.prepare(request) for request in requests]
    assert [one.pictures for one in prepared] == [3, 4, 1, 1]
    together = toon.generate_together(prepared)
    for request, result in zip(requests, together, strict=True):
        alone = toon.generate(request)
        assert result.seeds == alone.seeds
        assert (result.similarities is None) == (alone.similarities is None)
        for one, other in zip(alone.images, result.images, strict=True):
            assert_same(one, other)


def test_requests_of_other_numbers_of_rounds_wait_for_another_batch(toon: AvatarEngine) -> None:
    keys = {toon.prepare(ask(best_of=best_of)).key for best_of in (1, 4, 8)}
    assert len(keys) == 2
    with pytest.raises(InvalidRequest, match="equal keys"):
        toon.stream_together([toon.prepare(ask(best_of=1)), toon.prepare(ask(best_of=8))])


def test_where_no_face_is_found_the_first_candidate_stays_and_is_said(toon: AvatarEngine) -> None:
    result = toon.generate(ask(prompt="pixel art of a man", batch=2, best_of=2))
    assert result.similarities == (None, None)
    assert result.seeds == (40, 42)
    assert result.warnings == ("no face was found in any candidate for the pictures of seeds 40, 42",)
    plain = toon.generate(ask(prompt="pixel art of a man", similarity=True))
    assert plain.similarities == (None,)
    assert plain.warnings == ()


def test_a_face_wins_over_none_and_of_equals_the_first_stays() -> None:
    kept = Kept(best_of=4)
    pictures = [np.full((1, 1, 3), value, np.uint8) for value in range(8)]
    kept.take(0, pictures[:3], [10, 11, 12], [None, 0.2, 0.5])
    kept.take(3, pictures[3:], [13, 14, 15, 16, 17], [0.5, -0.3, None, -0.2, -0.9])
    assert kept.seeds == [12, 16]
    assert kept.similarities == [0.5, -0.2]
    assert [int(image[0, 0, 0]) for image in kept.images] == [2, 6]


def test_the_best_are_cut_out_and_an_identity_is_compared_as_its_photo_is(toon: AvatarEngine) -> None:
    identity = toon.identity(PHOTOS / "obama.jpg").to_bytes()
    photo = toon.generate(ask(best_of=2, remove_background=True))
    kept = toon.generate(ask(best_of=2, remove_background=True, image=identity))
    assert photo.images[0].shape == (512, 512, 4)
    assert kept.seeds == photo.seeds
    assert kept.similarities == photo.similarities
    np.testing.assert_array_equal(kept.images[0], photo.images[0])


@pytest.mark.parametrize(
    ("fields", "words"), [({"best_of": 3}, "best_of 3"), ({"similarity": True}, "similarity")]
)
def test_a_pack_without_a_recogniser_refuses_by_name_before_any_work(
    faceless: AvatarEngine, fields: dict[str, Any], words: str
) -> None:
    face = np.ones(tiny_pack.EMBEDDING, np.float32)
    expected = f"tiny: {words} compares faces, and this pack has no face encoder; leave it out.*--face-pack"
    with pytest.raises(MissingGraph, match=expected):
        faceless.stream(ask(**fields), face_embeds=face)
    assert faceless.generate(OBAMA, face_embeds=face).similarities is None


def test_a_face_handed_in_as_numbers_is_compared_too(toon: AvatarEngine) -> None:
    embeds = toon.look(PHOTOS / "obama.jpg").embeds
    assert toon.generate(ask(best_of=2), face_embeds=embeds).seeds == toon.generate(ask(best_of=2)).seeds


def test_handed_in_noise_has_no_candidates(toon: AvatarEngine) -> None:
    with pytest.raises(InvalidRequest, match="best_of: got 2, allowed 1 beside latents that are handed in"):
        toon.generate(ask(best_of=2), latents=np.zeros((1, 64, 8, 8), np.float32))
    with pytest.raises(InvalidRequest, match=r"best_of: got 9, allowed a whole number 1\.\.8"):
        ask(best_of=9)
