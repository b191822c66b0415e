"""`faceavatar export`: the flags. The work is the export's own, found by its entry point."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import click

from faceavatar.errors import MissingExtra, PackInvalid
from faceavatar_cli.exits import Manner, debug_option, epilog, json_option, print_json

GROUP = "faceavatar.export"
_FILE = click.Path(path_type=Path, exists=True)
_FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)


@click.command(epilog=epilog())
@click.argument("source")
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="The pack's new folder.")
@click.option("--name", help="The pack's name (its folder's).")
@click.option("--license", "license_", required=True, help="The checkpoint's licence, for the manifest.")
@click.option(
    "--face-adapter", type=_FILE, help="An IP-Adapter-FaceID or InstantID file: .safetensors or .bin."
)
@click.option(
    "--face-adapter-kind",
    type=click.Choice(["faceid", "faceid_plus", "faceid_plus_v2", "faceid_portrait", "instantid"]),
    help="Where the adapter's keys and name do not tell it (Plus or PlusV2).",
)
@click.option("--image-encoder", type=_FILE, help="The CLIP vision model of a Plus adapter: a folder.")
@click.option(
    "--controlnet",
    type=_FILE,
    help="InstantID's ControlNet, which its adapter needs: a folder in diffusers' layout, or a file.",
)
@click.option(
    "--lora",
    "loras",
    multiple=True,
    metavar="FILE[:WEIGHT]",
    callback=lambda context, parameter, values: [_lora(value) for value in values],
    help="A LoRA to fuse into the weights; may be given several times.",
)
@click.option("--config", type=_FOLDER, help="A single file's configurations: a folder in diffusers' layout.")
@click.option(
    "--prediction",
    type=click.Choice(["epsilon", "v_prediction"]),
    help="What a single file's UNet predicts, where the file does not tell it.",
)
@click.option(
    "--variant",
    type=click.Choice(["base", "turbo", "lcm"]),
    help="What the weights were distilled to, where the scheduler does not tell it: turbo (Turbo, Lightning) "
    "or lcm.",
)
@click.option("--vae", type=_FOLDER, help="Another VAE in place of the checkpoint's: a folder.")
@click.option("--tiny-vae", type=_FILE, help="A tiny decoder (TAESD) in place of the VAE's.")
@click.option("--vae-encoder", is_flag=True, help="Add the VAE's encoder, for a request's strength.")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "bf16", "int8"]),
    default="fp32",
    show_default=True,
    help="Of the arithmetic; int8 stores weights so and computes in fp32.",
)
@click.option("--steps", "num_inference_steps", type=click.IntRange(1, 50), help="The pack's default.")
@click.option("--guidance", "guidance_scale", type=click.FloatRange(1, 30), help="The pack's default.")
@click.option("--force", is_flag=True, help="Write the pack although its proof failed.")
@json_option
@debug_option
@click.pass_obj
def export(manner: Manner, /, out: Path, name: str | None, license_: str, **options: Any) -> None:
    """Make a pack of a Stable Diffusion checkpoint.

    SOURCE is a folder in diffusers' layout (SD1.5, SD2.1 or SDXL), a whole checkpoint in one .safetensors
    file, or OWNER/NAME@COMMIT of the hub. The pack is proved against diffusers before it is written;
    parity.json in it says how far they lie apart.
    """
    work = _find_export()
    report = work(out=out, name=name or out.name, license=license_, say=_say, **options)
    if manner.json:
        print_json({"folder": str(out.resolve()), "parity": report})
    else:
        worst = max(row["max_difference"] for row in report["pipeline"])
        seconds, peak = report["seconds"], report["peak_memory_gb"]
        click.echo(f"{out}: at most {worst}/255 from diffusers; {seconds:.0f} s, {peak:.1f} GB at the peak")


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


def _say(words: str) -> None:
    click.echo(words, err=True)


def _find_export() -> Callable[..., dict[str, Any]]:
    """The export's own function. Raises MissingExtra where its packages are not installed."""
    found = entry_points(group=GROUP, name="checkpoint")
    if not found:
        raise PackInvalid("this installation of faceavatar lacks its export; install it again")
    try:
        work: Callable[..., dict[str, Any]] = next(iter(found)).load()
    except ModuleNotFoundError as error:
        raise MissingExtra("export", error.name or "torch") from error
    return work
