"""InstantID on SDXL: a pack draws what diffusers draws, heeds both scales, and what cannot be is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import onnx
import pytest
import tiny_pack
import torch
from agreement import Exported, assert_proved, export
from numpy.typing import NDArray
from onnx import helper
from safetensors.torch import save_file

from faceavatar import AvatarEngine, AvatarRequest, InvalidRequest
from faceavatar.errors import PackInvalid
from faceavatar.face.keypoints import draw_keypoints
from faceavatar.manifest import read_manifest
from faceavatar.pack import Pack, verify
from faceavatar_export.diffusion.checkpoint import Checkpoint, open_checkpoint
from faceavatar_export.diffusion.export import export_pack
from faceavatar_export.diffusion.face_adapter import face_weights, read_face_adapter
from faceavatar_export.diffusion.graphs_of import _unet
from faceavatar_export.diffusion.instantid import InstantIdUNet, with_controlnet
from faceavatar_export.diffusion.options import Options
from faceavatar_export.diffusion.proof import (
    LARGEST_DIFFERENCE,
    Case,
    compare,
    engine_pictures,
    make_face,
    reference_pictures,
)

# The libraries' own deprecations while they export; what matters is measured.
pytestmark = pytest.mark.filterwarnings("ignore")
BLANK = np.zeros((8, 8, 3), np.uint8)
POINTS = np.array([[100, 90], [156, 92], [128, 128], [106, 160], [150, 158]], np.float32)
PLAIN = Case(256, 256, 1, 5.0, 2, "euler", face_scale=0.8, controlnet_scale=0.8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("instantid")


@pytest.fixture(scope="module")
def xl(folder: Path) -> Path:
    return checkpoints.sdxl(folder / "xl")


@pytest.fixture(scope="module")
def adapter(folder: Path, xl: Path) -> Path:
    return checkpoints.instantid(folder / "ip-adapter.bin", xl)


@pytest.fixture(scope="module")
def net(folder: Path, xl: Path) -> Path:
    return checkpoints.identity_net(folder / "ControlNetModel", xl)


@pytest.fixture(scope="module")
def made(folder: Path, xl: Path, adapter: Path, net: Path) -> Exported:
    """The one export of this file."""
    return export(xl, folder / "pack", adapter, controlnet=net)


@pytest.fixture(scope="module")
def engine(made: Exported) -> AvatarEngine:
    return AvatarEngine.load(made.pack, provider="cpu")


@pytest.fixture(scope="module")
def seeing(folder: Path, made: Exported) -> AvatarEngine:
    """The pack with a real detector and an encoder of random weights: it takes photos."""
    pack = folder / "seeing"
    shutil.copytree(made.pack, pack)
    weights = np.random.default_rng(4).standard_normal((3 * 14 * 14, 512)).astype(np.float32)
    nodes = [
        helper.make_node("AveragePool", ["aligned_face"], ["small"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Flatten", ["small"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["face_embeds"]),
    ]
    face = helper.make_tensor_value_info("aligned_face", onnx.TensorProto.FLOAT, ["batch", 3, 112, 112])
    embeds = helper.make_tensor_value_info("face_embeds", onnx.TensorProto.FLOAT, ["batch", 512])
    graph = helper.make_graph(
        nodes, "e", [face], [embeds], [onnx.numpy_helper.from_array(weights, "weights")]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    (pack / "face_encoder.onnx").write_bytes(model.SerializeToString())
    shutil.copyfile(tiny_pack.TOON / tiny_pack.DETECTOR, pack / tiny_pack.DETECTOR)

    def add(content: dict[str, Any]) -> None:
        for name in ("face_encoder.onnx", tiny_pack.DETECTOR):
            content["files"][name] = tiny_pack.file_entry(pack / name)
        content["graphs"]["face_encoder"] = tiny_pack._entry("face_encoder", model)
        content["face"] |= {
            "detector": {"kind": "yunet", "file": tiny_pack.DETECTOR},
            "alignment": {"kind": "arcface", "size": 112},
            "encoder": {"mean": [127.5] * 3, "std": [127.5] * 3},
        }

    tiny_pack.change_manifest(pack, add)
    return AvatarEngine.load(pack, provider="cpu")


def faces(count: int) -> NDArray[np.float32]:
    """Raw embeddings, of the length of real ones."""
    return np.random.default_rng(3).standard_normal((count, 512)).astype(np.float32)


def ask(**fields: Any) -> AvatarRequest:
    plain: dict[str, Any] = {
        "image": BLANK,
        "prompt": "a woman",
        "height": 256,
        "width": 256,
        "seed": 5,
        "num_inference_steps": 2,
    }
    return AvatarRequest(**plain | fields)


def difference(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> int:
    return int(np.abs(one.astype(int) - other).max())


def test_instantid_draws_what_diffusers_parts_draw(made: Exported) -> None:
    assert_proved(made)
    assert [row["controlnet_scale"] for row in made.report["pipeline"]] == [0.8] * 4
    assert verify(Pack.load(made.pack)) == []


def test_the_manifest_holds_the_authors_defaults(made: Exported) -> None:
    manifest = Pack.load(made.pack).manifest
    assert manifest.face is not None
    assert manifest.face.adapter.model_dump() == {
        "kind": "instantid",
        "tokens": 16,
        "embedding_size": 512,
        "normalize": False,
    }
    defaults = manifest.defaults
    assert (defaults.num_inference_steps, defaults.guidance_scale) == (30, 5.0)
    assert (defaults.face_scale, defaults.controlnet_scale) == (0.8, 0.8)
    assert {"control_image", "controlnet_scale"} <= set(manifest.graphs["unet"].inputs)


def test_batches_odd_sizes_guidance_and_both_scales_agree(
    xl: Path, adapter: Path, net: Path, engine: AvatarEngine
) -> None:
    cases = [
        replace(PLAIN, batch=3),
        replace(PLAIN, height=520, width=392),
        replace(PLAIN, guidance_scale=1.0),
        replace(PLAIN, face_scale=0.0),
        replace(PLAIN, controlnet_scale=0.3, negative_prompt=None),
        replace(PLAIN, scheduler="dpmpp_2m", num_inference_steps=4),
    ]
    assert_agree(engine, cases, with_controlnet(open_checkpoint(xl), net), cases, adapter)


def test_a_controlnet_scale_of_0_is_the_pipeline_without_a_controlnet(
    xl: Path, adapter: Path, engine: AvatarEngine
) -> None:
    cases = [replace(PLAIN, controlnet_scale=0.0), replace(PLAIN, controlnet_scale=0.0, guidance_scale=1.0)]
    without = [replace(case, controlnet_scale=None) for case in cases]
    assert_agree(engine, cases, open_checkpoint(xl), without, adapter)


def assert_agree(
    engine: AvatarEngine, cases: list[Case], checkpoint: Checkpoint, theirs: list[Case], adapter: Path
) -> None:
    held = read_face_adapter(adapter)
    face = make_face(held, 112)
    expected = reference_pictures(checkpoint, held, None, face, theirs, engine._schedule)
    for row in compare(cases, engine_pictures(engine, face, cases), expected):
        assert row["max_difference"] <= LARGEST_DIFFERENCE, row


def test_the_tokens_are_those_of_diffusers_own_resampler(
    xl: Path, adapter: Path, engine: AvatarEngine
) -> None:
    held, pipeline = read_face_adapter(adapter), open_checkpoint(xl).pipeline
    weights = {"image_proj": dict(held.image_proj), "ip_adapter": dict(held.ip_adapter)}
    pipeline.load_ip_adapter(weights, subfolder=None, weight_name=None, image_encoder_folder=None)
    assert engine.adapter is not None
    embeds = faces(1)
    with torch.inference_mode():
        both = torch.from_numpy(np.concatenate([np.zeros_like(embeds), embeds]))[:, None, None]
        none, seen = pipeline.unet.encoder_hid_proj([both])[0].numpy()
    np.testing.assert_allclose(engine.adapter.tokens(embeds), seen, atol=2e-5)
    np.testing.assert_allclose(engine.adapter.no_face(), none, atol=2e-5)
    assert np.abs(engine.adapter.tokens(embeds / 20) - seen).max() > 0.1  # the length is not divided out


def test_faces_places_and_scales_all_matter(engine: AvatarEngine) -> None:
    one, other = faces(2)

    def draw(face: Any, points: Any = POINTS, **fields: Any) -> NDArray[np.uint8]:
        result = engine.generate(ask(**fields), face_embeds=face, face_landmarks=points)
        return np.asarray(result.images[0])

    plain = draw(one)
    assert difference(plain, draw(other)) > 20
    assert difference(plain, draw(one, POINTS[:, ::-1])) > 10
    assert difference(plain, draw(one, controlnet_scale=0.2)) > 10
    assert difference(plain, draw(one, face_scale=0.2)) > 10
    np.testing.assert_array_equal(plain, draw(one, controlnet_scale=0.8, face_scale=0.8))  # the defaults
    off = {"controlnet_scale": 0.0, "face_scale": 0.0}
    np.testing.assert_array_equal(draw(one, **off), draw(other, POINTS[:, ::-1], **off))
    # The ControlNet sees the face's tokens, whatever the UNet's own share of them.
    assert difference(draw(one, face_scale=0.0), draw(other, face_scale=0.0)) > 10


def test_requests_drawn_together_keep_their_faces_places_and_scales(engine: AvatarEngine) -> None:
    one, other = faces(2)
    asked = [
        (ask(), one, POINTS),
        (ask(batch=2, seed=9, controlnet_scale=0.3), other, POINTS + 30),
    ]
    prepared = [engine.prepare(r, face_embeds=face, face_landmarks=points) for r, face, points in asked]
    assert prepared[0].key == prepared[1].key
    for (request, face, points), result in zip(asked, engine.generate_together(prepared), strict=True):
        alone = engine.generate(request, face_embeds=face, face_landmarks=points)
        assert result.request.controlnet_scale == alone.request.controlnet_scale
        for got, want in zip(result.images, alone.images, strict=True):
            assert difference(got, want) <= 1


def test_a_photos_face_is_drawn_where_the_photo_has_it(seeing: AvatarEngine) -> None:
    photo = tiny_pack.photo("astronaut")
    face = seeing.look(photo).face
    assert face is not None
    height, width = photo.shape[:2]
    fed = control_images(seeing, ask(image=photo, height=height // 2, width=width // 2))
    wanted = draw_keypoints(face.landmarks / 2, (height // 2, width // 2))
    assert fed.shape == (2, 3, height // 2, width // 2)  # both halves see it
    np.testing.assert_array_equal(fed[0], fed[1])
    np.testing.assert_array_equal(np.rint(fed[0] * 255).astype(np.uint8), wanted.transpose(2, 0, 1))


def test_handed_in_landmarks_replace_the_photos_and_keep_its_face(seeing: AvatarEngine) -> None:
    request = ask(image=tiny_pack.photo("astronaut"), height=260, width=257)
    fed = control_images(seeing, request, POINTS)
    # 264x264 are drawn, and cut to 257x260: two pixels above, three at the left.
    wanted = draw_keypoints(POINTS + np.array([3, 2]), (264, 264))
    np.testing.assert_array_equal(np.rint(fed[0] * 255).astype(np.uint8), wanted.transpose(2, 0, 1))
    result = seeing.generate(request, face_landmarks=POINTS)
    assert result.face is not None
    assert "the face's landmarks were handed in: it is drawn where they are" in result.warnings


def test_an_identity_is_drawn_where_its_photo_showed_the_face(seeing: AvatarEngine) -> None:
    photo = tiny_pack.photo("obama")
    identity = seeing.identity(photo).to_bytes()
    # Another aspect than the photo's, so that the box decides what of it is seen.
    request = ask(image=photo, height=256, width=320)
    fed = control_images(seeing, request)
    np.testing.assert_array_equal(control_images(seeing, request.model_copy(update={"image": identity})), fed)
    assert fed.any()
    other = seeing.generate(request.model_copy(update={"image": identity}))
    np.testing.assert_array_equal(other.images[0], seeing.generate(request).images[0])
    assert (other.face, other.warnings) == (None, ())


def control_images(engine: AvatarEngine, request: AvatarRequest, points: Any = None) -> NDArray[np.float32]:
    """The pictures that the UNet was fed with at the first step."""
    plain = engine.unet.session
    engine.unet.session = recording = tiny_pack.Recording(plain)
    try:
        engine.generate(request, face_landmarks=points)
    finally:
        engine.unet.session = plain
    return np.asarray(recording.feeds[0]["control_image"])


def test_half_precision_stays_close_to_full(xl: Path, adapter: Path, net: Path) -> None:
    held, outputs = read_face_adapter(adapter), []
    for dtype in ("fp32", "fp16"):
        plan = _unet(with_controlnet(open_checkpoint(xl), net), held, dtype)
        assert isinstance(plan.module, InstantIdUNet)
        inputs = plan.example(torch.Generator().manual_seed(1), (2, 9, 7))
        with torch.inference_mode():
            outputs.append(plan.module.eval()(*inputs.values()))
    full, half = outputs
    assert half.dtype == torch.float32
    assert 1e-5 < float((half - full).norm() / full.norm()) < 2e-2


def test_a_lone_controlnet_file_holds_the_same_net(xl: Path, net: Path, tmp_path: Path) -> None:
    file = tmp_path / "identity.safetensors"
    shutil.copyfile(net / "diffusion_pytorch_model.safetensors", file)
    folder, lone, beside = (
        with_controlnet(open_checkpoint(xl), path).controlnet
        for path in (net, file, net / "diffusion_pytorch_model.safetensors")
    )
    for other in (lone, beside):
        assert other.config.conditioning_embedding_out_channels == (8, 16, 16, 32) or list(
            other.config.conditioning_embedding_out_channels
        ) == [8, 16, 16, 32]
        assert other.state_dict().keys() == folder.state_dict().keys()
        assert all(torch.equal(value, folder.state_dict()[key]) for key, value in other.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cross_attention_dim": 64}, r"its cross_attention_dim is 64, the UNet's is 80"),
        ({"block_out_channels": (32, 64, 96)}, r"its block_out_channels is .*96.*, the UNet's is .*64, 64"),
    ],
)
def test_a_controlnet_of_another_model_is_refused(
    xl: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    other = checkpoints.identity_net(tmp_path / "other", xl, **changes)
    with pytest.raises(PackInvalid, match=rf"a ControlNet of another model: {words}"):
        with_controlnet(open_checkpoint(xl), other)


def test_a_unet_that_takes_the_guidance_scale_is_refused(xl: Path, net: Path) -> None:
    checkpoint = open_checkpoint(xl)
    checkpoint.pipeline.unet.register_to_config(time_cond_proj_dim=32)
    with pytest.raises(PackInvalid, match=r"takes the guidance scale as an input.*fuse LCM-LoRA with --lora"):
        with_controlnet(checkpoint, net)


def test_what_is_no_controlnet_is_refused(xl: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    save_file({"x": torch.ones(1)}, tmp_path / "other.safetensors")
    for name in ("empty", "other.safetensors"):
        with pytest.raises(
            PackInvalid, match=rf"{name}: cannot be read as a ControlNet in diffusers' layout"
        ):
            with_controlnet(open_checkpoint(xl), tmp_path / name)


def test_parts_that_do_not_belong_together_are_refused_before_any_work(
    xl: Path, adapter: Path, net: Path, folder: Path, tmp_path: Path
) -> None:
    sd = checkpoints.sd(tmp_path / "sd")
    faceid = checkpoints.face_adapter(tmp_path / "faceid.bin", xl, "faceid")
    said: list[str] = []

    def attempt(source: Path, **parts: Any) -> None:
        export_pack(Options(str(source), tmp_path / "pack", "pack", "CC0-1.0", **parts), said.append)

    with pytest.raises(InvalidRequest, match=r"--controlnet: got None, allowed the folder or file of Inst"):
        attempt(xl, face_adapter=adapter)
    with pytest.raises(InvalidRequest, match=r"nothing without InstantID's --face-adapter \(here: faceid\)"):
        attempt(xl, face_adapter=faceid, controlnet=net)
    with pytest.raises(InvalidRequest, match=r"nothing without InstantID's --face-adapter \(here: none\)"):
        attempt(xl, controlnet=net)
    with pytest.raises(PackInvalid, match=r"sd: a sd15 checkpoint, and InstantID is made for sdxl"):
        attempt(sd, face_adapter=adapter, controlnet=net)
    assert said == []
    assert not (tmp_path / "pack").exists()


def test_the_kind_is_told_by_the_keys_and_neither_option_nor_look_alike_changes_it(
    xl: Path, adapter: Path, tmp_path: Path
) -> None:
    assert read_face_adapter(adapter).kind == "instantid"
    with pytest.raises(InvalidRequest, match=r"got 'faceid', allowed instantid, by the keys of ip-adapter"):
        read_face_adapter(adapter, "faceid")
    plus = checkpoints.instantid(tmp_path / "ip-adapter-plus.bin", xl, seen=1280)
    with pytest.raises(
        PackInvalid, match=r"an IP-Adapter-Plus of pictures: its resampler reads 1280 numbers"
    ):
        read_face_adapter(plus)
    unet = open_checkpoint(checkpoints.sd(tmp_path / "sd")).pipeline.unet
    with pytest.raises(PackInvalid, match="made for another family"):
        face_weights(unet, read_face_adapter(adapter))


def test_landmarks_that_place_no_face_are_refused(engine: AvatarEngine) -> None:
    face = faces(1)
    wrong: list[tuple[Any, str]] = [
        (None, r"face_landmarks: got None, allowed numbers of shape \(5, 2\).*256x256.*beside face_embeds"),
        (POINTS[:3], r"face_landmarks: got 'float32 \(3, 2\)'"),
        (POINTS.astype(str), r"face_landmarks: got '<U32 \(5, 2\)'"),
        (
            POINTS + 150,
            r"face_landmarks: got 'x 250\.\.306, y 240\.\.310'.*in pixels of the picture asked for",
        ),
        (POINTS * np.nan, r"face_landmarks: got 'x nan"),
    ]
    for points, words in wrong:
        with pytest.raises(InvalidRequest, match=words):
            engine.generate(ask(), face_embeds=face, face_landmarks=points)


def test_packs_without_a_controlnet_refuse_its_scale_and_landmarks(sd_engine: AvatarEngine) -> None:
    with pytest.raises(
        InvalidRequest, match=r"controlnet_scale: got 0\.5, allowed None: the pack tiny has no ControlNet"
    ):
        sd_engine.generate(ask(controlnet_scale=0.5))
    with pytest.raises(InvalidRequest, match=r"face_landmarks: .* None: this pack has no ControlNet"):
        sd_engine.generate(ask(image=tiny_pack.photo("astronaut")), face_landmarks=POINTS)
    assert sd_engine.generate(ask(image=tiny_pack.photo("astronaut"))).request.controlnet_scale is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda content: content["defaults"].pop("controlnet_scale"),
            "the input control_image of unet and defaults.controlnet_scale go together",
        ),
        (lambda content: content["sizes"].update(native=[[1024, 1024]]), "sizes without native ones"),
    ],
)
def test_a_manifest_that_contradicts_its_controlnet_is_refused(
    made: Exported, tmp_path: Path, change: Callable[[dict[str, Any]], Any], words: str
) -> None:
    content = json.loads((made.pack / "pack.json").read_text(encoding="utf-8"))
    change(content)
    (tmp_path / "pack.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(PackInvalid, match=words):
        read_manifest(tmp_path / "pack.json")
