"""`import faceavatar` is quick, and brings nothing that belongs to training or exporting."""

from __future__ import annotations

import subprocess
import sys

import pytest

import faceavatar

HEAVY = {"torch", "transformers", "diffusers", "onnx", "scipy", "skimage"}
LIMIT_SECONDS = 0.4


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=True, timeout=120
    )


def own_import_seconds() -> float:
    """The cumulative time that -X importtime reports for faceavatar itself."""
    report = run("-X", "importtime", "-c", "import faceavatar").stderr
    line = next(line for line in report.splitlines() if line.endswith("| faceavatar"))
    return int(line.split("|")[1]) / 1e6


def test_importing_faceavatar_takes_less_than_four_tenths_of_a_second() -> None:
    assert min(own_import_seconds() for _ in range(3)) < LIMIT_SECONDS


@pytest.mark.parametrize("names", ["AvatarRequest", "AvatarResult, Step, FaceInfo", "AvatarEngine"])
def test_no_name_brings_torch_or_its_kin(names: str) -> None:
    loaded = run("-c", f"import sys; from faceavatar import {names}; print(*sys.modules)").stdout.split()
    assert not HEAVY & set(loaded)


def test_importing_faceavatar_alone_loads_neither_numpy_nor_onnxruntime() -> None:
    loaded = run("-c", "import sys, faceavatar; print(*sys.modules)").stdout.split()
    assert not {"numpy", "pydantic", "cv2", "onnxruntime", "PIL", "tokenizers"} & set(loaded)


def test_every_public_name_is_there_and_listed() -> None:
    for name in faceavatar.__all__:
        assert getattr(faceavatar, name) is not None
    assert set(faceavatar.__all__) <= set(dir(faceavatar))


def test_a_name_that_does_not_exist_is_refused_like_in_any_module() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Engine'"):
        _ = faceavatar.Engine
