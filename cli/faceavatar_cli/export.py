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
@click.option("--face-pack", type=_FILE, help="InsightFace's detector and recogniser for the pack: a folder.")
@click.option("--face-pack-license", help="Their licence, for the manifest; needed with --face-pack.")
@click.option(
    "--with-face-pack",
    metavar="NAME",
    help="Fetch them from InsightFace's model zoo: buffalo_l (FaceID) or antelopev2 (InstantID).",
)
@click.option(
    "--accept-license",
    metavar="TERMS",
    help="Agree to their terms, 'non-commercial'; needed with --with-face-pack.",
)
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
@click.option("--precision", type=click.Choice(["fp32", "fp16"]), default="fp32", show_default=True)
@click.option("--steps", "num_inference_steps", type=click.IntRange(1, 50), help="The pack's default.")
@click.option("--guidance", "guidance_scale", type=click.FloatRange(1, 30), help="The pack's default.")
@click.option("--force", is_flag=True, help="Write the pack although its proof failed.")
@json_option
@debug_option
@click.pass_obj
def export(manner: Manner, /, out: Path, name: str | None, license_: str, **options: Any) -> None:
    """Make a pack of a Stable Diffusion checkpoint.

    SOURCE is a folder in diffusers' layout (SD1.5, SD2.1 or SDXL), or OWNER/NAME@COMMIT of the hub. The pack
    is proved against diffusers before it is written; parity.json in it says how far they lie apart.
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
