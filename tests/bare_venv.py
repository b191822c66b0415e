"""Builds a virtual environment that holds what `pip install faceavatar` brings and nothing else: no torch.

The packages are links to those installed here, so that no index is asked; which they are is read from the
metadata, as pip reads it.
"""

from __future__ import annotations

import sys
import sysconfig
import venv
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

import faceavatar
import faceavatar_cli

NAME = "faceavatar"


def build(folder: Path) -> Path:
    """Make it in a new folder; gives its Python."""
    venv.create(folder, with_pip=False, symlinks=True)
    variables = {"base": str(folder), "platbase": str(folder)}
    site = Path(sysconfig.get_path("purelib", "venv", variables))
    for dist in _needed(NAME).values():
        for top in {file.parts[0] for file in dist.files or () if file.parts[0] not in ("..", "__pycache__")}:
            link = site / top
            if not link.exists():
                link.symlink_to(Path(str(dist.locate_file(top))))
    roots = (Path(str(package.__file__)).parents[1] for package in (faceavatar, faceavatar_cli))
    (site / f"{NAME}.pth").write_text("".join(f"{root}\n" for root in roots))
    return folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"


def _needed(name: str) -> dict[str, Distribution]:
    """The distributions that one requires without any extra, and theirs."""
    found: dict[str, Distribution] = {}
    open_names = [name]
    while open_names:
        for line in distribution(open_names.pop()).requires or ():
            wanted = Requirement(line)
            if wanted.name not in found and (wanted.marker is None or wanted.marker.evaluate({"extra": ""})):
                found[wanted.name] = distribution(wanted.name)
                open_names.append(wanted.name)
    return found
