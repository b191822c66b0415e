"""`faceavatar compile`: engines of a pack for this machine, made ahead of time and proved against float32."""

from __future__ import annotations

from pathlib import Path

import click

from faceavatar.errors import InvalidRequest
from faceavatar_cli.exits import Manner, debug_option, epilog, json_option, print_json
from faceavatar_cli.running import PRECISION_WORDS, parse_precision


@click.command("compile", epilog=epilog())
@click.argument("pack")
@click.option(
    "--provider", required=True, help="What will run it: cpu, openvino, tensorrt-rtx or tensorrt; or auto."
)
@click.option("--threads", type=click.IntRange(1), help="How many threads (one for each physical core).")
@click.option("--precision", help=PRECISION_WORDS)
@click.option(
    "--shapes",
    help="What will be drawn, as 512x512x1..8,768x512x1: width, height, pictures at once (any size).",
)
@click.option(
    "--into", type=click.Path(path_type=Path), help="Where the engines go (the folder engines in the pack)."
)
@json_option
@debug_option
@click.pass_obj
def compile_(
    manner: Manner,
    /,
    pack: str,
    provider: str,
    threads: int | None,
    precision: str | None,
    shapes: str | None,
    into: Path | None,
) -> None:
    """Compile a pack for this machine.

    PACK is a pack's name or folder. Each graph is compiled, run on sample inputs and held to float32 before
    it is kept. The engines are taken by themselves from then on; one that no longer fits is refused by name.
    """
    from faceavatar.buckets import parse_shapes
    from faceavatar.compiling import compile_pack
    from faceavatar.opening import IGNORE, Opening
    from faceavatar.pack import Pack, find_pack

    try:
        asked = parse_shapes(shapes) if shapes else ()
        opening = Opening.of(
            Pack.load(find_pack(pack)), provider, threads, parse_precision(precision), IGNORE
        )
        made = compile_pack(opening, asked, into, lambda words: click.echo(words, err=True))
    except InvalidRequest as error:
        raise InvalidRequest(f"--{error.field}", error.got, error.allowed) from error
    size = sum(entry.size for engine in made.engines for entry in engine.files)
    if manner.json:
        errors = {one.role: {"precision": one.precision, "error": one.error} for one in made.errors}
        told = {"folder": str(made.folder), "provider": opening.provider, "bytes": size}
        print_json({**told, "graphs": errors})
        return
    words = f"{len(made.engines)} engines of {opening.pack.name} for {opening.provider}, {size / 1e6:.0f} MB"
    click.echo(f"{made.folder}: {words}")
