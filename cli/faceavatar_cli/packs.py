"""`faceavatar packs list | show | verify`: what packs there are, what is in one, whether it is whole."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from faceavatar_cli.checkpoint import find_export, parts_options, say
from faceavatar_cli.exits import Manner, complain, debug_option, json_option, print_json
from faceavatar_cli.running import PRECISION_WORDS, parse_precision

if TYPE_CHECKING:
    from faceavatar.manifest import Face, Manifest
    from faceavatar.pack import Pack, PackListing
    from faceavatar.parity import GraphError


@click.group(invoke_without_command=True)
@click.pass_context
def packs(context: click.Context) -> None:
    """List, show and verify model packs."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@packs.command("list")
@json_option
@debug_option
@click.pass_obj
def list_(manner: Manner) -> None:
    """List the packs found.

    The embedded ones come first, then those in the folders named by FACEAVATAR_PACKS.
    """
    from faceavatar.pack import SEARCH_VARIABLE, list_packs

    found = list_packs()
    if manner.json:
        print_json({"packs": [_summary(listing) for listing in found]})
        return
    for listing in found:
        click.echo(_line(listing))
    if not found:
        click.echo(f"no packs found; set {SEARCH_VARIABLE} to the folder that holds yours", err=True)


@packs.command()
@click.argument("name")
@json_option
@debug_option
@click.pass_obj
def show(manner: Manner, name: str) -> None:
    """Show what is in a pack.

    Its graphs, sizes, defaults and licences. NAME is a pack's name or folder.
    """
    pack = _open(name)
    if manner.json:
        print_json({"folder": str(pack.folder), "manifest": pack.manifest.model_dump(mode="json")})
        return
    for title, words in _description(pack):
        click.echo(f"{title:<12} {words}")


@packs.command()
@click.argument("name")
@click.option(
    "--against", "source", metavar="SOURCE", help="Prove the pack against its checkpoint once more."
)
@click.option("--provider", help="Open every graph with this provider (cpu), and hold it to float32.")
@click.option("--precision", help=PRECISION_WORDS)
@click.option("--engines", metavar="FOLDER|ignore", help="Where compiled engines lie (those in the pack).")
@parts_options
@json_option
@debug_option
@click.pass_context
def verify(
    context: click.Context,
    /,
    name: str,
    source: str | None,
    provider: str | None,
    precision: str | None,
    engines: str | None,
    **parts: Any,
) -> None:
    """Check a pack's files and graphs.

    Every file must have its sha256 and lead nowhere else, every graph its signature, every compiled engine in
    the pack its hash and this machine; all that is wrong is listed. With --provider or --precision every
    graph is run on sample inputs and held to float32. With --against, every graph and whole pictures are held
    to the checkpoint SOURCE and the further parts that the pack was exported from. NAME is a pack's name or
    folder.
    """
    from faceavatar.opening import IGNORE, Opening, engine_problems
    from faceavatar.pack import Pack, find_pack
    from faceavatar.pack import verify as find_problems
    from faceavatar.parity import graph_errors

    given = [flag for flag, value in parts.items() if value]
    if source is None and given:
        raise click.UsageError(f"{given[0].replace('_', '-')} says nothing without --against SOURCE")
    # Its manifest alone: what else is wrong with it is to be listed.
    pack = Pack.read(find_pack(name))
    problems = [*find_problems(pack), *([] if engines == IGNORE else engine_problems(pack, engines))]
    report, rows = None, []
    if (provider or precision) and not problems:
        opening = Opening.of(pack, provider or "auto", None, parse_precision(precision), engines)
        rows = list(graph_errors(opening))
        problems = [f"{opening.provider}: {row.problem}" for row in rows if row.problem is not None]
    if source is not None and not problems:
        report = find_export("verify")(source, pack.folder, say, **parts)
        problems = report["misses"]
    if context.ensure_object(Manner).json:
        content = {"name": pack.name, "folder": str(pack.folder), "ok": not problems, "problems": problems}
        if rows:
            content["precision"] = [_error(row) for row in rows]
        print_json(content if report is None else {**content, "parity": report})
    else:
        graphs, files = len(pack.manifest.graphs), len(pack.manifest.files)
        whole = f"ok: {pack.name} {pack.manifest.version}, {files} files and {graphs} graphs are sound"
        if report is not None:
            worst = max(row["max_difference"] for row in report["pipeline"])
            whole += f"; pictures at most {worst}/255 from diffusers'"
        for row in rows:
            click.echo(
                f"{row.role:<16} {row.precision}  {row.error:.1e} away from fp32, allowed {row.allowed:g}"
            )
        click.echo("\n".join(problems) or whole)
    if problems:
        context.exit(
            complain("pack_invalid", f"{pack.name}: {len(problems)} of its checks failed; install it again")
        )


@packs.command("add-matting")
@click.argument("source")
@click.option("--to", "name", required=True, help="The pack: a name or a folder.")
@click.option(
    "--preset",
    required=True,
    help="u2net, isnet, birefnet, modnet, rmbg, rmbg2 or selfie: how it is fed and read.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Write a copy of the pack to this new folder.")
@click.option("--license", "license_", help="The file's licence, where it is not the preset's.")
@click.option("--alpha", help="Which output is alpha (the first).")
@click.option("--non-commercial", is_flag=True, help="Agree that the net is for non-commercial use alone.")
@json_option
@debug_option
@click.pass_obj
def add_matting(
    manner: Manner,
    source: str,
    name: str,
    preset: str,
    out: Path | None,
    license_: str | None,
    alpha: str | None,
    non_commercial: bool,
) -> None:
    """Give a pack a matting net.

    SOURCE is an ONNX file, or OWNER/NAME@COMMIT:FILE of the hub. Its licence is recorded in the pack.
    """
    from faceavatar.errors import InvalidRequest
    from faceavatar.matting.adopt import Adoption, adopt
    from faceavatar_cli.hub import find_file

    adoption = Adoption(preset, license_, alpha, non_commercial)
    try:
        adoption.checked()
        pack = adopt(_open(name), find_file(source), adoption, out)
    except InvalidRequest as error:
        flag = {"preset": "--preset", "out": "--out", "alpha": "--alpha"}.get(error.field, error.field)
        raise InvalidRequest(flag, error.got, error.allowed) from error
    entry = pack.manifest.files[pack.graph("matting").file]
    if manner.json:
        print_json({"folder": str(pack.folder), "matting": pack.manifest.model_dump(mode="json")["matting"]})
    else:
        click.echo(f"{pack.folder}: matting by {entry.attribution}, {entry.license}")


def _open(name: str) -> Pack:
    from faceavatar.pack import Pack, find_pack

    return Pack.load(find_pack(name), check_hashes=False)


def _error(row: GraphError) -> dict[str, Any]:
    return {"role": row.role, "precision": row.precision, "error": row.error, "allowed": row.allowed}


def _summary(listing: PackListing) -> dict[str, Any]:
    manifest = None if listing.pack is None else listing.pack.manifest
    return {
        "name": listing.name,
        "version": manifest and manifest.version,
        "family": manifest and manifest.family,
        "description": manifest and manifest.description,
        "size": manifest and _size(listing.pack),
        "folder": str(listing.folder),
        "problem": listing.problem,
    }


def _line(listing: PackListing) -> str:
    if listing.pack is None:
        return f"{listing.name:<12} broken: {listing.problem}"
    manifest = listing.pack.manifest
    size = _megabytes(_size(listing.pack))
    return f"{listing.name:<12} {manifest.version:<8} {manifest.family:<8} {size:>10}  {listing.folder}"


def _description(pack: Pack) -> list[tuple[str, str]]:
    manifest = pack.manifest
    sizes, settled = manifest.sizes, manifest.defaults.model_dump(exclude_none=True)
    native = ", ".join(f"{width}x{height}" for height, width in sizes.native)
    licenses = Counter(file.license for file in manifest.files.values())
    lines = [
        ("name", f"{pack.name} {manifest.version}"),
        ("family", manifest.family),
        ("description", manifest.description),
        ("folder", str(pack.folder)),
        ("size", _megabytes(_size(pack))),
        ("draws at", native or f"any multiple of {sizes.multiple_of}"),
        ("geometry", _geometry(manifest)),
        ("face", _face(manifest.face)),
        ("defaults", ", ".join(f"{name} {value}" for name, value in settled.items())),
        ("licences", ", ".join(f"{license} ({count} files)" for license, count in licenses.items())),
    ]
    proof = _proof(pack)
    if proof is not None:
        lines.append(("proof", proof))
    for role, graph in manifest.graphs.items():
        parts = (graph.file, f"{graph.file}.data")  # large graphs keep their weights beside them
        size = _megabytes(sum(manifest.files[part].size for part in parts if part in manifest.files))
        lines.append((role, f"{graph.file}, {graph.precision}, {size}"))
    return lines


def _geometry(manifest: Manifest) -> str:
    """What flows between the graphs: latents, and the text's tokens."""
    latents, width = manifest.latents, manifest.graphs["unet"].inputs["encoder_hidden_states"].shape[-1]
    cells = f"latents of {latents.channels} channels, {latents.downsample} pixels a cell"
    return f"{cells}; {width} numbers a text token, {manifest.text.max_length} tokens a window"


def _face(face: Face | None) -> str:
    if face is None:
        return "none: this pack does not look at faces"
    adapter = face.adapter
    words = f"{adapter.kind}, {adapter.tokens} tokens of a {adapter.embedding_size}-number embedding"
    if face.detector is None:
        return f"{words}, which has to be handed in: no face models"
    package = ", run by insightface" if face.detector.kind == "scrfd" else ""
    return f"{words}; detector {face.detector.kind}{package}"


def _proof(pack: Pack) -> str | None:
    """What the export measured against diffusers, if the pack was exported."""
    try:
        report = json.loads((pack.folder / "parity.json").read_text(encoding="utf-8"))
        worst = max(row["max_difference"] for row in report["pipeline"])
        missed = len(report["misses"])
    except (OSError, ValueError, LookupError, TypeError):
        return None
    held = f"{missed} bounds missed, written by force" if missed else "all bounds held"
    return f"pictures at most {worst}/255 from diffusers' ({held})"


def _size(pack: Pack | None) -> int:
    return 0 if pack is None else sum(file.size for file in pack.manifest.files.values())


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
