"""Cut-outs: what nets are fed and mean, edges, foreground colours, compositing, and the default net."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tiny_pack
from numpy.typing import NDArray
from pymatting import estimate_foreground_ml

from faceavatar import AvatarEngine
from faceavatar.backends import TensorSpec
from faceavatar.errors import InvalidRequest, NumericalError, PackInvalid
from faceavatar.manifest import Matting
from faceavatar.matting import (
    CutOut,
    Matter,
    Told,
    estimate_foreground,
    over,
    refine,
    refine_narrow,
    refine_near,
    straight,
    told_foreground,
)
from faceavatar.matting.cutout import SELFIE, SELFIE_SETTINGS
from faceavatar.matting.foreground import FINEST
from faceavatar.pack import Pack

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
MASKS = Path(__file__).parent / "fixtures" / "selfie_masks.npz"


@pytest.fixture(scope="module")
def matter(tiny: Path) -> Matter:
    return CutOut.open(Pack.load(tiny), "cpu").matter


@pytest.fixture(scope="module")
def selfie() -> CutOut:
    return CutOut.open(None, "cpu")


def noise(height: int, width: int, seed: int = 0) -> Bytes:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def disc(side: int, softness: float = 3.0) -> Floats:
    """Alpha of a disc with a soft rim."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    return np.clip((side * 0.3 - np.hypot(y, x)) / softness + 0.5, 0, 1).astype(np.float32)


def smooth(side: int, seed: int) -> Floats:
    """Colours that vary slowly, (side, side, 3) in 0..255."""
    few = np.random.default_rng(seed).uniform(0, 255, (4, 4, 3)).astype(np.float32)
    return np.clip(cv2.resize(few, (side, side), interpolation=cv2.INTER_CUBIC), 0, 255)


def scene(side: int) -> tuple[Bytes, Floats, Floats]:
    """A picture, its alpha and its foreground."""
    alpha, front, back = disc(side, 6), smooth(side, 1), smooth(side, 2)
    image = front * alpha[..., None] + back * (1 - alpha[..., None])
    return np.rint(image).astype(np.uint8), alpha, front


@dataclass
class Answering:
    """A session that gives one answer and remembers what it was fed."""

    answer: Floats
    batch: int | str = "batch"
    feeds: list[Floats] = field(default_factory=list)
    provider: str = "cpu"

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        return {"x": TensorSpec("float32", (self.batch, 3, 8, 8))}

    @property
    def outputs(self) -> Mapping[str, TensorSpec]:
        return {"y": TensorSpec("float32", (self.batch, 1, 8, 8))}

    def run(self, feeds: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        self.feeds.append(feeds["x"])
        return {"y": np.repeat(self.answer[None, None], len(feeds["x"]), axis=0)}


@dataclass
class Telling(Answering):
    """As Answering, and it gives colours too."""

    colors: Floats = field(default_factory=lambda: np.zeros((3, 8, 8), np.float32))

    def run(self, feeds: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return super().run(feeds) | {"z": np.repeat(self.colors[None], len(feeds["x"]), axis=0)}


def asked(session: Answering, **settings: Any) -> Matter:
    unit: dict[str, Any] = {
        "size": (8, 8),
        "mean": (0.0,) * 3,
        "std": (255.0,) * 3,
        "image": "x",
        "alpha": "y",
    }
    return Matter(session, Matting(**unit | settings))


# ---- the net ----


@pytest.mark.parametrize("size", [(256, 256), (512, 512), (301, 777), (1536, 256)])
def test_alpha_has_the_size_of_the_picture_and_lies_within_0_and_1(
    matter: Matter, size: tuple[int, int]
) -> None:
    (alpha,) = matter.alphas([noise(*size)])
    assert alpha.shape == size
    assert alpha.dtype == np.float32
    assert alpha.min() == 0
    assert alpha.max() == 1
    assert alpha[0, 0] == 0
    assert alpha[size[0] // 2, size[1] // 2] == 1


def test_pictures_of_a_batch_go_through_the_net_at_once_and_come_out_as_each_alone(matter: Matter) -> None:
    recording = tiny_pack.Recording(matter.session)
    pictures = [noise(256, 256), np.zeros((300, 200, 3), np.uint8), np.full((64, 64, 3), 255, np.uint8)]
    together = Matter(recording, matter.settings).alphas(pictures)
    assert [len(feed["image"]) for feed in recording.feeds] == [3]
    for picture, alpha in zip(pictures, together, strict=True):
        np.testing.assert_allclose(alpha, matter.alphas([picture])[0], atol=1e-6)


def test_a_net_that_takes_one_picture_gets_one_after_the_other() -> None:
    session = Answering(np.ones((8, 8), np.float32), batch=1)
    assert len(asked(session).alphas([noise(8, 8), noise(9, 9)])) == 2
    assert [len(feed) for feed in session.feeds] == [1, 1]


@pytest.mark.parametrize(
    ("answer", "given", "wanted"),
    [
        ("alpha", [-0.5, 0.25, 1.5], [0, 0.25, 1]),
        ("logits", [-100, 0, 100], [0, 0.5, 1]),
        ("scores", [2, 3, 6], [0, 0.25, 1]),
    ],
)
def test_alpha_is_what_the_answer_means(answer: str, given: list[float], wanted: list[float]) -> None:
    row = np.array(given, np.float32)
    picture = np.zeros((8, 8), np.float32) + row[0]
    picture[0, :3] = row
    (alpha,) = asked(Answering(picture), answer=answer).alphas([noise(8, 8)])
    np.testing.assert_allclose(alpha[0, :3], wanted, atol=1e-6)


def test_a_spread_picture_is_fed_with_its_brightest_value_as_white() -> None:
    session, picture = Answering(np.ones((8, 8), np.float32)), np.full((8, 8, 3), 100, np.uint8)
    picture[0, 0] = 200
    settings = {"mean": (127.5,) * 3, "std": (255.0,) * 3}
    asked(session, spread=True, **settings).alphas([picture])
    np.testing.assert_allclose(session.feeds[0][0, :, 0, 0], 0.5, atol=1e-6)
    np.testing.assert_allclose(session.feeds[0][0, :, 1, 1], 0.0, atol=1e-6)


def test_a_net_that_gives_nan_is_refused(matter: Matter) -> None:
    settings = matter.settings.model_copy(update={"mean": (float("nan"),) * 3})
    with pytest.raises(NumericalError, match="matting gave NaN"):
        Matter(matter.session, settings).alphas([noise(256, 256)])


def test_an_output_that_is_no_picture_is_refused_by_its_name() -> None:
    with pytest.raises(
        PackInvalid, match=r"output y has shape .*, expected .*; name the output that is alpha"
    ):
        asked(Answering(np.ones((4, 4), np.float32))).alphas([noise(8, 8)])


# ---- edges ----


def test_refined_alpha_follows_an_edge_that_the_net_has_blurred() -> None:
    truth = disc(256, 1)
    image = np.where(truth[..., None] > 0.5, (200, 60, 40), (30, 60, 160)).astype(np.uint8)
    blurred = cv2.GaussianBlur(truth, (0, 0), 6)
    refined = refine(image, blurred)
    assert np.square(refined - truth).mean() < np.square(blurred - truth).mean() / 2
    assert refined.dtype == np.float32
    assert refined.min() >= 0
    assert refined.max() <= 1


def test_refining_finds_thin_strands_that_the_net_has_missed() -> None:
    truth = disc(512, 1)
    truth[100:260:8, 256:430] = 1  # strands of one pixel that leave the disc
    image = np.where(truth[..., None] > 0.5, (40, 30, 20), (180, 200, 190)).astype(np.uint8)
    blurred = cv2.GaussianBlur(disc(512, 1), (0, 0), 8)
    before, after = (np.square(a - truth).mean() for a in (blurred, refine(image, blurred)))
    assert after < 0.8 * before


def test_one_near_pass_follows_an_edge_that_is_off_by_little_and_leaves_what_is_far_from_it() -> None:
    truth = disc(512, 1)
    image = np.where(truth[..., None] > 0.5, (200, 60, 40), (30, 60, 160)).astype(np.uint8)
    image[40:60, 40:60] = (200, 60, 40)  # a thing of the disc's own colour, far from it
    blurred = cv2.GaussianBlur(truth, (0, 0), 3)
    refined = refine_near(image, blurred)
    assert np.square(refined - truth).mean() < np.square(blurred - truth).mean() / 2
    assert refined[40:60, 40:60].max() == 0


def test_a_narrow_pass_sharpens_what_was_enlarged_and_keeps_a_line_as_dark_as_what_is_behind_it() -> None:
    y, x = np.mgrid[:1024, :1024] - 511.5
    truth = np.clip(400 - np.hypot(y, x) + 0.5, 0, 1).astype(np.float32)
    inside = np.clip(394 - np.hypot(y, x) + 0.5, 0, 1)[..., None]  # the rest of the disc is its outline
    image = (inside * (220, 150, 90) + (1 - inside) * 8).astype(np.uint8)
    small = cv2.resize(truth, (512, 512), interpolation=cv2.INTER_AREA)
    enlarged = cv2.resize(small, (1024, 1024), interpolation=cv2.INTER_LINEAR)
    ring = (np.hypot(y, x) > 395) & (np.hypot(y, x) < 399)
    lost = {fit: 1 - fit(image, enlarged)[ring].mean() for fit in (refine_narrow, refine_near)}
    assert lost[refine_narrow] < 0.7 * lost[refine_near]
    share = truth[..., None]
    image = (share * (200, 60, 40) + (1 - share) * (30, 60, 160)).astype(np.uint8)
    assert np.square(refine_narrow(image, enlarged) - truth).mean() < np.square(enlarged - truth).mean() / 2


@pytest.mark.parametrize(("wanted", "fit"), [(True, refine), ("near", refine_near), (False, None)])
def test_a_packs_alpha_is_refined_as_its_manifest_says(matter: Matter, wanted: Any, fit: Any) -> None:
    settings = matter.settings.model_copy(update={"refine": wanted})
    picture = noise(256, 256)
    asked_for = Matter(matter.session, settings)
    (alpha,) = asked_for.alphas([picture])
    fitted = alpha if fit is None else fit(picture, alpha)
    (found,) = CutOut(asked_for, "any").alphas([picture])
    np.testing.assert_allclose(found, np.clip((fitted - 0.02) / 0.96, 0, 1), atol=1e-6)


@pytest.mark.parametrize("side", [256, 300])
def test_beyond_what_the_net_sees_alone_its_alpha_is_refined_where_the_manifest_says_so(
    matter: Matter, side: int
) -> None:
    settings = matter.settings.model_copy(update={"refine": "beyond"})
    picture, asked_for = noise(side, side), Matter(matter.session, settings)
    (alpha,) = asked_for.alphas([picture])
    fitted = alpha if side == 256 else refine_narrow(picture, alpha)
    (found,) = CutOut(asked_for, "any").alphas([picture])
    np.testing.assert_allclose(found, np.clip((fitted - 0.02) / 0.96, 0, 1), atol=1e-6)


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_where_the_net_is_sure_of_everything_nothing_is_refined(level: float) -> None:
    alpha = np.full((200, 300), level, np.float32)
    np.testing.assert_array_equal(refine(noise(200, 300), alpha), alpha)


# ---- foreground colours ----


@pytest.mark.parametrize("side", [96, 200, FINEST])
def test_the_foreground_is_that_of_pymatting(side: int) -> None:
    """On grids that are solved to the end; larger pictures are held to the truth."""
    image, alpha, _ = scene(side)
    theirs = estimate_foreground_ml(image / 255, alpha) * 255
    ours = estimate_foreground(image, alpha)
    band = (alpha > 0.02) & (alpha < 0.98)
    weighted = np.abs(ours[band] - theirs[band]) * alpha[band][:, None]  # as much of it as is seen
    assert weighted.mean() < 1.0
    assert np.percentile(weighted, 99) < 6


@pytest.mark.parametrize("side", [FINEST, 512, 1100])
def test_the_foreground_is_nearer_to_the_truth_than_the_picture_is(side: int) -> None:
    image, alpha, front = scene(side)
    band = (alpha > 0.02) & (alpha < 0.98)
    ours, plain = (
        np.abs(one[band].astype(np.float32) - front[band]).mean()
        for one in (estimate_foreground(image, alpha), image)
    )
    assert ours < plain / 4


def test_on_larger_pictures_the_foreground_is_nearer_to_the_truth_than_pymattings() -> None:
    image, alpha, front = scene(512)
    band = (alpha > 0.02) & (alpha < 0.98)
    theirs = estimate_foreground_ml(image / 255, alpha) * 255
    ours, others = (
        (np.abs(one[band] - front[band]) * alpha[band][:, None]).mean()
        for one in (estimate_foreground(image, alpha).astype(np.float32), theirs)
    )
    assert ours < others


def test_the_foreground_is_the_picture_where_alpha_is_1_and_holds_no_background_where_it_is_0() -> None:
    image, alpha, _ = scene(256)
    ours = estimate_foreground(image, alpha)
    np.testing.assert_array_equal(ours[alpha >= 1], image[alpha >= 1])
    far = cv2.dilate((alpha > 0).astype(np.uint8), np.ones((5, 5), np.uint8)) == 0
    assert len(np.unique(ours[far], axis=0)) == 1


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_pictures_without_an_edge_have_a_foreground_too(level: float) -> None:
    image = noise(40, 60)
    ours = estimate_foreground(image, np.full((40, 60), level, np.float32))
    np.testing.assert_array_equal(ours, image if level else 0)


# ---- foreground colours that the net tells ----


def told(side: int) -> Told:
    """All of a scene of that size, as a net that is always right would tell it."""
    image, alpha, front = scene(side)
    return Told(image, alpha, np.asarray(front.transpose(2, 0, 1) / 255, np.float32))


def test_colours_that_the_net_tells_are_taken_as_they_are() -> None:
    image, alpha, front = scene(128)
    ours = told_foreground(image, alpha, told(128))
    band = (alpha > 0) & (alpha < 1)
    np.testing.assert_allclose(ours[band], front[band], atol=0.51)
    np.testing.assert_array_equal(ours[alpha >= 1], image[alpha >= 1])


@pytest.mark.parametrize("side", [128, 512])
def test_colours_told_of_a_smaller_picture_are_sharpened_by_the_larger_one(side: int) -> None:
    image, alpha, front = scene(side)
    band = (alpha > 0.02) & (alpha < 0.98)
    ours, plain = (
        np.abs(one[band].astype(np.float32) - front[band]).mean()
        for one in (told_foreground(image, alpha, told(side // 2)), image)
    )
    assert ours < plain / 4


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_where_there_is_no_edge_nothing_is_asked_of_the_colours(level: float) -> None:
    image = noise(128, 128)
    ours = told_foreground(image, np.full((128, 128), level, np.float32), told(128))
    np.testing.assert_array_equal(ours, image if level else 0)


def test_a_cut_out_has_the_colours_of_the_output_that_the_manifest_names() -> None:
    half, red = np.full((8, 8), 0.5, np.float32), np.zeros((3, 8, 8), np.float32)
    red[0] = 1
    session = Telling(half, colors=red)
    (rgba,) = CutOut(asked(session, refine=False, foreground="z"), "any").cut([noise(8, 8)], None)
    assert (rgba == (255, 0, 0, 128)).all()


def test_colours_that_are_no_picture_are_refused_by_their_name() -> None:
    session = Telling(np.ones((8, 8), np.float32), colors=np.ones((1, 8, 8), np.float32))
    with pytest.raises(PackInvalid, match=r"output z has shape .*; name the output that is the foreground"):
        asked(session, foreground="z").answers([noise(8, 8)])


# ---- compositing ----


def test_a_cut_out_is_straight() -> None:
    image, alpha = noise(8, 8), np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    rgba = straight(image, alpha)
    assert rgba.shape == (8, 8, 4)
    assert rgba.dtype == np.uint8
    np.testing.assert_array_equal(rgba[..., :3], image)
    np.testing.assert_array_equal(rgba[..., 3], np.rint(alpha * 255))


@pytest.mark.parametrize("color", ["#000000", "#ffffff", "#12ab7f"])
def test_a_colour_is_exact_where_alpha_is_0_and_the_picture_where_it_is_1(color: str) -> None:
    image, alpha = noise(8, 8), np.zeros((8, 8), np.float32)
    alpha[:, 4:] = 1
    result = over(image, alpha, color)
    wanted = [int(color[1:3], 16), int(color[3:5], 16), int(color[5:], 16)]
    assert (result[:, :4] == wanted).all()
    np.testing.assert_array_equal(result[:, 4:], image[:, 4:])


def test_half_white_over_black_is_half_the_light() -> None:
    white, half = np.full((1, 1, 3), 255, np.uint8), np.full((1, 1), 0.5, np.float32)
    assert over(white, half, "#000000")[0, 0].tolist() == [188, 188, 188]  # sRGB of 0.5


def test_every_colour_over_itself_is_itself() -> None:
    for code in range(256):
        image, half = np.full((1, 1, 3), code, np.uint8), np.full((1, 1), 0.37, np.float32)
        assert over(image, half, f"#{code:02x}{code:02x}{code:02x}")[0, 0].tolist() == [code] * 3


# ---- the whole stage ----


def test_nothing_of_the_old_background_is_left_in_the_rim() -> None:
    """A grey figure on pure green: its cut-out on black must not be green."""
    alpha = disc(512, 8)
    image = np.rint(128 * alpha[..., None] + np.array([0, 255, 0]) * (1 - alpha[..., None])).astype(np.uint8)
    cut, plain = (over(colors, alpha, "#000000") for colors in (estimate_foreground(image, alpha), image))
    green, before = (one[..., 1].astype(int) - one[..., ::2].max(axis=2).astype(int) for one in (cut, plain))
    assert before.max() > 50
    assert green.max() < 0.1 * before.max()


def test_no_pictures_are_no_cut_outs(selfie: CutOut) -> None:
    assert selfie.cut([], None) == ()


# ---- the default net ----


def test_the_selfie_segmentation_is_mediapipes_own() -> None:
    """Masks that mediapipe 0.10.21 itself, its TFLite interpreter, gave for the photos at 256x256."""
    masks, matter = np.load(MASKS), CutOut.open(None, "cpu").matter
    assert matter.settings == SELFIE_SETTINGS
    assert set(masks) == {"astronaut", "obama", "ardern", "macron"}
    for name in masks:
        small = cv2.resize(tiny_pack.photo(name), (256, 256), interpolation=cv2.INTER_AREA)
        (alpha,) = matter.alphas([small])
        np.testing.assert_allclose(alpha, masks[name].astype(np.float32), atol=1.5e-3)  # kept as float16


def test_the_selfie_segmentation_ships_and_is_small() -> None:
    assert 200_000 < SELFIE.stat().st_size < 260_000


def test_a_person_is_cut_out_of_a_photo_by_it(engine: AvatarEngine) -> None:
    photo = tiny_pack.photo("obama")
    rgba = engine.cut_out(photo, net="photo")
    height, width = photo.shape[:2]
    assert rgba.shape == (height, width, 4)
    assert rgba[int(height * 0.45), width // 2, 3] == 255
    assert rgba[5, 5, 3] == 0
    colored = engine.cut_out(photo, "#F0a", net="photo")
    assert colored[5, 5].tolist() == [255, 0, 170]


def test_the_engine_cuts_out_with_the_packs_net_or_says_what_it_takes(engine: AvatarEngine) -> None:
    rgba = engine.cut_out(noise(100, 140))
    assert rgba.shape == (100, 140, 4)
    assert rgba[0, 0, 3] == 0
    assert rgba[50, 70, 3] == 255
    with pytest.raises(InvalidRequest, match=r"bg_color: got 'red', allowed \"#RRGGBB\", \"#RGB\" or None"):
        engine.cut_out(noise(8, 8), "red")
    with pytest.raises(InvalidRequest, match="net: got 'best', allowed pack or photo"):
        engine.cut_out(noise(8, 8), net="best")  # type: ignore[arg-type]


def test_the_shipped_packs_net_cuts_a_drawn_figure_out_of_a_plain_background() -> None:
    from faceavatar.pack import EMBEDDED

    toon = CutOut.open(Pack.load(EMBEDDED / "toon"), "cpu")
    assert toon.net == "toon"
    y, x = np.mgrid[:512, :512]
    head = np.hypot(y - 220, x - 256) < 110
    body = (np.hypot((y - 520) / 1.1, (x - 256) / 1.3) < 170) & (y > 300)
    image = np.full((512, 512, 3), (70, 170, 200), np.uint8)
    image[body], image[head] = (200, 50, 60), (232, 190, 160)
    for x_eye in (220, 292):
        cv2.circle(image, (x_eye, 210), 12, (30, 25, 20), -1)
    cv2.ellipse(image, (256, 265), (36, 16), 0, 0, 180, (150, 40, 40), -1)
    (alpha,) = toon.alphas([image])
    truth = (head | body).astype(np.float32)
    assert np.square(alpha - truth).mean() < 0.03
