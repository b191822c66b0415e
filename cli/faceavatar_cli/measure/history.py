"""What was measured on this machine before: one JSON object a line, a file for each machine.

The folder is the user's state folder, as the queue's is: $XDG_STATE_HOME/faceavatar, or ~/.local/state.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from faceavatar_cli.exits import CannotWrite
from faceavatar_cli.measure.report import Report

_STILL = 0.03  # changes below this are not called any: so much two runs of the same thing differ


def history_file(key: str) -> Path:
    """Where the runs of the machine with this key are kept."""
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return state / "faceavatar" / "bench" / f"{key}.jsonl"


def last_run(report: Report) -> dict[str, Any] | None:
    """The newest kept run of the same pack, provider, precision and threads on the same machine, or None.

    Lines that are no run, such as one that was cut off, are passed over.
    """
    try:
        lines = history_file(report.machine.key).read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        try:
            kept = json.loads(line)
        except ValueError:
            continue
        if isinstance(kept, dict) and kept.get("subject") == report.subject:
            return kept
    return None


def keep(report: Report) -> Path:
    """Adds a run to the machine's file. Raises CannotWrite."""
    path = history_file(report.machine.key)
    kept = {
        "when": report.when,
        "subject": report.subject,
        "pack_version": report.pack_version,
        "machine": asdict(report.machine),
        "load_before": report.load_before,
        "numbers": report.numbers(),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A last line that was cut off is ended first, so that it spoils no other.
        whole = not path.exists() or path.read_bytes()[-1:] in (b"", b"\n")
        with path.open("a", encoding="utf-8") as file:
            file.write(("" if whole else "\n") + json.dumps(kept) + "\n")
    except OSError as error:
        raise CannotWrite(f"{path}: the history cannot be kept ({error}); set XDG_STATE_HOME") from error
    return path


def changes(report: Report, before: Mapping[str, Any]) -> Iterator[str]:
    """How each number moved since a kept run, in lines for people."""
    was, now = before["machine"]["packages"], report.machine.packages
    versions = [
        f"{name} {was.get(name, 'none')} -> {now.get(name, 'none')}"
        for name in sorted({*was, *now})
        if was.get(name) != now.get(name)
    ]
    yield f"since {before['when']}" + (f" ({', '.join(versions)})" if versions else " (the same versions)")
    for name, value in report.numbers().items():
        old = before["numbers"].get(name)
        if not old:
            yield f"  {name:<32}{'new':>10}{value:10.3f}"
            continue
        change = value / old - 1
        word = "as before" if abs(change) < _STILL else f"{change:+.1%}"
        yield f"  {name:<32}{old:10.3f}{value:10.3f}  {word}"
