"""The parts that a pack is made of, as flags, and the way to the export, which is never imported from here.

The export's functions are found by their entry points: without its packages they cannot be loaded, and that
is said by the extra's name.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

import click

from faceavatar.errors import MissingExtra, PackInvalid

GROUP = "faceavatar.export"
Command = TypeVar("Command", bound=Callable[..., Any])
_FILE = click.Path(path_type=Path, exists=True)
_FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)


def _lora(value: str) -> tuple[Path, float]:
    """FILE or FILE:WEIGHT. Raises click.BadParameter for an absent file or a weight that is no number."""
    name, colon, weight = value.rpartition(":")
    path, strength = Path(value), 1.0
    if colon and not path.is_file():
        try:
            path, strength = Path(name), float(weight)
        except ValueError:
            raise click.BadParameter(
                f"{value!r}: {weight!r} is no number; give FILE or FILE:WEIGHT"
            ) from None
    if not path.is_file():
        raise click.BadParameter(f"there is no file {str(path)!r}")
    return path, strength


_PARTS = (
    click.option(
        "--face-adapter", type=_FILE, help="An IP-Adapter-FaceID or InstantID file: .safetensors or .bin."
    ),
    click.option(
        "--face-adapter-kind",
        type=click.Choice(["faceid", "faceid_plus", "faceid_plus_v2", "faceid_portrait", "instantid"]),
        help="Where the adapter's keys and name do not tell it (Plus or PlusV2).",
    ),
    click.option("--image-encoder", type=_FILE, help="The CLIP vision model of a Plus adapter: a folder."),
    click.option(
        "--controlnet",
        type=_FILE,
        help="InstantID's ControlNet, which its adapter needs: a folder in diffusers' layout, or a file.",
    ),
    click.option(
        "--lora",
        "loras",
        multiple=True,
        metavar="FILE[:WEIGHT]",
        callback=lambda context, parameter, values: [_lora(value) for value in values],
        help="A LoRA to fuse into the weights; may be given several times.",
    ),
    click.option(
        "--config", type=_FOLDER, help="A single file's configurations: a folder in diffusers' layout."
    ),
    click.option(
        "--prediction",
        type=click.Choice(["epsilon", "v_prediction"]),
        help="What a single file's UNet predicts, where the file does not tell it.",
    ),
    click.option(
        "--variant",
        type=click.Choice(["base", "turbo", "lcm"]),
        help="What the weights were distilled to, where the scheduler does not tell it: turbo (Turbo, "
        "Lightning) or lcm.",
    ),
    click.option(
        "--unet", type=_FILE, help="Another UNet in place of the checkpoint's: a folder or .safetensors file."
    ),
    click.option("--vae", type=_FOLDER, help="Another VAE in place of the checkpoint's: a folder."),
    click.option("--tiny-vae", type=_FILE, help="A tiny decoder (TAESD) in place of the VAE's."),
)


def parts_options(command: Command) -> Command:
    """Adds the flags, in the order of --help."""
    for option in reversed(_PARTS):
        command = option(command)
    return command


def say(words: str) -> None:
    """One line of progress, on stderr."""
    click.echo(words, err=True)


def find_export(name: str) -> Callable[..., dict[str, Any]]:
    """The export's function of that name. Raises MissingExtra where its packages are not installed."""
    found = entry_points(group=GROUP, name=name)
    if not found:
        raise PackInvalid("this installation of faceavatar lacks its export; install it again")
    try:
        work: Callable[..., dict[str, Any]] = next(iter(found)).load()
    except ModuleNotFoundError as error:
        raise MissingExtra("export", error.name or "torch") from error
    return work
