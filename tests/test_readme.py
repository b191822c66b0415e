"""What the README says is run: its Python, its commands, its links."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from live_server import serving

from faceavatar import AvatarEngine
from faceavatar_cli.http.app import create_app
from faceavatar_cli.http.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PHOTO = ROOT / "tests" / "fixtures" / "photos" / "astronaut.jpg"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.S)


def test_the_python_of_the_readme_runs_as_it_stands(tmp_path: Path) -> None:
    code, _ = blocks("python")
    shutil.copy(PHOTO, tmp_path / "selfie.jpg")
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    assert len(list((tmp_path / "avatars").glob("*.png"))) == 2
    assert "4/4" in run.stdout


def test_the_client_of_the_readme_gets_its_avatars_from_a_server(tmp_path: Path) -> None:
    _, code = blocks("python")
    shutil.copy(PHOTO, tmp_path / "selfie.jpg")
    toon = AvatarEngine.load("toon", provider="cpu", threads=1)
    with serving(create_app(Settings(outputs=tmp_path / "outputs"), engines={"toon": toon})) as url:
        code = code.replace("http://127.0.0.1:8000", url)
        run = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
    assert run.returncode == 0, run.stderr
    assert len(list((tmp_path / "avatars").glob("*.png"))) == 2
    assert (tmp_path / "story.png").is_file()
    assert re.match(r"(queued|running) \d \d\n", run.stdout)


def test_the_first_command_is_one_that_the_command_line_understands(tmp_path: Path) -> None:
    first, _ = blocks("sh")
    arguments = first.split(".venv/bin/faceavatar ")[1].split()
    command = [sys.executable, "-m", "faceavatar_cli", *arguments]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert len(list((tmp_path / "avatars").glob("*.png"))) == 1


def test_continuous_integration_runs_the_test_command_of_the_readme() -> None:
    _, second = blocks("sh")
    for part in ("-e '.[test,dev]'", "scripts/check.py"):
        assert part in second
        assert part in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_links_of_the_readme_lead_somewhere(target: str) -> None:
    assert (ROOT / target).exists()
