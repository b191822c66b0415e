"""The one check command: style, types, layers, supply, tests. All of it runs; exits with 0 when all passed.

    python scripts/check.py [arguments for pytest]

pytest comes last, so that its summary is the last line. What failed before it is named just above it. It runs
one process for each core, whole files each, in the order of their names: the exports, the longest, begin
early. Tests that compare speeds run before, with the machine to themselves.

What could not be checked, because a service is out of reach, fails nothing and is told as NOT CHECKED.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STATIC = {
    "ruff check": ["-m", "ruff", "check", "."],
    "ruff format": ["-m", "ruff", "format", "--check", "."],
    "mypy": ["-m", "mypy", "engine", "export", "cli", "benchmarks", "scripts"],
    "import-linter": ["-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"],
}
SUPPLY = ("pinned", "licences", "audit")  # scripts/supply.py tells what they are
NOT_CHECKED = 3  # its exit code
NO_TESTS = 5  # pytest's exit code
PYTEST = [
    "-m",
    "pytest",
    "-n",
    str(os.cpu_count()),
    "--dist",
    "loadfile",
    "--no-loadscope-reorder",
    "--durations=25",
]


def run(name: str, arguments: list[str]) -> bool:
    print(f"-- {name}", flush=True)
    return subprocess.run([sys.executable, *arguments], cwd=ROOT).returncode == 0


def alone() -> bool:
    """The tests that compare speeds, each file in a process of its own, for what one leaves behind slows the
    next; of the tests asked for there may be none."""
    files = [file for file in sorted(ROOT.glob("tests/**/test_*.py")) if "mark.alone" in file.read_text()]
    passed = True
    for asked in [sys.argv[1:]] if sys.argv[1:] else [[str(file)] for file in files]:
        print("-- pytest, alone", flush=True)
        command = [sys.executable, "-m", "pytest", "-s", *asked, "-m", "alone"]
        passed &= subprocess.run(command, cwd=ROOT).returncode in (0, NO_TESTS)
    return passed


def supply() -> tuple[list[str], list[str]]:
    """What failed, and what was not checked: locks, licences, vulnerabilities, the wheel."""
    failed, unchecked = [], []
    with tempfile.TemporaryDirectory() as folder:
        for command in (*SUPPLY, f"wheel {folder}", f"sbom {folder}"):
            name = command.partition(" ")[0]
            print(f"-- {name}", flush=True)
            code = subprocess.run(
                [sys.executable, "scripts/supply.py", *command.split()], cwd=ROOT
            ).returncode
            if code == NOT_CHECKED:
                unchecked.append(name)
            elif code:
                failed.append(name)
    return failed, unchecked


def main() -> int:
    failed = [name for name, arguments in STATIC.items() if not run(name, arguments)]
    more, unchecked = supply()
    failed += more
    if unchecked:
        print(f"-- NOT CHECKED: {', '.join(unchecked)}", flush=True)
    if failed:
        print(f"-- FAILED so far: {', '.join(failed)}", flush=True)
    tests = alone() & run("pytest", [*PYTEST, "-m", "not heavy and not alone", *sys.argv[1:]])
    return 0 if tests and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
