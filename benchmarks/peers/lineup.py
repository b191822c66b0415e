"""Who is measured: each engine with its environment, its room, and what it is set to.

Every peer at its default and at the best setting known for a processor; the settings are those that its own
documentation recommends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

REFERENCE = "diffusers fp32"


@dataclass(frozen=True)
class Engine:
    """venv: whose environment, "ours" for the one that runs this. room: the module child.py imports.

    process: whether a fresh process for one picture makes sense; a compiler's minutes would not.
    """

    name: str
    venv: str
    room: str
    options: Mapping[str, Any] = field(default_factory=dict)
    process: bool = True

    @property
    def ours(self) -> bool:
        """Whether it is this project's."""
        return self.venv == "ours"


def _diffusers(name: str, process: bool = True, **options: Any) -> Engine:
    return Engine(f"diffusers {name}", "diffusers", "with_diffusers", options, process)


def _ours(provider: str, precision: str) -> Engine:
    options = {"provider": provider, "precision": None if precision == "fp32" else precision}
    return Engine(f"faceavatar {provider} {precision}", "ours", "with_faceavatar", options)


LINEUP = (
    _diffusers("fp32"),
    _diffusers("fp32 compiled", process=False, channels_last=True, compile=True),
    _diffusers("bf16", dtype="bfloat16", channels_last=True),
    _diffusers("bf16 compiled", process=False, dtype="bfloat16", channels_last=True, compile=True),
    Engine("optimum-onnx fp32", "optimum", "with_optimum"),
    Engine("openvino-genai fp32", "genai", "with_genai", {"precision": "f32"}),
    Engine("openvino-genai bf16", "genai", "with_genai", {"precision": "bf16"}),
    _ours("cpu", "fp32"),
    _ours("openvino", "fp32"),
    _ours("openvino", "bf16"),
)
