"""The tests' own packs, built once, and an engine for each."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_pack

from faceavatar import AvatarEngine


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
