"""Parity and speed on an NVIDIA GPU, stage by stage: python benchmarks/gpu/run.py --out FOLDER [--dry-run]

Every stage is a process of its own and leaves FOLDER/stages/NAME.json. A stage that fails is reported and
the others go on; a stage that was cut off is done again by the next call, a finished one is not.
FOLDER/report.json and FOLDER/report.md hold what is known so far. --dry-run runs all of it narrow, on the
processor.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_ROOMS = ("engine", "export", "cli", "benchmarks")
_STAGE_LIMIT = 900  # seconds; SDXL's torch.compile is the longest


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 1 where a stage failed or is still to be done."""
    given = _parse(arguments)
    out: Path = given.out.resolve()
    (out / "stages").mkdir(parents=True, exist_ok=True)
    sys.path[:0] = [path for room in _ROOMS if (path := str(ROOT / room)) not in sys.path]
    if given.stage:
        return _run_here(out, given.dry_run, given.stage)
    return _run_all(out, given)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="where stages, models and the report go")
    parser.add_argument("--dry-run", action="store_true", help="narrow models, the processor for a GPU")
    parser.add_argument(
        "--wheel", type=Path, action="append", default=[], help="installed into OUT/site first"
    )
    parser.add_argument("--seconds", type=float, default=0, help="start and run no stage beyond this time")
    parser.add_argument("--only", action="append", default=[], help="stages whose names begin so")
    parser.add_argument("--again", action="append", default=[], help="do once more: a stage, or failed ones")
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _run_all(out: Path, given: argparse.Namespace) -> int:
    deadline = time.monotonic() + given.seconds if given.seconds else float("inf")
    _install(out, given.wheel)
    environment = _environment(out)
    found = _found(out)
    for name, record in list(found.items()):
        lacking = not record["ok"] or bool(record["result"].get("failed"))
        if name in given.again or ("failed" in given.again and lacking):
            _path(out, name).unlink()
            del found[name]
    left = []
    for name in _names(out, given.dry_run):
        if name in found or (given.only and not name.startswith(tuple(given.only))):
            continue
        seconds = min(_STAGE_LIMIT, deadline - time.monotonic())
        if seconds <= 0 or not _run_apart(out, name, given.dry_run, environment, seconds):
            left.append(name)
        _write_report(out)
    _write_report(out)
    failed = [name for name, record in _found(out).items() if not record["ok"]]
    print((out / "report.md").read_text(encoding="utf-8"))
    print(json.dumps({"done": len(_found(out)), "failed": failed, "left": left}))
    return 1 if failed or left else 0


def _run_apart(out: Path, name: str, dry: bool, environment: dict[str, str], seconds: float) -> bool:
    """Run a stage in its own process; False where time ran out before it left a record."""
    print(f"{name} ...", flush=True)
    command = [sys.executable, __file__, "--out", str(out), "--stage", name, *(["--dry-run"] if dry else [])]
    try:
        done = subprocess.run(command, env=environment, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        print(f"{name}: cut off after {seconds:.0f} s", flush=True)
        if seconds == _STAGE_LIMIT:  # it would be cut off for ever
            _record(out, name, {"ok": False, "error": f"took more than {seconds:.0f} s"})
        return seconds == _STAGE_LIMIT
    if not _path(out, name).is_file():  # killed, or died inside a library
        _record(out, name, {"ok": False, "error": f"the process ended with {done.returncode} and no record"})
    return True


def _run_here(out: Path, dry: bool, name: str) -> int:
    from gpu.stages import Bench, plan

    started = time.monotonic()
    try:
        result = plan(Bench(out, dry, _found(out)))[name]()
        record: dict[str, Any] = {"ok": True, "result": result}
    except BaseException as error:
        words = str(error).strip().splitlines() or [""]
        record = {
            "ok": False,
            "error": f"{type(error).__name__}: {words[0]}",
            "trace": traceback.format_exc(),
        }
    record["seconds"] = round(time.monotonic() - started, 1)
    _record(out, name, record)
    return 0 if record["ok"] else 1


def _names(out: Path, dry: bool) -> list[str]:
    from gpu.stages import Bench, plan

    return list(plan(Bench(out, dry, {})))


def _write_report(out: Path) -> None:
    from gpu.report import table

    found = _found(out)
    (out / "report.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (out / "report.md").write_text(table(found), encoding="utf-8")


def _install(out: Path, wheels: Sequence[Path]) -> None:
    """Unpack wheels for the stages alone: they may clash with what is installed."""
    for wheel in wheels:
        mark = out / "site" / f".{wheel.name}"
        if not mark.exists():
            command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet"]
            subprocess.run([*command, "--target", str(out / "site"), "--upgrade", str(wheel)], check=True)
            mark.touch()


def _environment(out: Path) -> dict[str, str]:
    rooms = [str(out / "site"), *(str(ROOT / room) for room in _ROOMS)]
    path = os.pathsep.join([*rooms, *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, "TORCHINDUCTOR_CACHE_DIR": str(out / "inductor")}


def _path(out: Path, name: str) -> Path:
    return out / "stages" / f"{name.replace(' ', '-')}.json"


def _record(out: Path, name: str, record: dict[str, Any]) -> None:
    partial = _path(out, name).with_suffix(".partial")
    partial.write_text(json.dumps({"name": name, **record}, indent=1) + "\n", encoding="utf-8")
    partial.replace(_path(out, name))


def _found(out: Path) -> dict[str, dict[str, Any]]:
    """The records that are there, in the order in which they were made."""
    paths = sorted((out / "stages").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    records = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    return {record["name"]: record for record in records}


if __name__ == "__main__":
    sys.exit(main())
