"""`faceavatar cutout PHOTO`: the cut-out stage by itself, for any picture. Opens no pack but for its net."""

from __future__ import annotations

from pathlib import Path

import click

from faceavatar.errors import InvalidRequest
from faceavatar_cli.exits import Manner, debug_option, epilog, json_option, print_json


@click.command(epilog=epilog())
@click.argument("photo")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="A .png, .webp or, with --bg-color, .jpg file (PHOTO's name, -cutout.png).",
)
@click.option("--bg-color", help="Put the person on a plain colour, such as '#88ccff'.")
@click.option("--pack", help="A pack whose matting net to use (the selfie segmentation, for photos).")
@click.option("--force", is_flag=True, help="Overwrite the file; else a number is added.")
@click.option("--provider", default="auto", show_default=True, help="What runs it: auto, cpu, cuda.")
@click.option("--threads", type=click.IntRange(min=1), help="How many threads (one for each physical core).")
@json_option
@debug_option
@click.pass_obj
def cutout(
    manner: Manner,
    photo: str,
    out: Path | None,
    bg_color: str | None,
    pack: str | None,
    force: bool,
    provider: str,
    threads: int | None,
) -> None:
    """Cut the person out of a picture.

    PHOTO is a path, an http(s) URL, a data URI, or - for standard input. Writes straight-alpha PNG, or the
    person on --bg-color.
    """
    from faceavatar.backends import resolve_provider
    from faceavatar.image import load_image
    from faceavatar.matting import CutOut
    from faceavatar.pack import Pack, find_pack
    from faceavatar.request import check_color
    from faceavatar_cli.order import read_photo
    from faceavatar_cli.output import check_folder, write_picture

    try:
        color = check_color(bg_color)
    except InvalidRequest as error:
        raise InvalidRequest("--bg-color", error.got, error.allowed) from error
    target = out or Path(f"{_stem(photo)}-cutout.png")
    kind = target.suffix.lower()
    if kind not in {".png", ".webp", ".jpg", ".jpeg"}:
        raise InvalidRequest("--out", str(target), "a file ending in .png, .webp or .jpg")
    if kind in {".jpg", ".jpeg"} and color is None:
        allowed = ".png or .webp, since JPEG has no transparency; or add --bg-color"
        raise InvalidRequest("--out", str(target), allowed)
    check_folder(target.expanduser().parent)
    opened = None if pack is None else Pack.load(find_pack(pack))
    cutter = CutOut.open(opened, resolve_provider(provider), threads)
    (picture,) = cutter.cut([load_image(read_photo(photo))], color)
    written = write_picture(target.expanduser(), picture, force)
    if manner.json:
        height, width, channels = picture.shape
        print_json(
            {
                "file": str(written),
                "width": width,
                "height": height,
                "transparent": channels == 4,
                "net": cutter.net,
            }
        )
    else:
        click.echo(written)


def _stem(photo: str) -> str:
    """A name for the file: the photo's own, where it is a file."""
    path = Path(photo)
    try:
        return path.stem if path.is_file() else "picture"
    except OSError:  # a data URI is too long a name
        return "picture"
