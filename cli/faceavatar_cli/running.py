"""What runs a pack: the flags --provider, --threads, --precision and --engines, and the engine they make."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from faceavatar import AvatarEngine

Command = TypeVar("Command", bound=Callable[..., Any])
PROVIDER_WORDS = "What runs it: auto, cpu, openvino, cuda, tensorrt-rtx or tensorrt."
PRECISION_WORDS = (
    "What to compute in: fp32, bf16 or fp16, or for some graphs, as unet=bf16,vae_decoder=fp32 (as stored)."
)


@dataclass(frozen=True)
class Running:
    """The values of the flags; precision as it was typed."""

    provider: str = "auto"
    threads: int | None = None
    precision: str | None = None
    engines: str | None = None
    memory_budget: str | None = None
    tiling: bool = False

    def load(self, pack: str) -> AvatarEngine:
        """Open a pack by its name or folder. Raises as AvatarEngine.load."""
        from faceavatar import AvatarEngine

        return AvatarEngine.load(
            *(pack, self.provider, self.threads, parse_precision(self.precision), self.engines),
            memory_budget=self.memory_budget,
            tiling=self.tiling,
        )

    def flags(self) -> list[str]:
        """The same as a command line's flags, but for the provider and the threads."""
        given = (
            ("--precision", self.precision),
            ("--engines", self.engines),
            ("--memory-budget", self.memory_budget),
        )
        flags = [part for flag, value in given if value is not None for part in (flag, value)]
        return [*flags, "--tiling"] if self.tiling else flags


def parse_precision(text: str | None) -> str | Mapping[str, str] | None:
    """ "bf16" as it is, "unet=bf16,matting=fp32" as a mapping; whether they exist is the engine's to say."""
    if text is None or "=" not in text:
        return text
    return {role.strip(): name.strip() for role, _, name in (part.partition("=") for part in text.split(","))}


def running_options(command: Command) -> Command:
    """Adds the flags, in the order of --help."""
    options = (
        click.option("--provider", default="auto", show_default=True, help=PROVIDER_WORDS),
        click.option(
            "--threads", type=click.IntRange(1), help="How many threads (one for each physical core)."
        ),
        click.option("--precision", help=PRECISION_WORDS),
        click.option(
            "--engines",
            metavar="FOLDER|ignore",
            help="Where compiled engines lie; ignore: run the plain graphs (those in the pack).",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command
