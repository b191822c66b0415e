"""The engines that the suites here measure: the toon pack, and a small pack of Stable Diffusion's form.

    pip install -e '.[test,bench]' && pytest benchmarks/ --benchmark-json stages.json

tests/tiny_pack.py builds the small one: its arithmetic is next to nothing, so what its suite measures is what
this project adds to the graphs.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_pack

from faceavatar import AvatarEngine


@pytest.fixture(scope="session")
def toon() -> AvatarEngine:
    return AvatarEngine.load("toon", provider="cpu").wait_until_open()


@pytest.fixture(scope="session")
def tiny_sd(tmp_path_factory: pytest.TempPathFactory) -> AvatarEngine:
    folder = tiny_pack.build(tmp_path_factory.mktemp("packs") / "tiny-sd", tiny_pack.SD_LIKE)
    return AvatarEngine.load(folder, provider="cpu").wait_until_open()


@pytest.fixture(scope="session")
def photo() -> Path:
    return Path(__file__).parents[1] / "tests" / "fixtures" / "photos" / "astronaut.jpg"
