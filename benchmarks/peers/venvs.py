"""An environment for each peer, from its requirements file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REQUIREMENTS = Path(__file__).parent / "requirements"
_DONE = "complete"  # written last: an environment that was cut off is made anew


def python_of(venv: str, folder: Path) -> Path:
    """The interpreter of a peer's environment, made first where it is not there yet; ours runs this.

    pip's own settings say where packages come from. Raises RuntimeError with pip's last line.
    """
    if venv == "ours":
        return Path(sys.executable)
    home = folder / venv
    python = home / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if not (home / _DONE).exists():
        print(f"making {home} ...", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        wanted = str(REQUIREMENTS / f"{venv}.txt")
        command = [str(python), "-m", "pip", "install", "-q", "-r", wanted]
        ran = subprocess.run(command, capture_output=True, text=True)
        if ran.returncode:
            raise RuntimeError(f"pip install -r {wanted}: {(ran.stderr.strip().splitlines() or ['?'])[-1]}")
        (home / _DONE).touch()
    return python
