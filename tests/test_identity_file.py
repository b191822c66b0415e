"""Identity files: a face as numbers takes the photo's place, and only where the numbers mean the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_pack
from safetensors.numpy import load, save

from faceavatar import AvatarEngine, AvatarRequest, Identity, ImageError, InvalidRequest
from faceavatar.identity import encoder_of, open_reference

PHOTOS = Path(__file__).parent / "fixtures" / "photos"


@pytest.fixture(scope="module")
def obama(engine: AvatarEngine) -> Identity:
    return engine.identity(str(PHOTOS / "obama.jpg"))


def header(data: bytes) -> dict[str, str]:
    length = int.from_bytes(data[:8], "little")
    said = json.loads(data[8 : 8 + length])["__metadata__"]
    assert isinstance(said, dict)
    return said


def changed(identity: Identity, said: dict[str, str] | None = None, **tensors: Any) -> bytes:
    """An identity file with other metadata or tensors; None takes a tensor away."""
    data = identity.to_bytes()
    content = {name: array for name, array in (load(data) | tensors).items() if array is not None}
    return bytes(save(content, header(data) | (said or {})))


@pytest.mark.parametrize("form", ["path", "text", "bytes"])
def test_an_identity_draws_the_very_pictures_of_its_photo(
    engine: AvatarEngine, obama: Identity, tmp_path: Path, form: str
) -> None:
    path = obama.save(tmp_path / "who.faceid")
    image: Any = {"path": path, "text": str(path), "bytes": path.read_bytes()}[form]
    request = AvatarRequest(image=PHOTOS / "obama.jpg", batch=2, seed=4)
    photo, identity = engine.generate(request), engine.generate(request.model_copy(update={"image": image}))
    for one, other in zip(photo.images, identity.images, strict=True):
        np.testing.assert_array_equal(one, other)
    assert photo.face is not None
    assert identity.face is None
    assert identity.warnings == ()


def test_two_identities_draw_two_pictures(engine: AvatarEngine, obama: Identity) -> None:
    other = engine.identity(PHOTOS / "ardern.jpg").to_bytes()
    first, second = (
        engine.generate(AvatarRequest(image=image, seed=4)).images[0] for image in (obama.to_bytes(), other)
    )
    assert not np.array_equal(first, second)


def test_the_file_holds_numbers_and_names_and_no_pixels(engine: AvatarEngine, obama: Identity) -> None:
    data = obama.to_bytes()
    tensors, said = load(data), header(data)
    assert {name: array.shape for name, array in tensors.items()} == {
        "face_embeds": (1, tiny_pack.EMBEDDING),
        "landmarks": (5, 2),
        "bbox": (4,),
        "photo_size": (2,),
    }
    assert set(said) == {"format", "version", "encoder", "encoder_name"}
    assert said["encoder_name"] == "tiny's face_encoder.onnx"
    assert len(data) < 1500
    look = engine.look(PHOTOS / "obama.jpg")
    np.testing.assert_array_equal(tensors["face_embeds"], look.embeds)
    assert look.face is not None
    np.testing.assert_array_equal(tensors["landmarks"], look.face.landmarks)
    assert tensors["photo_size"].tolist() == list(tiny_pack.photo("obama").shape[:2])


def test_a_file_read_again_says_the_same(obama: Identity, tmp_path: Path) -> None:
    again = Identity.load(obama.save(tmp_path / "new" / "folder" / "who.faceid"))
    np.testing.assert_array_equal(again.embeds, obama.embeds)
    assert (again.encoder, again.encoder_name) == (obama.encoder, obama.encoder_name)
    np.testing.assert_array_equal(again.place.landmarks, obama.place.landmarks)
    assert again.place.photo_size == obama.place.photo_size
    assert again.place.bbox == pytest.approx(obama.place.bbox)
    assert (again.image_embeds, again.image_encoder) == (None, None)


def test_a_pack_with_another_encoder_refuses_and_says_what_to_do(
    obama: Identity, sd_engine: AvatarEngine
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        sd_engine.generate(AvatarRequest(image=obama.to_bytes(), height=256, width=256))
    assert caught.value.field == "image"
    words = str(caught.value)
    assert f"an identity of tiny's face_encoder.onnx ({obama.encoder[:12]})" in words
    assert "face_encoder.onnx (" in words.split("allowed")[1]
    assert "faceavatar embed PHOTO --pack tiny -o WHO.faceid" in words


def test_a_pack_that_draws_otherwise_with_the_same_encoder_accepts(
    obama: Identity, tiny: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny, tmp_path / "twin")
    tiny_pack.change_manifest(folder, lambda content: content.update(name="twin"))
    tiny_pack.change_manifest(folder, lambda content: content["defaults"].update(guidance_scale=1.0))
    twin = AvatarEngine.load(folder, provider="cpu")
    assert twin.generate(AvatarRequest(image=obama.to_bytes())).images


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["face"]["encoder"].update(mean=[100.0] * 3),
        lambda content: content["face"]["encoder"].update(color="BGR"),
        lambda content: content["face"]["alignment"].update(kind="arcface"),
        lambda content: content["files"]["face_encoder.onnx"].update(sha256="0" * 64),
    ],
    ids=["mean", "colours", "alignment", "weights"],
)
def test_whatever_changes_the_numbers_changes_the_fingerprint(
    tiny: Path, tmp_path: Path, change: Any
) -> None:
    from faceavatar.manifest import read_manifest

    folder = shutil.copytree(tiny, tmp_path / "changed")
    before = encoder_of(read_manifest(folder / "pack.json"))
    tiny_pack.change_manifest(folder, change)
    after = encoder_of(read_manifest(folder / "pack.json"))
    assert before is not None
    assert after is not None
    assert before[0] != after[0]


def test_which_face_is_asked_of_the_photo_and_not_of_an_identity(
    engine: AvatarEngine, obama: Identity
) -> None:
    pair = np.hstack([tiny_pack.photo("astronaut"), tiny_pack.photo("obama")[:512]])
    first, second = (engine.identity(pair, face_index=index).embeds for index in (0, 1))
    assert not np.allclose(first, second)
    with pytest.raises(
        InvalidRequest, match="face_index: got 0, allowed None: an identity file holds one face"
    ):
        engine.generate(AvatarRequest(image=obama.to_bytes(), face_index=0))


def test_an_identity_and_a_photo_are_drawn_together(engine: AvatarEngine, obama: Identity) -> None:
    requests = [
        AvatarRequest(image=obama.to_bytes(), seed=1),
        AvatarRequest(image=PHOTOS / "ardern.jpg", seed=2, batch=2),
    ]
    together = engine.generate_together([engine.prepare(request) for request in requests])
    for request, result in zip(requests, together, strict=True):
        for one, other in zip(engine.generate(request).images, result.images, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda who: who.to_bytes()[:-9], "damaged identity file"),
        (lambda who: changed(who, face_embeds=np.zeros((1, 20), np.float32)), "zeros alone"),
        (lambda who: changed(who, face_embeds=np.full((1, 20), np.nan, np.float32)), "NaN"),
        (
            lambda who: changed(who, face_embeds=np.ones((2, 20), np.float32)),
            r"face_embeds is float32 \(2, 20\)",
        ),
        (lambda who: changed(who, face_embeds=np.ones((1, 20), np.float64)), "face_embeds is float64"),
        (lambda who: changed(who, landmarks=None), "landmarks"),
        (lambda who: changed(who, image_embeds=np.ones((1, 2, 3), np.float32)), "go together"),
        (lambda who: changed(who, {"version": "2"}), "of version 2, expected 1; upgrade faceavatar"),
    ],
    ids=["cut off", "zeros", "NaN", "two faces", "doubles", "no landmarks", "half of Plus", "newer"],
)
def test_a_damaged_file_is_named_and_not_drawn(
    engine: AvatarEngine, obama: Identity, break_it: Any, words: str
) -> None:
    with pytest.raises(ImageError, match=words):
        engine.generate(AvatarRequest(image=break_it(obama)))


def test_an_embedding_of_another_size_under_the_right_fingerprint_is_refused(
    engine: AvatarEngine, obama: Identity
) -> None:
    with pytest.raises(InvalidRequest, match="image: got 'an identity of 7 numbers', allowed one of 20"):
        engine.generate(AvatarRequest(image=changed(obama, face_embeds=np.ones((1, 7), np.float32))))


def test_what_is_no_identity_file_is_a_photo_or_refused(obama: Identity, tmp_path: Path) -> None:
    other = tmp_path / "weights.safetensors"
    other.write_bytes(save({"weight": np.ones(3, np.float32)}))
    with pytest.raises(ImageError, match=r"weights.safetensors: no picture"):
        open_reference(other)
    fake = tmp_path / "fake.faceid"
    fake.write_bytes((2**60).to_bytes(8, "little") + b"{" * 100)
    with pytest.raises(ImageError, match=r"fake.faceid: no identity file, or a damaged one; make it anew"):
        open_reference(fake)
    photo = tmp_path / "photo.faceid"  # what a file is, its content tells
    shutil.copyfile(PHOTOS / "obama.jpg", photo)
    with pytest.raises(ImageError, match=r"photo.faceid: no identity file"):
        open_reference(photo)
    with pytest.raises(
        ImageError, match=r"obama.jpg: no identity file, expected one that `faceavatar embed` wrote"
    ):
        Identity.load(PHOTOS / "obama.jpg")
    with pytest.raises(ImageError, match="cannot be written"):
        obama.save(other / "who.faceid")


@pytest.fixture(scope="module")
def begins(tmp_path_factory: pytest.TempPathFactory) -> AvatarEngine:
    """A pack that can begin with the photo itself."""
    folder = tiny_pack.build(tmp_path_factory.mktemp("packs") / "begins")
    tiny_pack.add_vae_encoder(folder)
    return AvatarEngine.load(folder, provider="cpu")


def test_a_run_cannot_begin_with_the_picture_of_an_identity(begins: AvatarEngine, obama: Identity) -> None:
    photo = AvatarRequest(image=PHOTOS / "obama.jpg", seed=1, strength=0.5)
    begun = begins.generate(photo)
    assert begun.face is not None
    identity = photo.model_copy(update={"image": begins.identity(PHOTOS / "obama.jpg").to_bytes()})
    with pytest.raises(
        InvalidRequest, match=r"strength: got 0\.5, allowed None: an identity file holds no picture"
    ):
        begins.generate(identity)
    assert begins.generate(identity.model_copy(update={"strength": None})).images


def test_every_candidate_begins_with_the_photo(begins: AvatarEngine) -> None:
    """The tests' packs draw no faces, so of all candidates the first is kept."""
    plain = AvatarRequest(image=PHOTOS / "obama.jpg", seed=1, strength=0.5, batch=2)
    best = begins.generate(plain.model_copy(update={"best_of": 3}))
    assert best.seeds == (1, 4)
    for seed, image in zip(best.seeds, best.images, strict=True):
        alone = begins.generate(plain.model_copy(update={"seed": seed, "batch": 1})).images[0]
        assert np.abs(alone.astype(int) - image).max() <= 1
