"""`faceavatar embed`: the face in a photo becomes an identity file, which takes the photo's place."""

from __future__ import annotations

import os
from pathlib import Path

import click

from faceavatar.errors import FaceAvatarError, InvalidRequest
from faceavatar_cli.exits import CannotWrite, Manner, debug_option, epilog, json_option, print_json
from faceavatar_cli.running import parse_precision, running_options

SUFFIX = ".faceid"


@click.command(epilog=epilog())
@click.argument("photo", required=False)
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), required=True, help="The identity file: WHO.faceid."
)
@click.option("--force", is_flag=True, help="Overwrite the file.")
@click.option("--example", is_flag=True, help="Use the photo that comes with faceavatar.")
@click.option("--pack", default="toon", show_default=True, help="The pack whose encoder reads the face.")
@running_options
@click.option("--face-index", type=click.IntRange(0, 999), help="Which face of several: 0 is the largest.")
@json_option
@debug_option
@click.pass_obj
def embed(
    manner: Manner,
    /,
    photo: str | None,
    out: Path,
    force: bool,
    example: bool,
    pack: str,
    provider: str,
    threads: int | None,
    precision: str | None,
    engines: str | None,
    face_index: int | None,
) -> None:
    """Keep a face as numbers, without its photo.

    PHOTO is a path, an http(s) URL, a data URI, or - for standard input. The file that is written takes the
    photo's place: faceavatar generate WHO.faceid. It is for packs with the same face encoder.
    """
    from faceavatar.identity import Identity, open_reference
    from faceavatar.look import FaceReader
    from faceavatar.opening import Opening
    from faceavatar.pack import Pack, find_pack
    from faceavatar.stopwatch import Stopwatch
    from faceavatar_cli.order import place_order

    _check(out, force)
    source = place_order(photo, example, None, pack, {}).request.image
    reader = FaceReader.load(
        Opening.of(Pack.load(find_pack(pack)), provider, threads, parse_precision(precision), engines)
    )
    reader.must_see()
    reference = open_reference(source)
    if isinstance(reference, Identity):
        raise InvalidRequest("PHOTO", photo, "a photo: this is an identity file already")
    try:
        identity = reader.identity(reference, face_index, Stopwatch())
    except InvalidRequest as error:
        raise InvalidRequest("--face-index", error.got, error.allowed) from error
    try:
        identity.save(out)
    except FaceAvatarError as error:
        raise CannotWrite(str(error)) from error
    if manner.json:
        states = identity.image_encoder is not None
        told = {"file": str(out), "encoder": identity.encoder, "encoder_name": identity.encoder_name}
        print_json({**told, "size": int(identity.embeds.size), "image_states": states, "pack": pack})
    else:
        click.echo(out)
        click.echo(f"{identity.embeds.size} numbers of {identity.encoder_name}", err=True)


def _check(out: Path, force: bool) -> None:
    """Refuses what could not be written, before the work."""
    if out.suffix.lower() != SUFFIX:
        raise InvalidRequest("--out", str(out), f"a file ending in {SUFFIX}")
    if out.exists() and not force:
        raise CannotWrite(f"{out}: is there already; choose another name, or overwrite it with --force")
    folder = out.expanduser().absolute().parent
    nearest = next(place for place in [folder, *folder.parents] if place.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise CannotWrite(f"{out}: {nearest} is not writable; choose another place with --out")
