"""The tests' own packs, built once, and an engine for each."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
import tiny_pack

from faceavatar import AvatarEngine


def pytest_configure(config: pytest.Config) -> None:
    """One core for each of several test processes: engines that all take every core starve one another.

    The tests' hashes go where the tests' other files go, and those of this user are not believed.
    """
    os.environ["FACEAVATAR_CACHE"] = os.path.join(tempfile.gettempdir(), f"faceavatar-tests-{os.getuid()}")
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is not None and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a pack of the embedded pack's form: it draws 512x512 only. Not to be changed."""
    return tiny_pack.build(tmp_path_factory.mktemp("packs") / "tiny")


@pytest.fixture(scope="session")
def tiny_sd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a pack of Stable Diffusion's form: any multiple of 8. Not to be changed."""
    return tiny_pack.build(tmp_path_factory.mktemp("packs") / "tiny-sd", tiny_pack.SD_LIKE)


@pytest.fixture(scope="session")
def engine(tiny: Path) -> AvatarEngine:
    return AvatarEngine.load(tiny, provider="cpu")


@pytest.fixture(scope="session")
def sd_engine(tiny_sd: Path) -> AvatarEngine:
    return AvatarEngine.load(tiny_sd, provider="cpu")
