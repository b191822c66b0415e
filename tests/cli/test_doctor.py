"""`faceavatar doctor`: it names what is wrong and the line that cures it, and ends with 1 then."""

from __future__ import annotations

import json
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from faceavatar.backends import PROVIDERS, available_providers
from faceavatar_cli import checks, provider_checks

ROOT = Path(__file__).parents[2]


def install(folder: Path, name: str, version: str) -> None:
    """What pip leaves of a package for importlib.metadata to find."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def named(told: dict[str, Any], name: str) -> dict[str, Any]:
    return next(check for check in told["checks"] if check["name"] == name)


@pytest.mark.parametrize(
    ("rival", "module", "cure"),
    [
        (
            "onnxruntime-gpu",
            "onnxruntime",
            "pip uninstall -y onnxruntime-gpu onnxruntime && pip install onnxruntime-gpu",
        ),
        (
            "onnxruntime_directml",
            "onnxruntime",
            "pip uninstall -y onnxruntime-directml onnxruntime && pip install onnxruntime-directml",
        ),
        (
            "opencv-python",
            "cv2",
            "pip uninstall -y opencv-python-headless opencv-python && pip install opencv-python-headless",
        ),
    ],
)
def test_two_packages_in_one_folder_are_named_with_their_cure(
    run: Any, place: Path, monkeypatch: pytest.MonkeyPatch, rival: str, module: str, cure: str
) -> None:
    install(place / "site", rival, "1.2.3")
    monkeypatch.syspath_prepend(place / "site")
    ran = run("doctor", "--json")
    assert ran.code == 1
    assert ran.err.startswith("error[doctor]: ")
    check = named(ran.json, module)
    assert not check["ok"]
    assert f"{rival.replace('_', '-')} 1.2.3" in check["found"]
    assert check["fix"] == cure


def test_a_clash_is_found_by_a_process_of_its_own(
    process: Callable[..., subprocess.Popen[bytes]], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(place / "site", "onnxruntime-openvino", "1.23.0")
    monkeypatch.syspath_prepend(place / "site")
    child = process("doctor", "--json")
    out, _ = child.communicate(timeout=60)
    assert child.returncode == 1
    assert "onnxruntime-openvino 1.23.0" in named(json.loads(out), "onnxruntime")["found"]


def test_the_sound_parts_of_this_installation_are_called_so(run: Any) -> None:
    ran = run("doctor", "--json")
    for name in ("python", "onnxruntime", "cv2", "packages", "providers", "pack tiny", "memory"):
        assert named(ran.json, name)["ok"], named(ran.json, name)
    assert "cpu" in named(ran.json, "providers")["found"]
    assert ran.json["ok"] is (ran.code == 0)


def test_with_its_embedded_pack_all_is_well(run: Any) -> None:
    ran = run("doctor")
    assert (ran.code, ran.err) == (0, "")
    assert "problem" not in ran.out


def test_a_broken_pack_is_named_with_its_cure(
    run: Any, tiny: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = shutil.copytree(tiny, place / "packs" / "tiny")
    (broken / "unet.onnx").write_bytes(b"changed")
    monkeypatch.setenv("FACEAVATAR_PACKS", str(place / "packs"))
    ran = run("doctor")
    assert ran.code == 1
    lines = ran.out.splitlines()
    at = next(index for index, line in enumerate(lines) if "pack tiny" in line)
    assert lines[at].startswith("problem")
    assert "unet.onnx" in lines[at]
    assert str(broken) in lines[at + 1]


def test_a_search_path_that_leads_nowhere_is_named(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACEAVATAR_PACKS", "/no/such/folder")
    ran = run("doctor")
    assert ran.code == 1
    assert "FACEAVATAR_PACKS names /no/such/folder, which is no folder" in ran.out


@pytest.mark.parametrize(
    ("version", "fine"), [((3, 10), False), ((3, 11), True), ((3, 13), True), ((3, 14), False)]
)
def test_python_must_be_one_that_the_package_is_made_for(version: tuple[int, int], fine: bool) -> None:
    assert checks.check_python(version).ok is fine


def test_a_package_that_is_not_installed_is_named() -> None:
    found = {check.name: check for check in checks.check_clashes({"numpy": "2.0"})}
    assert found["onnxruntime"].fix == "pip install onnxruntime"
    assert found["cv2"].fix == "pip install opencv-python-headless"


def test_a_module_that_fails_to_import_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "MODULES", {"no_such_module": "no-such-package"})
    (check,) = checks.check_modules()
    assert check.fix == "pip install --force-reinstall no-such-package"
    assert "ModuleNotFoundError" in check.found


def test_an_idle_gpu_is_a_problem_where_its_libraries_were_installed_and_else_a_remark() -> None:
    if "cuda" in available_providers():
        pytest.skip("the GPU here is not idle")
    assert list(provider_checks.check_gpu({}, driver=False)) == []
    (remark,) = provider_checks.check_gpu({}, driver=True)
    assert remark.ok
    assert remark.found.endswith(provider_checks.EXCHANGE)
    (problem,) = provider_checks.check_gpu({provider_checks.CUDA_LIBRARY: "9.1"}, driver=True)
    assert problem.fix == provider_checks.EXCHANGE
    assert "cuda" in problem.found


def test_libraries_of_two_cudas_in_one_environment_are_named_with_their_cure() -> None:
    installed = {
        "nvidia-cudnn-cu12": "9.1",
        "nvidia-cublas-cu12": "12.4.5",
        "nvidia-cudnn-cu13": "9.20",
        "nvidia-cuda-runtime": "13.0.96",
        "nvidia-curand": "10.4",
        "numpy": "2.4",
    }
    (found,) = provider_checks.check_cuda_majors(installed)
    assert "CUDA 12 (nvidia-cublas-cu12, nvidia-cudnn-cu12)" in found.found
    assert "CUDA 13 (nvidia-cuda-runtime, nvidia-cudnn-cu13)" in found.found
    assert found.fix == "pip uninstall -y nvidia-cublas-cu12 nvidia-cudnn-cu12"
    one = {name: version for name, version in installed.items() if not name.endswith("cu12")}
    assert list(provider_checks.check_cuda_majors(one)) == []


def test_every_provider_is_either_offered_or_absent_with_its_reason(run: Any) -> None:
    told = run("doctor", "--json").json
    offered = named(told, "providers")["found"].split(";")[0].split(", ")
    assert offered == available_providers()
    for name in PROVIDERS:
        if name not in offered:
            check = named(told, name)
            assert check["ok"]
            assert check["found"].startswith("not here: ")
            assert "pip install" in check["found"] or "nvidia-smi" in check["found"]


def test_a_check_that_dies_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def check_memory() -> Any:
        raise RuntimeError("out of order")

    monkeypatch.setattr(checks, "check_memory", check_memory)
    dead = [check for check in checks.examine() if check.name == "memory"]
    assert [check.found for check in dead] == ["cannot be checked: RuntimeError: out of order"]


def test_memory_heeds_the_limit_of_a_container(tmp_path: Path) -> None:
    group = tmp_path / "sys" / "fs" / "cgroup"
    group.mkdir(parents=True)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 9000000 kB\nMemAvailable:  8000000 kB\n")
    assert checks.available_memory(tmp_path) == 8000000 * 1024
    (group / "memory.max").write_text("max\n")
    assert checks.available_memory(tmp_path) == 8000000 * 1024
    (group / "memory.max").write_text("600\n")
    (group / "memory.current").write_text("500\n")
    (group / "memory.stat").write_text("anon 100\ninactive_file 300\n")
    assert checks.available_memory(tmp_path) == 400
    assert checks.available_memory(tmp_path / "sys") is None


def test_the_packages_and_pythons_checked_are_those_of_the_project_file() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {requirement.partition(">")[0] for requirement in project["dependencies"]}
    cuda = " ".join(project["optional-dependencies"]["cuda"])
    assert provider_checks.CUDA_LIBRARY in cuda
    assert {*checks.MODULES.values(), "onnxruntime"} == needed
    low, high = checks.OLDEST_PYTHON, checks.NEWEST_PYTHON
    assert project["requires-python"] == f">={low[0]}.{low[1]},<{high[0]}.{high[1] + 1}"
