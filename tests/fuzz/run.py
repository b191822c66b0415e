"""Coverage-guided fuzzing of everything that reads what strangers send, by atheris (extra `fuzz`).

    python tests/fuzz/run.py --minutes 2 [--only picture --only body] [--out FOLDER]

Each target runs in a process of its own for so long. What breaks it lies in FOLDER afterwards and its trace
is printed; mend the fault, and put the file into tests/fuzz/found/ under the name TARGET-WHAT, where the
replay keeps it for good. Exit code 1 when anything was found.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PATHS = [str(ROOT / name) for name in ("engine", "export", "cli", "tests")]
TARGETS = ("picture", "manifest", "graph", "request", "body", "identity", "data_uri")
LIMITS = ["-rss_limit_mb=2000", "-timeout=10", "-max_len=65536", "-print_final_stats=1"]


def main() -> int:
    """Runs the targets one after the other and prints a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=1.0, help="for each target")
    parser.add_argument("--only", action="append", choices=TARGETS, help="this target; again for more")
    parser.add_argument("--out", type=Path, help="where findings and the grown corpus go (a new folder)")
    parser.add_argument("--child", choices=TARGETS, help=argparse.SUPPRESS)
    options, rest = parser.parse_known_args()
    if options.child:
        fuzz(options.child, rest)
        return 0
    out = options.out or Path(tempfile.mkdtemp(prefix="faceavatar-fuzz-"))
    results = [run(name, options.minutes, out) for name in options.only or TARGETS]
    print(f"findings and corpus: {out}")
    return int(not all(results))


def run(name: str, minutes: float, out: Path) -> bool:
    """Fuzzes one target in a process of its own; whether nothing was found."""
    sys.path[:0] = PATHS
    from fuzz.seeds import seeds

    corpus = out / name
    corpus.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        for number, data in enumerate(seeds(name, Path(scratch))):
            (corpus / f"seed-{number:04}").write_bytes(data)
    command = [sys.executable, str(HERE / "run.py"), "--child", name, str(corpus), *LIMITS]
    command += [f"-max_total_time={int(minutes * 60)}", f"-artifact_prefix={out / name}-"]
    ran = subprocess.run(command, capture_output=True, text=True, errors="replace")
    executed = re.search(r"number_of_executed_units:\s*(\d+)", ran.stderr)
    covered = re.findall(r"cov: (\d+)", ran.stderr)
    print(
        f"{name:<10} {executed[1] if executed else '?':>9} runs, {covered[-1] if covered else '?':>6} edges",
        end="",
    )
    print(f", exit {ran.returncode}" if ran.returncode else ", nothing found", flush=True)
    if ran.returncode:
        print((ran.stdout + ran.stderr)[-6000:], flush=True)
    return ran.returncode == 0


def fuzz(name: str, arguments: list[str]) -> None:
    """In the child: imports all with coverage, and hands over to libFuzzer, which does not come back."""
    import atheris

    sys.path[:0] = PATHS
    with atheris.instrument_imports(include=["faceavatar", "faceavatar_cli", "PIL"]):
        from fuzz import targets

        from faceavatar.image import load_image

        load_image(b"P6 1 1 255\n\x00\x00\x00")  # Pillow comes with the first picture
        import PIL.Image

        PIL.Image.init()
    target = targets.TARGETS[name]

    def one_input(data: bytes) -> None:
        targets.tried(target, data)

    atheris.Setup([sys.argv[0], *arguments], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
