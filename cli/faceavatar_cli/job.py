"""One run of `faceavatar generate`: load the pack, follow the steps, write the files, tell what was done."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import click

from faceavatar import AvatarEngine, AvatarResult, FaceInfo, __version__
from faceavatar_cli.exits import print_json
from faceavatar_cli.order import Order
from faceavatar_cli.output import Output, Written
from faceavatar_cli.progress import Bar, follow, wants_bar
from faceavatar_cli.running import Running


@dataclass(frozen=True)
class Job:
    """An order, where its pictures go, and what runs it."""

    order: Order
    output: Output
    running: Running
    timeout: float | None = None

    def run(self, json: bool) -> None:
        """Does it all; results on stdout, remarks and the bar on stderr."""
        self.output.check(self.order.request)
        bar = Bar(wants_bar(json))
        try:
            bar.show(f"loading {self.order.pack} ...")
            engine = self.running.load(self.order.pack)
            steps = engine.stream(self.order.request, timeout=self.timeout)
            result = follow(steps, bar, self.output.preview)
            written = self.output.write(result)
        finally:
            bar.clear()
            self.output.drop_preview()
        warnings = [*self._changes(result), *result.warnings]
        if json:
            print_json(report(result, written, warnings, engine))
        else:
            _tell(result, written, warnings)

    def _changes(self, result: AvatarResult) -> Iterator[str]:
        """Why a repeated picture may differ from the old one."""
        old = self.order.repeats
        if old is None:
            return
        before, now = f"{old['pack']} {old.get('pack_version')}", f"{result.pack} {result.pack_version}"
        if before != now:
            yield f"the old picture was made by {before}, this one by {now}"


def report(
    result: AvatarResult, written: Written, warnings: list[str], engine: AvatarEngine
) -> dict[str, Any]:
    """What --json prints: numbers and strings only."""
    return {
        "files": [str(path) for path in written.files],
        "contact_sheet": None if written.contact_sheet is None else str(written.contact_sheet),
        "seeds": list(result.seeds),
        "similarities": _similarities(result),
        "width": result.width,
        "height": result.height,
        "timings": {stage: round(seconds, 4) for stage, seconds in result.timings.items()},
        "face": _face(result.face),
        "warnings": warnings,
        "pack": {"name": result.pack, "version": result.pack_version},
        "provider": engine.provider,
        "precisions": dict(engine.precisions),
        "request": result.request.to_metadata(),
        "version": __version__,
    }


def _similarities(result: AvatarResult) -> list[float | None] | None:
    if result.similarities is None:
        return None
    return [None if found is None else round(found, 4) for found in result.similarities]


def _face(face: FaceInfo | None) -> dict[str, Any] | None:
    if face is None:
        return None
    return {
        "bbox": list(face.bbox),
        "landmarks": face.landmarks.tolist(),
        "score": face.score,
        "faces_found": face.faces_found,
        "others": [list(box) for box in face.others],
        "attempt": face.attempt,
    }


def _tell(result: AvatarResult, written: Written, warnings: list[str]) -> None:
    for path in [*written.files, written.contact_sheet]:
        if path is not None:
            click.echo(path)
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    count, seed = len(result.seeds), result.seeds[0]
    seeds = f"seed {seed}" if count == 1 else f"seeds {seed} to {result.seeds[-1]}"
    if count > 1 and result.request.best_of > 1:
        seeds = f"seeds {', '.join(map(str, result.seeds))}"
    if result.similarities is not None:
        found = ("no face" if cosine is None else f"{cosine:.2f}" for cosine in result.similarities)
        seeds = f"{seeds}, similarity {', '.join(found)}"
    avatars = "1 avatar" if count == 1 else f"{count} avatars"
    click.echo(
        f"{avatars} in {result.timings['total']:.1f} s, {seeds}, {result.pack} {result.pack_version}",
        err=True,
    )
