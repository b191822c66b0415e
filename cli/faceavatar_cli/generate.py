"""`faceavatar generate`: the flags. What happens then is in job.py, imported when it does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from faceavatar.errors import InvalidRequest
from faceavatar_cli.exits import Manner, debug_option, epilog, json_option
from faceavatar_cli.flags import flag_of, given_fields, request_options
from faceavatar_cli.running import Running, running_options

_PICTURE_WORDS = (
    "the path of an existing picture or identity file, an http(s) URL, a data URI, or - for standard input"
)


@click.command(epilog=epilog())
@click.argument("photo", required=False)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    default=Path("avatars"),
    show_default=True,
    help="A folder, or a .png, .jpg or .webp file; only PNG files can be repeated with --from.",
)
@click.option(
    "--force", is_flag=True, help="Overwrite files; else an existing one is kept and a number added."
)
@click.option("--example", is_flag=True, help="Use the photo that comes with faceavatar.")
@click.option(
    "--from",
    "old",
    metavar="OLD.png",
    type=click.Path(path_type=Path),
    help="Repeat the request in an avatar's PNG file; other flags override it.",
)
@click.option("--pack", help="The model pack: a name or a folder (toon).")
@running_options
@click.option(
    "--memory-budget", metavar="BYTES", help='What the process may grow to, such as "6GB" (what is free).'
)
@click.option("--tiling", is_flag=True, help="Decode in tiles what does not fit whole.")
@click.option("--timeout", type=float, help="Seconds that the work may take, loading aside (no end).")
@request_options
@json_option
@debug_option
@click.pass_context
def generate(
    context: click.Context,
    /,
    photo: str | None,
    out: Path,
    force: bool,
    example: bool,
    old: Path | None,
    pack: str | None,
    provider: str,
    threads: int | None,
    memory_budget: str | None,
    tiling: bool,
    timeout: float | None,
    precision: str | None,
    engines: str | None,
    **fields: Any,
) -> None:
    """Make avatars of the face in a photo.

    PHOTO is a path, an http(s) URL, a data URI, or - for standard input; or an identity file of
    faceavatar embed.
    """
    from faceavatar_cli.job import Job
    from faceavatar_cli.order import place_order
    from faceavatar_cli.output import Output

    try:
        order = place_order(photo, example, old, pack, given_fields(context, fields))
        running = Running(provider, threads, precision, engines, memory_budget, tiling)
        job = Job(order, Output(out, force), running, timeout)
        job.run(context.ensure_object(Manner).json)
    except InvalidRequest as error:
        flag = "PHOTO" if error.field == "image" else flag_of(context, error.field)
        if flag is None:
            raise
        allowed = _PICTURE_WORDS if flag == "PHOTO" and error.got == photo else error.allowed
        raise InvalidRequest(flag, error.got, allowed) from error
