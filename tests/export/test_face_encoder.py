"""The toon pack's face encoder: what it measures, exports and learns from. Untrained nets."""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from faceavatar.face.align import TEMPLATES, similarity
from faceavatar.pack import find_pack
from faceavatar_export.toon import colors, face_data, photo_like
from faceavatar_export.toon.check_face_encoder import right
from faceavatar_export.toon.face_encoder import (
    FaceEncoder,
    export_face_encoder,
    rgb_to_lab,
    to_input,
)
from faceavatar_export.toon.identity import (
    STYLES,
    Identity,
    embed,
    sample_identity,
    sample_scene,
)
from faceavatar_export.toon.published_nets import AgeNet, GenderNet
from faceavatar_export.toon.train_face_encoder import Batch, disturb, losses
from faceavatar_export.toon.training import Average, save_checkpoint
from faceavatar_export.toon.warm_face_encoder import load_age, load_graph

PERSON = Identity(True, "#d29a6c", "#3a2619", "long", False, False, "none", "none")


@pytest.fixture(scope="module")
def model() -> FaceEncoder:
    torch.manual_seed(0)
    net = FaceEncoder()
    for norm in (m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        torch.nn.init.uniform_(norm.weight, 0.8, 1.2)
        torch.nn.init.uniform_(norm.bias, -0.1, 0.1)
        norm.running_mean.uniform_(-0.1, 0.1)
    return net.eval()


@pytest.fixture(scope="module")
def graph(model: FaceEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exported from a checkpoint whose averaged weights are `model` and whose own weights are others."""
    folder = tmp_path_factory.mktemp("onnx")
    save_checkpoint(folder / "c.pt", 1, 1.0, model=FaceEncoder(), average=Average(model))
    (folder / "out").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.export and its tree library warn about themselves
        export_face_encoder(folder / "c.pt", folder / "out" / "face_encoder.onnx")
    return folder / "out" / "face_encoder.onnx"


def flat_face(color: str) -> np.ndarray:
    """A plain disc of skin, three eye distances wide, before grey: (1, 128, 128, 3)."""
    y, x = np.mgrid[0:128, 0:128]
    inside = ((x - 64) / 22) ** 2 + ((y - 72) / 30) ** 2 < 1
    return np.where(inside[..., None], colors.hex_to_rgb(color), 90.0).astype(np.uint8)[None]


@pytest.mark.parametrize("batch", [1, 3])
def test_the_graph_equals_the_averaged_weights_for_any_batch(
    model: FaceEncoder, graph: Path, batch: int
) -> None:
    face = np.random.default_rng(batch).uniform(-1, 1, (batch, 3, 128, 128)).astype(np.float32)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    (embeds,) = session.run(["face_embeds"], {"aligned_face": face})
    with torch.no_grad():
        expected = model(torch.from_numpy(face)).numpy()
    assert embeds.shape == (batch, 24)
    np.testing.assert_allclose(embeds, expected, atol=1e-4)


def test_the_graph_is_one_small_file_with_named_ends(graph: Path) -> None:
    proto = onnx.load(graph, load_external_data=False)
    assert graph.stat().st_size < 2_500_000
    assert [i.name for i in proto.graph.input] == ["aligned_face"]
    assert [o.name for o in proto.graph.output] == ["face_embeds"]
    assert len(list(graph.parent.iterdir())) == 1


def test_switches_lie_within_one_and_unused_slots_are_empty(model: FaceEncoder) -> None:
    face = torch.rand(4, 3, 128, 128, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        e = model(face).numpy()
    assert np.all(e[:, 0] == 1)
    assert np.all(np.abs(e[:, 7:19]) <= 1)
    assert np.all(e[:, 19:] == 0)


@pytest.mark.parametrize("color", ["#ffe3cf", "#b57a4b", "#3d261b"])
def test_the_skin_of_a_plain_face_is_measured_exactly(model: FaceEncoder, color: str) -> None:
    with torch.no_grad():
        e = model(to_input(flat_face(color))).numpy()[0]
    np.testing.assert_allclose(e[1:4], embed(replace(PERSON, skin=color))[1:4], atol=2e-3)


def test_tensor_colors_agree_with_the_array_colors() -> None:
    rgb = np.random.default_rng(0).uniform(0, 255, (200, 3))
    rgb[:3] = [[0, 0, 0], [255, 255, 255], [3, 9, 11]]
    lab = rgb_to_lab(torch.from_numpy(rgb / 255)).numpy()
    np.testing.assert_allclose(lab, colors.rgb_to_lab(rgb), atol=1e-3)


def test_gender_is_the_same_in_a_mirror() -> None:
    torch.manual_seed(3)
    net, face = GenderNet(), torch.rand(2, 3, 128, 128)
    mirrored = torch.roll(face.flip(3), 1, 3)  # the face's middle stands half a pixel right of the picture's
    torch.testing.assert_close(net(face), net(mirrored), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("seed", range(6))
def test_photo_like_heads_show_what_their_labels_say(seed: int) -> None:
    rng = np.random.default_rng(seed)
    canvas = photo_like.draw(replace(PERSON, hair_color="#3f6fd0"), rng)
    assert canvas.rgb.shape == (128, 128, 3)
    assert canvas.rgb.min() >= 0
    assert canvas.rgb.max() <= 255
    assert canvas.hair.sum() > 100
    assert canvas.skin.sum() > 200
    hair, skin = (
        np.average(canvas.rgb.reshape(-1, 3), 0, m.ravel() ** 4) for m in (canvas.hair, canvas.skin)
    )
    assert hair[2] - hair[0] > skin[2] - skin[0] + 30  # blue hair is bluer than skin, whatever the light


def test_the_bald_and_shaven_have_no_hair() -> None:
    person = replace(PERSON, female=False, hair_length="bald")
    heads = [photo_like.draw(person, np.random.default_rng(s)).hair.sum() for s in range(8)]
    assert min(heads) == 0
    assert max(heads) < 300  # at most a ring above the ears


def test_a_seed_draws_the_same_head_again() -> None:
    first, second = (face_data.example(4, 7, 0.0) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


@pytest.mark.parametrize("headwear", ["beanie", "cap"])
def test_a_hat_covers_hair_and_leaves_the_face(headwear: str) -> None:
    person = replace(PERSON, female=False, hair_length="short")
    bare, covered = (
        [photo_like.draw(person, np.random.default_rng(seed), kind) for seed in range(8)]
        for kind in ("none", headwear)
    )
    assert sum(c.hair.sum() for c in covered) < 0.6 * sum(c.hair.sum() for c in bare)
    cheeks = [sum(c.skin[70:90, 50:78].sum() for c in heads) for heads in (bare, covered)]
    assert cheeks[1] > 0.9 * cheeks[0]


def test_age_is_seen_in_the_face_alone() -> None:
    young, old = (
        photo_like.draw(replace(PERSON, old=age), np.random.default_rng(5)).rgb for age in (False, True)
    )
    assert np.abs(young - old)[56:96, 48:80].mean() > 2


def test_a_drawing_tells_neither_curls_under_a_hat_nor_those_of_long_hair_in_ink() -> None:
    person = replace(PERSON, hair_length="short", curly=True)
    scene = replace(sample_scene(np.random.default_rng(0), "vector"), headwear="cap")
    assert face_data.told(person, scene)[11] == 0
    assert face_data.told(person, replace(scene, headwear="none"))[11] == 1
    inked = replace(scene, style="ink", headwear="none")
    assert face_data.told(replace(person, hair_length="long"), inked)[11] == 0
    np.testing.assert_array_equal(np.delete(face_data.told(person, scene), 11), np.delete(embed(person), 11))


def test_drawings_stray_in_training_as_they_do_where_the_detector_finds_them() -> None:
    template = TEMPLATES["head"] * (128 / 112)
    points = template * 3 + 17
    rng = np.random.default_rng(0)
    strayed = []
    for _ in range(400):
        seen = similarity(face_data.found_at(points, "storybook", rng), template)
        true = similarity(points, template)
        scale = np.hypot(*seen[:, 0]) / np.hypot(*true[:, 0])
        middle = seen[:, :2] @ points.mean(0) + seen[:, 2] - template.mean(0)
        strayed.append((np.log(scale), *middle))
    mean, deviation = face_data.STRAYS["storybook"]
    np.testing.assert_allclose(np.mean(strayed, 0), np.array(mean)[[0, 2, 3]], atol=0.5)
    np.testing.assert_allclose(np.std(strayed, 0), np.array(deviation)[[0, 2, 3]], rtol=0.35)


def test_what_a_picture_does_not_tell_is_not_learnt(model: FaceEncoder) -> None:
    face = to_input(np.repeat(flat_face("#b57a4b"), 2, 0))
    told = torch.from_numpy(np.repeat(embed(PERSON)[None], 2, 0))
    silent = told.clone()
    silent[:, 7:19] = 0
    rgb = torch.full((2, 3), 0.5)
    masks, kind = torch.zeros(2, 2, 64, 64), torch.tensor([1, 1])
    learnt = [
        losses(model, Batch(face, masks, e, kind, rgb, rgb), torch.Generator().manual_seed(0))["switches"]
        for e in (told, silent)
    ]
    assert learnt[0] > 1
    assert learnt[1] == 0


def test_a_network_read_back_from_its_graph_is_that_graph(model: FaceEncoder, graph: Path) -> None:
    again = FaceEncoder()
    faces = torch.rand(3, 3, 128, 128, generator=torch.Generator().manual_seed(2)) * 2 - 1
    load_graph(again, graph, faces)
    with torch.no_grad():
        np.testing.assert_allclose(again.eval()(faces), model(faces), atol=1e-3)


def test_a_graph_with_the_age_net_keeps_it_and_asks_it_about_photographs_alone(
    model: FaceEncoder, tmp_path: Path
) -> None:
    torch.manual_seed(4)
    age, sees_drawings = AgeNet(), copy.deepcopy(model)
    sees_drawings.head.bias.data[12] = -20
    save_checkpoint(tmp_path / "c.pt", 1, 1.0, average=Average(sees_drawings))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export_face_encoder(tmp_path / "c.pt", tmp_path / "face_encoder.onnx", age)
    assert (tmp_path / "face_encoder.onnx").stat().st_size < 3_600_000
    again = load_age(tmp_path / "face_encoder.onnx")
    assert again is not None
    face = to_input(flat_face("#b57a4b"))
    torch.testing.assert_close(again(face), age(face), atol=0.5, rtol=0)
    session = onnxruntime.InferenceSession(tmp_path / "face_encoder.onnx", providers=["CPUExecutionProvider"])
    (told,) = session.run(None, {"aligned_face": face.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(told, sees_drawings(face).numpy(), atol=0.05)


def test_a_graph_without_the_age_net_has_none(graph: Path) -> None:
    assert load_age(graph) is None


def test_a_graph_of_another_network_is_refused() -> None:
    pack = find_pack("toon") / "matting.onnx"
    with pytest.raises(ValueError, match="is it the same network"):
        load_graph(FaceEncoder(), pack, torch.zeros(2, 3, 128, 128))


def test_the_check_counts_only_what_a_picture_tells() -> None:
    wanted = embed(replace(PERSON, hair_length="bald"))
    wanted[11] = 0
    judged = right(wanted, embed(replace(PERSON, female=False, skin="#3d261b")))
    assert judged["curly"] is None
    assert judged["hair_color"] is None
    assert judged["glasses"] is True
    assert (judged["female"], judged["skin"], judged["hair_length"]) == (False, False, False)


@pytest.mark.parametrize("style", STYLES)
def test_drawn_heads_stand_in_the_head_alignment(style: str) -> None:
    rng = np.random.default_rng(2)
    identity = replace(sample_identity(rng), skin="#eab68c", beard="none", glasses="none")
    for framing in ("bust", "close-up"):
        scene = replace(sample_scene(rng), style=style, framing=framing)
        picture, masks, _ = face_data.drawn(identity, scene, None)
        assert picture.shape == (128, 128, 3)
        assert masks.shape == (128, 128, 2)
        cheeks = picture[70:84, 50:78].reshape(-1, 3).astype(float)
        assert np.abs(np.median(cheeks, 0) - colors.hex_to_rgb("#eab68c")).max() < 16


def test_a_training_step_lowers_nothing_to_nan_and_colors_follow_the_light(model: FaceEncoder) -> None:
    face = to_input(np.repeat(flat_face("#b57a4b"), 4, 0))
    rgb = torch.tensor(np.repeat(colors.hex_to_rgb("#b57a4b")[None], 4, 0) / 255).float()
    e = torch.from_numpy(np.repeat(embed(PERSON)[None], 4, 0))
    masks, kind = torch.zeros(4, 2, 64, 64), torch.tensor([0, 1, 2, 1])
    b = disturb(Batch(face, masks, e, kind, rgb, rgb), torch.Generator().manual_seed(0))
    middle = (b.face[:, :, 60:84, 60:68] * 0.5 + 0.5).mean((2, 3))
    assert (middle - b.skin).abs().median() < 0.02
    parts = losses(model, b, torch.Generator().manual_seed(0))
    assert all(bool(torch.isfinite(v)) for v in parts.values())
