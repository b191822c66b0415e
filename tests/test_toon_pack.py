"""The shipped pack, run by the engine on the public-domain photos: what the issue of an avatar is judged by.

Prompts are judged by the classifier in fixtures/classifier.onnx (trained on drawings alone by
faceavatar_export.toon.classifier) and, for plain backgrounds and skin, by measured pixels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faceavatar import AvatarEngine, AvatarRequest
from faceavatar.image import load_image
from faceavatar.pack import Pack, find_pack, verify
from faceavatar_export.toon import colors
from faceavatar_export.toon.identity import read
from faceavatar_export.toon.scores.judge import Judge, background_of, cheeks_of
from faceavatar_export.toon.scores.likeness import PhotoScore, consistency, drawn_references, photo_score
from faceavatar_export.toon.scores.obedience import Obedience, obedience
from faceavatar_export.toon.scores.quality import quality
from faceavatar_export.toon.wordings import DEFAULT_STYLE

FIXTURES = Path(__file__).parent / "fixtures"
PHOTOS = {name: FIXTURES / "photos" / f"{name}.jpg" for name in ("astronaut", "macron", "ardern", "obama")}
LIMIT = 40e6
# What a person sees in the photos.
TRUTH = {
    "astronaut": {"female": "woman", "hair_length": ("short", "medium"), "hair": "light"},
    "macron": {"female": "man", "hair_length": ("short",), "hair": "dark"},
    "ardern": {"female": "woman", "hair_length": ("long", "medium"), "hair": "dark"},
    "obama": {"female": "man", "hair_length": ("short",), "hair": "dark"},
}
DARK = {"black", "dark brown", "brown"}
# The bounds that the shipped pack is held to; where they lie below the aims, docs/toon-pack.md says why.
OBEDIENCE, BROKEN, FRECHET_RATIO, ALIKE = 0.70, 0.10, 1.3, 0.85
KEPT = {"female": 0.6, "glasses": 0.95, "beard": 0.9, "hair_length": 0.8}


@pytest.fixture(scope="module")
def toon() -> AvatarEngine:
    return AvatarEngine.load("toon", provider="cpu")


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge(FIXTURES / "classifier.onnx")


@pytest.fixture(scope="module")
def obeyed(toon: AvatarEngine, judge: Judge) -> Obedience:
    return obedience(toon, judge, 60)


@pytest.fixture(scope="module")
def photos(toon: AvatarEngine, judge: Judge) -> dict[str, PhotoScore]:
    return {name: photo_score(toon, judge, photo) for name, photo in PHOTOS.items()}


def test_the_embedded_pack_is_whole_and_within_its_size() -> None:
    folder = find_pack("toon")
    assert verify(Pack.load(folder)) == []
    assert sum(file.stat().st_size for file in folder.iterdir()) <= LIMIT


def test_every_file_of_the_pack_names_its_licence_and_whom_to_thank() -> None:
    pack = Pack.load(find_pack("toon"))
    assert set(pack.manifest.files) | {"pack.json"} == {file.name for file in pack.folder.iterdir()}
    for name, file in pack.manifest.files.items():
        assert file.license, name
        assert file.attribution, name


def test_prompts_in_words_never_trained_on_are_obeyed(obeyed: Obedience) -> None:
    """The aim is 0.95, and 0.85 for each attribute; docs/toon-pack.md says what is reached."""
    assert obeyed.share >= OBEDIENCE, obeyed.counts


def test_pictures_are_whole_and_like_drawings(obeyed: Obedience, judge: Judge) -> None:
    found = quality(judge, obeyed.pictures)
    assert found.broken <= BROKEN
    assert found.frechet < FRECHET_RATIO * found.floor


def test_drawn_people_are_kept(toon: AvatarEngine, judge: Judge) -> None:
    kept = drawn_references(toon, judge, 40)
    for key, (same, _, count) in kept.counts.items():
        assert same / count >= KEPT[key], kept.counts


def test_one_person_stays_that_person_across_prompts(toon: AvatarEngine, judge: Judge) -> None:
    assert consistency(toon, judge, 4) >= ALIKE


def test_avatars_keep_the_looks_of_the_photos(photos: dict[str, PhotoScore]) -> None:
    right, wrong = 0, []
    for name, score in photos.items():
        truth, seen = TRUTH[name], score.seen
        assert score.skin_ciede2000 <= 12, (name, score.skin_ciede2000)
        assert score.hair_ciede2000 is None or score.hair_ciede2000 <= 18, (name, score.hair_ciede2000)
        checks = {
            "gender": seen["female"] == truth["female"],
            "hair length": seen["hair_length"] in truth["hair_length"],
            "hair color": (seen["hair_color"] in DARK) == (truth["hair"] == "dark"),
            "beard": seen["beard"] == "none",
            "glasses": seen["glasses"] == "none",
        }
        right += sum(checks.values())
        wrong += [(name, key) for key, good in checks.items() if not good]
    assert right >= 0.9 * (right + len(wrong)), wrong


def cheeks_of_photo(toon: AvatarEngine, photo: Path) -> np.ndarray:
    """Median L*a*b* of both cheeks: squares of a third of the eyes' distance, between eyes and mouth."""
    picture, marks = load_image(photo), toon.look(photo).face.landmarks
    (right_eye, left_eye), (right_mouth, left_mouth) = marks[:2], marks[3:]
    half = max(2, int(np.hypot(*(left_eye - right_eye)) / 6))
    cheeks = [0.55 * eye + 0.45 * mouth for eye, mouth in ((right_eye, right_mouth), (left_eye, left_mouth))]
    patches = [picture[int(y) - half : int(y) + half, int(x) - half : int(x) + half] for x, y in cheeks]
    return colors.rgb_to_lab(np.median(np.concatenate([p.reshape(-1, 3) for p in patches]), axis=0))


def test_the_skin_that_the_encoder_reads_is_the_photos_own(toon: AvatarEngine) -> None:
    for name, photo in PHOTOS.items():
        told = colors.rgb_to_lab(colors.hex_to_rgb(read(toon.look(photo).embeds[0]).skin))
        assert colors.ciede2000(cheeks_of_photo(toon, photo), told) < 10, name


def test_the_skin_of_the_avatar_is_that_of_the_photo(toon: AvatarEngine) -> None:
    for name, photo in PHOTOS.items():
        pictures = toon.generate(AvatarRequest(image=photo, batch=4, seed=7)).images
        deltas = [colors.ciede2000(cheeks_of(p), cheeks_of_photo(toon, photo)) for p in pictures]
        assert np.median(deltas) < 20, (name, deltas)


def test_the_gender_asked_for_is_drawn_whatever_the_photo_shows(toon: AvatarEngine, judge: Judge) -> None:
    for photo, gender in ((PHOTOS["obama"], "man"), (PHOTOS["ardern"], "woman")):
        result = toon.generate(AvatarRequest(image=photo, gender=gender, batch=4, seed=11))
        assert [look["female"] for look in judge.look(result.images)[0]].count(gender) >= 3


def test_another_face_gives_another_avatar_of_the_same_prompt_and_seed(toon: AvatarEngine) -> None:
    pictures = [toon.generate(AvatarRequest(image=photo, seed=5)).images[0] for photo in PHOTOS.values()]
    heads = [picture[50:360, 130:390].astype(int) for picture in pictures]
    for i, a in enumerate(heads):
        for b in heads[i + 1 :]:
            assert np.abs(a - b).mean() > 6


@pytest.mark.parametrize("prompt", ["", "a pirate", "a doctor in a hospital"])
def test_a_prompt_without_a_style_is_drawn_in_the_packs_default_one(toon: AvatarEngine, prompt: str) -> None:
    photo = PHOTOS["ardern"]
    silent, *others = (
        toon.generate(AvatarRequest(image=photo, prompt=words, seed=3)).images[0]
        for words in (prompt, ", ".join(filter(None, (prompt, DEFAULT_STYLE))), f"{prompt}, pixel art")
    )
    assert np.array_equal(silent, others[0])
    assert not np.array_equal(silent, others[1])


def test_the_default_prompt_gives_a_black_background(toon: AvatarEngine) -> None:
    picture = toon.generate(AvatarRequest(image=PHOTOS["astronaut"], gender="woman", seed=3)).images[0]
    assert background_of(picture)[0] < 12


def test_image_three_of_a_batch_equals_the_same_seed_alone(toon: AvatarEngine) -> None:
    four = toon.generate(AvatarRequest(image=PHOTOS["macron"], batch=4, seed=20)).images
    alone = toon.generate(AvatarRequest(image=PHOTOS["macron"], batch=1, seed=22)).images
    assert np.abs(four[2].astype(int) - alone[0].astype(int)).max() <= 1


@pytest.mark.parametrize(("height", "width"), [(256, 256), (1536, 768), (700, 1001)])
def test_any_size_is_one_whole_avatar(toon: AvatarEngine, height: int, width: int) -> None:
    native = AvatarRequest(image=PHOTOS["macron"], seed=2, gender="man")
    whole = Image.fromarray(toon.generate(native).images[0])
    picture = toon.generate(native.model_copy(update={"height": height, "width": width})).images[0]
    assert picture.shape == (height, width, 3)
    side = min(height, width)
    left = (width - side) // 2
    square = picture[height - side :, left : left + side].astype(int)
    assert np.abs(square - np.asarray(whole.resize((side, side)))).mean() < 2
    beside = np.concatenate([picture[: height - side].reshape(-1, 3), picture[:, :left].reshape(-1, 3)])
    assert beside.size == 0 or beside.mean() < 24  # nothing but the black background's continuation


def test_a_cut_out_leaves_the_figure_and_takes_the_background(toon: AvatarEngine) -> None:
    request = AvatarRequest(
        image=PHOTOS["ardern"], prompt="vector cartoon of a woman, smiling, blue background", seed=1
    )
    cut = toon.generate(request.model_copy(update={"remove_background": True})).images[0]
    assert cut.shape == (512, 512, 4)
    assert cut[:40, :40, 3].mean() < 8
    assert cut[230:280, 236:276, 3].mean() > 247
    put = toon.generate(request.model_copy(update={"bg_color": "#ff0000"})).images[0]
    assert np.abs(put[:20, :20].reshape(-1, 3).mean(axis=0) - (255, 0, 0)).max() < 8
