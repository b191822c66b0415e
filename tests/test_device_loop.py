"""The loop on a device walks the plain loop's path at every step, and keeps its manners."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny_pack
from tiny_pack import CONTEXT, SCHEDULE, TOKENS

from faceavatar import AvatarEngine, AvatarRequest
from faceavatar.backends import DeviceSession, open_session
from faceavatar.denoise import Conditions, Guidance, Noise, denoise
from faceavatar.device_loop import denoise_on_device
from faceavatar.errors import (
    DeadlineExceeded,
    InvalidRequest,
    MissingGraph,
    NumericalError,
    PackInvalid,
    SignatureMismatch,
)
from faceavatar.opening import stays_on_device
from faceavatar.pack import Pack
from faceavatar.schedulers import SCHEDULER_NAMES, NoiseSchedule, make_scheduler
from faceavatar.unet import StepUNet, UNet
from faceavatar.watch import Watch
from faceavatar_export.step_graph import add_step_graph, write_step_graph

SHAPE = (8, 8, 8)
ZERO_SNR = NoiseSchedule.from_manifest(SCHEDULE)
EPSILON = NoiseSchedule()
GUIDED = Guidance(5.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny_pack.build(tmp_path_factory.mktemp("step") / "tiny")
    add_step_graph(folder)
    return folder


@pytest.fixture(scope="module")
def unet(folder: Path) -> UNet:
    return UNet(open_session(folder / "unet.onnx", "cpu", threads=1))


@pytest.fixture(scope="module")
def step_unet(folder: Path) -> StepUNet:
    return open_step(folder)


def open_step(folder: Path) -> StepUNet:
    session = open_session(folder / "unet_step.onnx", "cpu", threads=1)
    assert isinstance(session, DeviceSession)
    return StepUNet(session)


def conditions(guided: bool = True, empty: bool = False) -> Conditions:
    draw = np.random.default_rng(5)
    text, no_text, empty_text = draw.normal(size=(3, 1, 77, CONTEXT)).astype(np.float32)
    face, no_face = draw.normal(size=(2, 1, TOKENS, CONTEXT)).astype(np.float32)
    if not guided:
        return Conditions(text, face, None, None, 0.8)
    return Conditions(text, face, no_text, no_face, 0.8, empty_text if empty else None)


def both(
    unet: UNet,
    step_unet: StepUNet,
    name: str,
    steps: int = 6,
    guidance: Guidance = GUIDED,
    given: Conditions | None = None,
    schedule: NoiseSchedule = EPSILON,
    clean: Any = None,
    start: int = 0,
) -> int:
    """Runs both loops side by side and compares all they tell; gives the number of steps."""
    given = given or conditions()
    loops: list[Any] = []
    for loop, net in ((denoise, unet), (denoise_on_device, step_unet)):
        noise = Noise([3, 4], SHAPE)
        scheduler = make_scheduler(name, schedule, steps)
        loops.append(loop(net, scheduler, noise(), given, guidance, noise, clean, start))  # type: ignore[arg-type]
    count = 0
    for plain, ours in zip(*loops, strict=True):
        assert (ours.index, ours.total, ours.timestep) == (plain.index, plain.total, plain.timestep)
        for part in ("latents", "before", "prediction"):
            expected = getattr(plain, part)
            reach = max(1.0, float(np.abs(expected).max()))
            np.testing.assert_allclose(getattr(ours, part), expected, atol=1e-4 * reach, rtol=0)
        count += 1
    return count


@pytest.mark.parametrize("name", SCHEDULER_NAMES)
def test_every_step_of_every_sampler_is_the_plain_loops(unet: UNet, step_unet: StepUNet, name: str) -> None:
    assert both(unet, step_unet, name) == 6


@pytest.mark.parametrize("name", ["ddim", "dpmpp_2m", "unipc"])
def test_velocity_and_zero_terminal_snr_are_walked_the_same_way(
    unet: UNet, step_unet: StepUNet, name: str
) -> None:
    both(unet, step_unet, name, schedule=ZERO_SNR)


@pytest.mark.parametrize("name", ["euler_ancestral", "unipc"])
def test_a_run_that_begins_with_a_picture_is_the_plain_loops(
    unet: UNet, step_unet: StepUNet, name: str
) -> None:
    clean = np.random.default_rng(1).normal(size=(2, *SHAPE)).astype(np.float32)
    assert both(unet, step_unet, name, steps=8, clean=clean, start=3) == 5


def test_without_guidance_the_wanted_half_runs_alone(unet: UNet, step_unet: StepUNet) -> None:
    both(unet, step_unet, "ddim", guidance=Guidance(1.0), given=conditions(guided=False))


def test_each_picture_keeps_its_own_guidance(unet: UNet, step_unet: StepUNet) -> None:
    scales = np.array([2.0, 9.0])[:, None, None, None]
    both(unet, step_unet, "dpmpp_2m", guidance=Guidance(scales))


def test_guidance_built_in_with_a_negative_prompt_runs_three_halves(unet: UNet, step_unet: StepUNet) -> None:
    both(unet, step_unet, "euler", guidance=Guidance(6.0, 3.5), given=conditions(empty=True))


def test_the_weights_of_the_halves_are_what_guidance_makes_of_predictions() -> None:
    predictions = np.random.default_rng(2).normal(size=(3, 2, 4, 5, 5)).astype(np.float32)
    for guidance, halves in ((Guidance(7.5), 2), (Guidance(4.0, 2.0), 3), (Guidance(1.0), 1)):
        weights = guidance.weights(halves, 2)
        assert weights.shape == (halves, 2, 1, 1, 1)
        summed = (predictions[:halves] * weights).sum(axis=0)
        np.testing.assert_allclose(summed, guidance.combine(list(predictions[:halves])), atol=1e-5)


def test_a_second_run_on_the_same_buffers_begins_afresh(unet: UNet, step_unet: StepUNet) -> None:
    for name in ("unipc", "unipc", "lcm", "unipc"):
        both(unet, step_unet, name)


def test_two_runs_at_once_do_not_touch_each_others_latents(step_unet: StepUNet) -> None:
    def run(seed: int) -> Any:
        noise = Noise([seed], SHAPE)
        scheduler = make_scheduler("dpmpp_2m", EPSILON, 4)
        return denoise_on_device(step_unet, scheduler, noise(), conditions(), Guidance(3.0), noise)

    alone = [step.latents for step in run(1)]
    woven = [first.latents for first, _ in zip(run(1), run(2), strict=True)]
    np.testing.assert_array_equal(woven, alone)


def test_a_steps_arrays_are_read_before_the_next_step_or_refused(step_unet: StepUNet) -> None:
    noise = Noise([1], SHAPE)
    scheduler = make_scheduler("ddim", EPSILON, 3)
    steps = denoise_on_device(step_unet, scheduler, noise(), conditions(), Guidance(3.0), noise)
    first = next(steps)
    kept = first.latents
    next(steps)
    assert first.latents is kept
    with pytest.raises(ValueError, match="read a step before asking for the next one"):
        _ = first.prediction


def test_some_pictures_of_a_step_are_their_rows(step_unet: StepUNet) -> None:
    noise = Noise([1, 2, 3], SHAPE)
    scheduler = make_scheduler("ddim", EPSILON, 3)
    steps = denoise_on_device(step_unet, scheduler, noise(), conditions(), Guidance(3.0), noise)
    step = next(steps)
    np.testing.assert_array_equal(step.of(slice(1, 3)).latents, step.latents[1:3])
    assert replace(step, index=7).of(slice(0, 1)).index == 7


def test_leaving_the_loop_gives_the_buffers_back(step_unet: StepUNet) -> None:
    noise = Noise([1, 2, 3, 4, 5], SHAPE)
    for _ in range(3):
        scheduler = make_scheduler("ddim", EPSILON, 50)
        steps = denoise_on_device(step_unet, scheduler, noise(), conditions(), Guidance(3.0), noise)
        next(steps)
        steps.close()  # type: ignore[attr-defined]
    pool = step_unet.session._pool  # type: ignore[attr-defined]
    assert len([shapes for shapes, _ in pool._free if shapes[0][0] == 5]) == 1


def test_nan_is_refused_with_the_step_it_came_at(tmp_path: Path) -> None:
    folder = tiny_pack.build(tmp_path / "poisoned", poison=True)
    add_step_graph(folder)
    noise = Noise([1], SHAPE)
    scheduler = make_scheduler("ddim", EPSILON, 4)
    with pytest.raises(NumericalError, match="unet gave NaN or infinite values at step 2"):
        next(
            denoise_on_device(
                *(open_step(folder), scheduler, noise(), conditions(), Guidance(3.0), noise),
                clean=noise(),
                start=2,
            )
        )


def test_latents_that_overflow_in_the_samplers_step_are_the_samplers_fault(step_unet: StepUNet) -> None:
    noise = Noise([1], SHAPE)
    scheduler = make_scheduler("ddim", EPSILON, 4)
    with pytest.raises(NumericalError, match="scheduler gave NaN or infinite values at step 0"):
        next(
            denoise_on_device(
                *(step_unet, scheduler, noise() * np.float32(1e37), conditions(), Guidance(3.0), noise)
            )
        )


def test_a_step_that_overflows_below_fp32_is_done_again_in_fp32_and_said(tmp_path: Path, unet: UNet) -> None:
    folder = tiny_pack.build(tmp_path / "poisoned", poison=True)
    add_step_graph(folder)
    poisoned = open_step(folder)
    poisoned.session.precision = "fp16"  # type: ignore[misc]
    poisoned.in_fp32 = lambda: unet.session
    watch = Watch()
    with watch.worn():
        both(unet, poisoned, "unipc")
    assert [(rerun.stage, rerun.precision) for rerun in watch.take()] == [("unet", "fp16")] * 6


def test_a_deadline_ends_the_run_before_the_next_step(step_unet: StepUNet) -> None:
    noise, asked = Noise([1], SHAPE), []
    scheduler = make_scheduler("ddim", EPSILON, 4)
    steps = denoise_on_device(step_unet, scheduler, noise(), conditions(), Guidance(3.0), noise)
    with Watch(check=lambda: asked.append("unet")).worn():
        next(steps)
        next(steps)
    assert len(asked) == 2
    watch = Watch(timeout=1e-9)
    with watch.worn(), pytest.raises(DeadlineExceeded):
        next(steps)


def test_the_step_graph_names_the_unets_weights_and_holds_none(tmp_path: Path) -> None:
    tiny_pack.build(tmp_path / "pack")
    path = tmp_path / "pack" / "unet.onnx"
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="unet.onnx.data", size_threshold=64)
    write_step_graph(path, path.with_name("unet_step.onnx"))
    step = onnx.load(path.with_name("unet_step.onnx"), load_external_data=False)
    places = {entry.value for one in step.graph.initializer for entry in one.external_data[:1]}
    assert places == {"unet.onnx.data"}
    given = open_step(path.parent).session.inputs
    assert given["state"].shape == (4, "pictures", 8, "height", "width")
    assert given["timestep"].shape == ("rows",)


def test_a_pack_names_its_step_graph_and_verifies_with_it(folder: Path) -> None:
    pack = Pack.load(folder)
    assert pack.graph("unet_step").file == "unet_step.onnx"
    assert isinstance(pack.open("unet_step", "cpu"), DeviceSession)


def test_a_step_graph_of_another_unet_is_refused_when_the_manifest_is_read(
    folder: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(folder, tmp_path / "other")

    def drop(content: dict[str, Any]) -> None:
        for name in ("face_tokens", "face_scale"):
            del content["graphs"]["unet_step"]["inputs"][name]

    tiny_pack.change_manifest(copy, drop)
    with pytest.raises(SignatureMismatch, match=r"\(face_scale, face_tokens differ\); write it again"):
        Pack.load(copy)


def test_a_graph_that_is_no_unet_gets_no_step_graph(folder: Path) -> None:
    with pytest.raises(PackInvalid, match="expected a pack's UNet"):
        write_step_graph(folder / "vae_decoder.onnx", folder / "x.onnx")


def request(**fields: Any) -> AvatarRequest:
    given: dict[str, Any] = {"image": tiny_pack.photo("astronaut"), "seed": 7, "height": 512, "width": 512}
    return AvatarRequest(**given | {"num_inference_steps": 4, "guidance_scale": 3.0} | fields)


@pytest.fixture(scope="module")
def engines(folder: Path) -> tuple[AvatarEngine, AvatarEngine]:
    """One that steps on the host, one that stays on the device."""
    return AvatarEngine.load(folder, "cpu"), AvatarEngine.load(folder, "cpu", device_loop=True)


def test_an_engine_on_the_device_draws_what_the_engine_draws(
    engines: tuple[AvatarEngine, AvatarEngine],
) -> None:
    plain, on_device = engines
    assert isinstance(on_device.unet, StepUNet)
    assert isinstance(plain.unet, UNet)
    for fields in ({"batch": 3}, {"scheduler": "unipc"}, {"guidance_scale": 1.0, "scheduler": "lcm"}):
        wanted, got = (engine.generate(request(**fields)) for engine in engines)
        for ours, theirs in zip(got.images, wanted.images, strict=True):
            assert int(np.abs(ours.astype(int) - theirs).max()) <= 1


def test_previews_are_the_plain_loops(engines: tuple[AvatarEngine, AvatarEngine]) -> None:
    asked = request(preview_every=2, batch=2)
    for wanted, got in zip(*(engine.stream(asked) for engine in engines), strict=True):
        assert (wanted.preview is None) == (got.preview is None)
        for ours, theirs in zip(got.preview or (), wanted.preview or (), strict=True):
            assert int(np.abs(ours.astype(int) - theirs).max()) <= 1


def test_requests_drawn_together_on_the_device_get_their_own_pictures(
    engines: tuple[AvatarEngine, AvatarEngine],
) -> None:
    on_device = engines[1]
    asked = [request(seed=1, batch=2), request(seed=5, guidance_scale=8.0)]
    together = on_device.generate_together([on_device.prepare(one) for one in asked])
    for one, result in zip(asked, together, strict=True):
        for ours, alone in zip(result.images, on_device.generate(one).images, strict=True):
            assert int(np.abs(ours.astype(int) - alone).max()) <= 1


def test_a_stream_left_early_leaves_the_engine_ready(engines: tuple[AvatarEngine, AvatarEngine]) -> None:
    on_device = engines[1]
    for step in on_device.stream(request()):
        if step.index == 1:
            break
    assert len(on_device.generate(request()).images) == 1


def test_an_engine_steps_on_the_host_unless_asked_where_there_is_no_gpu(
    engines: tuple[AvatarEngine, AvatarEngine], tiny: Path
) -> None:
    assert stays_on_device(engines[0].pack, "cuda", None)
    assert not stays_on_device(engines[0].pack, "cuda", False)
    assert not stays_on_device(engines[0].pack, "cpu", None)
    with pytest.raises(MissingGraph, match=r"python -m faceavatar_export\.step_graph PACK"):
        AvatarEngine.load(tiny, "cpu", device_loop=True)
    with pytest.raises(InvalidRequest, match="cuda_graphs: got True, allowed False with provider 'cpu'"):
        AvatarEngine.load(engines[0].pack.folder, "cpu", device_loop=True, cuda_graphs=True)


def test_a_guidance_interval_gives_the_plain_loops_results(unet: UNet, step_unet: StepUNet) -> None:
    guidance = replace(GUIDED, interval=(0.25, 0.75))
    made = []
    for loop, net in ((denoise, unet), (denoise_on_device, step_unet)):
        noise, scheduler = Noise([1, 2], SHAPE), make_scheduler("dpmpp_2m", ZERO_SNR, 8)
        steps: Any = loop(net, scheduler, noise(), conditions(), guidance, noise)  # type: ignore[operator]
        made.append([np.array(step.latents) for step in steps])
    np.testing.assert_allclose(made[0], made[1], atol=1e-4)


def test_step_caching_is_the_plain_loops(engines: tuple[AvatarEngine, AvatarEngine]) -> None:
    with pytest.raises(InvalidRequest, match=r"step_cache: got 2, allowed 1: .* device_loop=False"):
        engines[1].generate(request(step_cache=2))
