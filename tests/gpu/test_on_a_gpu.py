"""On a machine with an NVIDIA GPU: its providers against the processor's, on the tests' own pack.

They have never run: no GPU was there when they were written. benchmarks/gpu/run.py does so at full width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_pack

from faceavatar import AvatarEngine, AvatarRequest
from faceavatar.backends import GPU_PROVIDERS, available_providers
from faceavatar_export.step_graph import add_step_graph

HERE = [name for name in available_providers() if name in GPU_PROVIDERS]
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not HERE, reason="no GPU provider works here")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny_pack.build(tmp_path_factory.mktemp("gpu") / "tiny")
    add_step_graph(folder)
    return folder


def request(**fields: Any) -> AvatarRequest:
    given: dict[str, Any] = {"image": tiny_pack.photo("astronaut"), "seed": 7, "height": 512, "width": 512}
    return AvatarRequest(**given | {"num_inference_steps": 6, "guidance_scale": 3.0} | fields)


def assert_same(ours: AvatarEngine, reference: AvatarEngine, asked: AvatarRequest) -> None:
    wanted, got = reference.generate(asked), ours.generate(asked)
    for one, other in zip(got.images, wanted.images, strict=True):
        assert int(np.abs(one.astype(int) - other).max()) <= 2


@pytest.mark.parametrize("provider", HERE)
@pytest.mark.parametrize("loop", [False, True])
def test_pictures_are_the_processors(folder: Path, provider: str, loop: bool) -> None:
    reference = AvatarEngine.load(folder, "cpu")
    engine = AvatarEngine.load(folder, provider, device_loop=loop)
    assert engine.provider == provider
    for asked in (request(batch=3), request(scheduler="unipc"), request(scheduler="euler_ancestral")):
        assert_same(engine, reference, asked)


@pytest.mark.parametrize("provider", HERE)
def test_recorded_launches_follow_every_change_of_shape_and_input(folder: Path, provider: str) -> None:
    reference = AvatarEngine.load(folder, "cpu")
    engine = AvatarEngine.load(folder, provider, cuda_graphs=True)
    for asked in (
        request(),
        request(batch=4),
        request(seed=8),
        request(guidance_scale=1.0),
        request(batch=4),
    ):
        assert_same(engine, reference, asked)


@pytest.mark.parametrize("provider", HERE)
def test_what_is_left_to_others_is_said_in_results(folder: Path, provider: str) -> None:
    engine = AvatarEngine.load(folder, provider)
    said = engine.generate(request()).warnings
    assert all(words in said for words in engine.unet.session.warnings)
