"""The stages' numbers: from a configuration file, the command line over it, frozen.

toon.toml has a section for each stage, `[unet]`, with the numbers for a CPU, and where a GPU wants others,
`[unet.cuda]`. Knows no stage: each brings a frozen dataclass whose fields are the keys of its section.
"""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TypeVar, get_type_hints

CONFIG = Path(__file__).with_name("toon.toml")
S = TypeVar("S")


def read_section(stage: str, device: str, file: Path = CONFIG) -> dict[str, object]:
    """The numbers of a stage on `device` ("cpu" or "cuda"), as the file has them."""
    sections = tomllib.loads(file.read_text("utf-8"))
    if stage not in sections:
        raise ValueError(f"{file}: no section [{stage}], only {', '.join(sections)}; copy it from {CONFIG}")
    section = sections[stage]
    numbers = {key: value for key, value in section.items() if not isinstance(value, dict)}
    return {**numbers, **(section.get("cuda", {}) if device == "cuda" else {})}


def read_settings(
    kind: type[S], stage: str, device: str, file: Path = CONFIG, given: Mapping[str, object] | None = None
) -> S:
    """A stage's settings: the file's numbers, and over them those of `given` that are fields and not None."""
    numbers, types = read_section(stage, device, file), _types(kind)
    if unknown := numbers.keys() - types.keys():
        raise ValueError(f"{file}: [{stage}] has {sorted(unknown)}; known are {sorted(types)}")
    numbers |= {key: value for key, value in (given or {}).items() if key in types and value is not None}
    if missing := types.keys() - numbers.keys():
        raise ValueError(f"{file}: [{stage}] lacks {sorted(missing)}; copy them from {CONFIG}")
    return kind(**{key: _as(kind, numbers[key], f"{file}: [{stage}] {key}") for key, kind in types.items()})


def _types(kind: type) -> dict[str, type]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def _as(kind: type, value: object, where: str) -> object:
    if kind is float and isinstance(value, int):
        return float(value)
    if type(value) is not kind:
        raise ValueError(f"{where} is {value!r}; {kind.__name__} expected")
    return value


def stage_parser(doc: str | None, kind: type) -> argparse.ArgumentParser:
    """A parser with --config, --device and an option for every field of the stage's settings."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=CONFIG, help="toon.toml of your own")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    for name, type_ in _types(kind).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type_, help="instead of the file's number")
    return parser
