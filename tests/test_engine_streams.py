"""A run that is watched: its steps, its previews, and what happens to one that is left."""

from __future__ import annotations

import time

import numpy as np
import pytest
from asking import ask, assert_same, recorded

from faceavatar import AvatarEngine


def test_the_stream_counts_its_steps_and_ends_with_the_result(engine: AvatarEngine) -> None:
    request = ask(num_inference_steps=5)
    steps = list(engine.stream(request))
    assert [step.index for step in steps] == [0, 1, 2, 3, 4]
    assert {step.total for step in steps} == {5}
    assert [step.timestep for step in steps] == sorted((step.timestep for step in steps), reverse=True)
    assert all(step.preview is None for step in steps)
    assert [step.result is None for step in steps] == [True] * 4 + [False]
    assert steps[0].seconds_left > 0
    assert steps[-1].seconds_left == 0
    assert steps[-1].result is not None
    assert_same(steps[-1].result, engine.generate(request))


@pytest.mark.parametrize("scheduler", ["dpmpp_2m", "ddim", "euler", "lcm"])
def test_previews_come_as_often_as_asked_and_near_the_result(engine: AvatarEngine, scheduler: str) -> None:
    request = ask(
        batch=2, num_inference_steps=20, preview_every=6, height=256, width=300, scheduler=scheduler
    )
    steps = list(engine.stream(request))
    shown = [step.index for step in steps if step.preview]
    assert shown == [5, 11, 17]
    result, late, early = steps[-1].result, steps[17].preview, steps[5].preview
    assert result is not None
    assert late is not None
    assert early is not None
    assert [image.shape for image in late] == [(256, 300, 3)] * 2
    gaps = [np.abs(seen[0].astype(int) - result.images[0]).mean() for seen in (early, late)]
    assert gaps[1] < gaps[0]
    assert gaps[1] < 12
    assert_same(result, engine.generate(request))


def test_leaving_the_loop_cancels_the_rest_and_the_engine_goes_on(engine: AvatarEngine) -> None:
    with recorded(engine) as sessions:
        for step in engine.stream(ask(num_inference_steps=50)):
            if step.index == 1:
                break
    assert len(sessions["unet"].feeds) == 2
    assert sessions["vae"].feeds == []
    assert engine.generate(ask()).images


def test_time_that_the_caller_takes_between_steps_is_not_counted(engine: AvatarEngine) -> None:
    for step in engine.stream(ask(num_inference_steps=3)):
        time.sleep(0.2)  # twice before the result is made
        last = step
    assert last.result is not None
    timings = last.result.timings
    assert timings["total"] - sum(timings[stage] for stage in timings if stage != "total") > 0.35
