"""What the package is made of: its locks, its wheel, and the page that tells what each limit defends."""

from __future__ import annotations

import importlib.util
import re
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("", "engine/faceavatar/", "cli/faceavatar_cli/")


@pytest.fixture(scope="module")
def supply() -> ModuleType:
    spec = importlib.util.spec_from_file_location("supply", ROOT / "scripts" / "supply.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_locks_hold_what_is_asked_for_by_hash_and_name_no_registry(supply: ModuleType) -> None:
    assert supply.pinned() == 0
    for name in supply.LOCKS:
        text = (ROOT / "requirements" / f"{name}.lock").read_text()
        assert "://" not in text
        rows = [row for row in text.splitlines() if row and not row.startswith((" ", "#"))]
        assert len(rows) > 20
        assert all(re.match(r"[\w.-]+==\S+.*\\$", row) for row in rows)  # each is followed by its hashes
    assert set(supply.pins("base")) <= set(supply.pins("dev"))


def test_a_requirement_that_the_lock_does_not_meet_is_named(
    supply: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    locked = supply.pins("dev") | {"pillow": {"1.0"}}
    del locked["click"]
    monkeypatch.setattr(supply, "pins", lambda name: locked)
    assert supply.pinned() == 1
    said = capsys.readouterr().out
    assert re.search(r"base\.lock: pillow>=\S+ is pinned to 1\.0; run: python scripts/supply\.py lock", said)
    assert re.search(r"base\.lock: click>=\S+ is pinned to nothing", said)


@pytest.mark.parametrize("answer", [None, [{"name": "pydantic", "skip_reason": "not found"}]])
def test_an_audit_that_nobody_answers_is_told_as_not_checked(
    supply: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: object
) -> None:
    monkeypatch.setattr(supply, "_audited", lambda versions: answer)
    assert supply.audit() == supply.NOT_CHECKED
    assert capsys.readouterr().out.startswith("NOT CHECKED: ")


def test_a_vulnerable_pin_fails_the_audit(
    supply: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = {"name": "pydantic", "version": "2.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.1"]}]}
    monkeypatch.setattr(supply, "_audited", lambda versions: [bad])
    assert supply.audit() == 1
    assert "pydantic 2.0: PYSEC-1; mended in 2.1" in capsys.readouterr().out


def test_what_has_no_place_in_a_wheel_is_named(
    supply: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = tmp_path / "faceavatar-1-py3-none-any.whl"
    key = "-----BEGIN RSA " + "PRIVATE KEY-----"
    with zipfile.ZipFile(made, "w") as packed:
        for name in ("faceavatar-1.dist-info/licenses/LICENSE", "faceavatar/fine.py", "tests/test_it.py"):
            packed.writestr(name, "")
        packed.writestr("faceavatar/tests/x.py", "")
        packed.writestr("faceavatar/weights.onnx", "")
        packed.writestr("faceavatar/secret.py", key)
    monkeypatch.setattr(supply, "build", lambda folder: made)
    assert supply.wheel(tmp_path) == 1
    assert capsys.readouterr().out.splitlines()[:-1] == [
        "tests/test_it.py: lies outside faceavatar/, faceavatar_cli/, faceavatar_export/",
        "tests/test_it.py: has no place in a wheel",
        "faceavatar/tests/x.py: has no place in a wheel",
        "faceavatar/secret.py: holds what looks like a secret",
        "faceavatar/weights.onnx: weights without a licence",
        "NOTICE: missing",
    ]


def test_each_limit_of_the_threat_model_names_a_place_that_exists() -> None:
    rows = (ROOT / "SECURITY.md").read_text().partition("## What each limit defends")[2].splitlines()
    rows = [row for row in rows if row.startswith("| ")][1:]
    assert len(rows) > 15
    for row in rows:
        places = re.findall(r"`([^`]+)`", row.split(" | ")[1])
        assert places, row
        for place in places:
            assert any((ROOT / room / place).exists() for room in ROOMS), place
