"""The whole trip on real graphs: what is asked for comes out, exactly, and the same every time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import tiny_pack
import torch
from asking import OTHER, PHOTO, ask, assert_same, difference, recorded, runs
from numpy.typing import NDArray
from tiny_pack import SCHEDULE

from faceavatar import AvatarEngine, AvatarRequest, AvatarResult, read_metadata
from faceavatar.errors import (
    ImageError,
    InvalidRequest,
    NoFaceFound,
    NumericalError,
    PackNotFound,
    ProviderUnavailable,
)
from faceavatar.image import to_uint8


def test_a_photo_alone_gives_one_avatar_and_says_how(engine: AvatarEngine) -> None:
    result = engine.generate(AvatarRequest(image=str(PHOTO)))
    (image,) = result.images
    assert image.shape == (512, 512, 3)
    assert image.dtype == np.uint8
    assert image.std() > 10
    assert len(result.seeds) == 1
    assert (result.pack, result.pack_version) == ("tiny", "0.0.1")
    assert result.face.faces_found == 1
    assert result.face.others == ()
    assert result.warnings == ()
    stages = {"load_image", "detect", "embed", "text", "encode", "denoise", "decode", "matting", "total"}
    assert set(result.timings) == stages
    assert 0 < sum(result.timings[stage] for stage in stages - {"total"}) <= result.timings["total"]


def test_the_same_request_gives_the_same_bytes_twice_and_from_a_fresh_engine(
    engine: AvatarEngine, tiny: Path
) -> None:
    request = ask(batch=2, guidance_scale=4.0, scheduler="euler_ancestral", remove_background=True)
    first = engine.generate(request)
    assert_same(first, engine.generate(request))
    assert_same(first, AvatarEngine.load(tiny, provider="cpu").generate(request))


def test_image_3_of_a_batch_equals_the_same_seed_alone(engine: AvatarEngine) -> None:
    batch = engine.generate(ask(batch=8, seed=40))
    assert batch.seeds == tuple(range(40, 48))
    alone = engine.generate(ask(seed=43))
    assert difference(batch.images[3], alone.images[0]) <= 1


def test_a_changed_batch_size_changes_no_picture(engine: AvatarEngine) -> None:
    large = engine.generate(ask(batch=5, scheduler="euler_ancestral"))
    small = engine.generate(ask(batch=2, scheduler="euler_ancestral"))
    for one, other in zip(small.images, large.images, strict=False):
        assert difference(one, other) <= 1


def test_requests_of_several_callers_drawn_together_are_each_drawn_as_alone(engine: AvatarEngine) -> None:
    requests = [
        ask(prompt="a laughing woman", guidance_scale=4.0, scheduler="euler_ancestral", batch=2),
        ask(image=OTHER, prompt="a man", guidance_scale=9.0, scheduler="euler_ancestral", seed=7),
        ask(
            image=OTHER,
            prompt="a man " * 50,
            guidance_scale=4.0,
            scheduler="euler_ancestral",
            bg_color="#123",
        ),
    ]
    prepared = [engine.prepare(request) for request in requests[:2]]
    assert prepared[0].key == prepared[1].key
    assert_alone(engine, requests[:2], engine.generate_together(prepared))
    longer = [engine.prepare(requests[2]), engine.prepare(requests[2].model_copy(update={"seed": 9}))]
    assert longer[0].key != prepared[0].key  # a long prompt is read in several windows
    assert_alone(engine, [longer[0].plan.request, longer[1].plan.request], engine.generate_together(longer))


def assert_alone(
    engine: AvatarEngine, requests: list[AvatarRequest], together: tuple[AvatarResult, ...]
) -> None:
    for request, result in zip(requests, together, strict=True):
        alone = engine.generate(request)
        assert (result.seeds, result.warnings, result.request) == (alone.seeds, alone.warnings, alone.request)
        for one, other in zip(result.images, alone.images, strict=True):
            assert difference(one, other) <= 1


def test_requests_drawn_together_have_equal_keys_or_are_refused(engine: AvatarEngine) -> None:
    plain = engine.prepare(ask())
    for change in ({"num_inference_steps": 3}, {"scheduler": "euler"}, {"face_scale": 0.5}):
        other = engine.prepare(ask(**change))
        with pytest.raises(
            InvalidRequest, match=r"got .2 requests of 2 kinds., allowed one or more requests with equal keys"
        ):
            engine.stream_together([plain, other])
    with pytest.raises(InvalidRequest, match="0 requests"):
        engine.generate_together([])


def test_the_seeds_of_a_batch_differ_and_wrap_around(engine: AvatarEngine) -> None:
    result = engine.generate(ask(batch=3, seed=2**32 - 2))
    assert result.seeds == (2**32 - 2, 2**32 - 1, 0)
    assert difference(result.images[0], result.images[1]) > 20
    assert difference(result.images[2], engine.generate(ask(seed=0)).images[0]) <= 1


def test_a_seed_that_was_drawn_is_reported_and_makes_the_same_picture(engine: AvatarEngine) -> None:
    drawn = engine.generate(ask(seed=None))
    assert drawn.request.seed == drawn.seeds[0]
    assert_same(drawn, engine.generate(ask(seed=drawn.seeds[0])))
    assert engine.generate(ask(seed=None)).seeds != drawn.seeds


@pytest.mark.parametrize("size", [(256, 256), (512, 512), (257, 1001), (1536, 259), (640, 513), (1536, 1536)])
def test_any_size_comes_out_exactly_as_asked_for(
    engine: AvatarEngine, sd_engine: AvatarEngine, size: tuple[int, int]
) -> None:
    for made_by in (engine, sd_engine):
        result = made_by.generate(
            ask(height=size[0], width=size[1], num_inference_steps=1, remove_background=True)
        )
        assert result.images[0].shape == (*size, 4)
        assert (result.height, result.width) == size


def test_a_pack_of_one_native_size_draws_at_it_and_one_of_multiples_just_above(
    engine: AvatarEngine, sd_engine: AvatarEngine
) -> None:
    for made_by, latent_size in ((engine, (8, 8)), (sd_engine, (33, 126))):
        with recorded(made_by) as sessions:
            made_by.generate(ask(height=257, width=1001, num_inference_steps=1))
        assert sessions["unet"].feeds[0]["sample"].shape[2:] == latent_size


def test_rounding_up_to_a_multiple_costs_no_sharpness_only_a_margin(sd_engine: AvatarEngine) -> None:
    draw = np.random.default_rng(0).standard_normal((1, 4, 33, 33), np.float32)
    whole = sd_engine.generate(ask(height=264, width=264), draw).images[0]
    cropped = sd_engine.generate(ask(height=257, width=260), draw).images[0]
    np.testing.assert_array_equal(cropped, whole[3:260, 2:262])


def test_injecting_the_noise_that_the_seeds_would_draw_changes_nothing(engine: AvatarEngine) -> None:
    noise = [np.random.Generator(np.random.PCG64(seed)) for seed in (1, 2)]
    latents = np.stack([draw.standard_normal((8, 8, 8), np.float32) for draw in noise])
    for scheduler in ("dpmpp_2m", "euler_ancestral"):
        request = ask(batch=2, scheduler=scheduler)
        injected = engine.generate(request, latents)
        assert_same(engine.generate(request), injected)
        assert injected.warnings == ("made from injected latents: the seed alone does not repeat it",)


@pytest.mark.parametrize(
    "latents",
    [
        np.zeros((1, 8, 8, 8), np.float32),
        np.zeros((2, 4, 8, 8), np.float32),
        np.zeros((2, 8, 64, 64), np.float32),
        np.zeros((2, 8, 8, 8), np.int64),
        np.full((2, 8, 8, 8), np.inf, np.float32),
    ],
    ids=["batch", "channels", "size", "integers", "infinite"],
)
def test_wrong_latents_are_refused_before_any_model_runs(
    engine: AvatarEngine, latents: NDArray[np.float32]
) -> None:
    with recorded(engine) as sessions, pytest.raises(InvalidRequest, match=r"latents: .*\(2, 8, 8, 8\)"):
        engine.stream(ask(batch=2), latents)
    assert runs(sessions) == 0


def test_bad_input_costs_no_model_run(engine: AvatarEngine, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no picture", encoding="utf-8")
    wrong: list[tuple[type[Exception], Callable[[], object]]] = [
        (InvalidRequest, lambda: engine.generate(ask(height=100))),
        (InvalidRequest, lambda: engine.generate(ask(scheduler="heun"))),
        (InvalidRequest, lambda: engine.generate(ask(image="missing.jpg"))),
        (InvalidRequest, lambda: engine.generate(ask(face_index=3))),
        (ImageError, lambda: engine.generate(ask(image=tmp_path / "text.jpg"))),
        (NoFaceFound, lambda: engine.generate(ask(image=np.zeros((300, 300, 3), np.uint8)))),
    ]
    with recorded(engine) as sessions:
        for error, call in wrong:
            with pytest.raises(error):
                call()
    assert runs(sessions) == 0


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")
def test_the_engine_ends_where_a_pipeline_with_diffusers_scheduler_on_the_same_graphs_ends(
    engine: AvatarEngine,
) -> None:
    latents = np.random.default_rng(3).standard_normal((2, 8, 8, 8), np.float32)
    with recorded(engine) as sessions:
        ours = engine.generate(ask(batch=2, num_inference_steps=12, guidance_scale=3.5), latents)
    feed = sessions["unet"].feeds[0]
    kept = {name: feed[name] for name in ("encoder_hidden_states", "face_tokens", "face_scale")}
    config = {key: value for key, value in SCHEDULE.items() if key not in ("name", "set_alpha_to_one")}
    kind: Any = diffusers.DPMSolverMultistepScheduler
    scheduler = kind(**config, algorithm_type="dpmsolver++")
    scheduler.set_timesteps(12)
    sample = torch.from_numpy(latents) * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        batch = scheduler.scale_model_input(torch.cat([sample] * 2), timestep).numpy()
        times = np.full(4, int(timestep))
        prediction = engine.unet.session.run({"sample": batch, "timestep": times, **kept})["noise_pred"]
        without, wanted = torch.from_numpy(prediction).chunk(2)
        sample = scheduler.step(without + 3.5 * (wanted - without), timestep, sample).prev_sample
    theirs = engine.vae.session.run({"latents": sample.numpy() / 0.5 + np.float32(0.1)})["image"]
    for one, other in zip(ours.images, to_uint8(theirs), strict=True):
        assert difference(one, other) <= 1


def test_a_net_that_divides_by_zero_is_refused_with_its_step(tmp_path: Path) -> None:
    poisoned = AvatarEngine.load(tiny_pack.build(tmp_path / "poisoned", poison=True), provider="cpu")
    with pytest.raises(NumericalError, match="unet gave NaN or infinite values at step 0"):
        poisoned.generate(ask())


def test_several_threads_may_share_an_engine(engine: AvatarEngine) -> None:
    requests = [
        ask(seed=seed, image=image, prompt="a pirate") for seed in range(3) for image in (PHOTO, OTHER)
    ]
    alone = [engine.generate(request) for request in requests]
    with ThreadPoolExecutor(4) as pool:
        for one, other in zip(alone, pool.map(engine.generate, requests), strict=True):
            assert_same(one, other)


def test_a_saved_picture_carries_what_makes_it_again(engine: AvatarEngine, tmp_path: Path) -> None:
    result = engine.generate(ask(batch=3, seed=None))
    path = result.save(tmp_path)[2]
    again = AvatarRequest.from_metadata(read_metadata(path)["request"])
    assert again.num_inference_steps == 4
    assert difference(engine.generate(again).images[0], result.images[2]) <= 1


def test_an_unknown_pack_or_provider_is_refused_by_name(tiny: Path) -> None:
    with pytest.raises(PackNotFound, match="nobody"):
        AvatarEngine.load("nobody")
    with pytest.raises(ProviderUnavailable, match="tpu"):
        AvatarEngine.load(tiny, provider="tpu")


def test_the_provider_in_use_is_told(engine: AvatarEngine) -> None:
    assert engine.provider == engine.unet.session.provider == "cpu"


def test_the_thread_count_changes_no_picture(engine: AvatarEngine, tiny: Path) -> None:
    single = AvatarEngine.load(tiny, provider="cpu", threads=1)
    assert difference(single.generate(ask()).images[0], engine.generate(ask()).images[0]) <= 1


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2", True])
def test_a_count_of_threads_that_is_none_is_refused(tiny: Path, threads: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"threads: got .*, allowed a whole number from 1"):
        AvatarEngine.load(tiny, provider="cpu", threads=threads)
