"""The container files say what they should: hadolint and compose's specification read them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

ROOT = Path(__file__).resolve().parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE_FILES = ("compose.yaml", "compose.cuda.yaml")


def instructions(name: str) -> list[str]:
    """What follows an instruction, each time that it stands in the Dockerfile, continued lines joined."""
    joined = DOCKERFILE.replace("\\\n", " ")
    return [line.split(maxsplit=1)[1] for line in joined.splitlines() if line.startswith(f"{name} ")]


def compose(*names: str) -> dict[str, Any]:
    """Compose files laid over each other, as `docker compose -f a -f b` does with mappings."""
    merged: dict[str, Any] = {}
    for name in names:
        merged = laid_over(merged, yaml.safe_load((ROOT / name).read_text(encoding="utf-8")))
    return merged


def laid_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    both = {key for key in below if isinstance(below[key], dict) and isinstance(above.get(key), dict)}
    return below | above | {key: laid_over(below[key], above[key]) for key in both}


def hadolint(text: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    assert program, "hadolint comes with the extra `test`"
    return subprocess.run(
        [program, "--no-color", "-"], input=text, capture_output=True, text=True, timeout=60
    )


def test_hadolint_has_nothing_to_say() -> None:
    checked = hadolint(DOCKERFILE)
    assert (checked.returncode, checked.stdout) == (0, "")


def test_hadolint_would_speak_of_a_base_image_without_a_tag() -> None:
    assert "DL3006" in hadolint(re.sub(r"FROM python:\S+", "FROM python", DOCKERFILE)).stdout


def test_there_is_an_image_for_processors_and_one_for_nvidia_gpus() -> None:
    stages = [line.split(" AS ") for line in instructions("FROM")]
    assert {"cpu", "cuda"} <= {name for _, name in stages}
    assert stages[-1][1] == "cpu", "the last stage is what a build without --target gives"
    outside = [base for base, _ in stages if base not in {name for _, name in stages}]
    assert all(re.fullmatch(r"[\w/.]+:\d+\.\d+\.\d+[\w.-]*", base) for base in outside), outside


def test_the_images_run_as_a_number_that_is_not_root_and_hold_no_build_stage() -> None:
    (user,) = instructions("USER")
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user)
    for stage in ("cpu", "cuda"):
        last = DOCKERFILE.split(f"FROM run AS {stage}\n")[1].split("\nFROM ")[0]
        assert f"COPY --from=build-{stage} /opt/faceavatar /opt/faceavatar" in last


def test_all_that_the_build_copies_is_let_through_to_it_and_is_there() -> None:
    let_through = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }
    copied = {name for line in instructions("COPY") if "--from" not in line for name in line.split()[:-1]}
    assert copied == let_through
    assert all((ROOT / name).exists() for name in copied)


def test_the_python_of_the_images_and_their_extras_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    low, high = re.findall(r"3\.(\d+)", project["requires-python"])
    (minor,) = set(re.findall(r"FROM python:3\.(\d+)\.", DOCKERFILE))
    assert int(low) <= int(minor) < int(high)
    asked = set(",".join(re.findall(r"faceavatar\[([\w,-]+)\] @", DOCKERFILE)).split(","))
    assert asked
    assert asked <= set(project["optional-dependencies"])


def test_the_health_check_asks_a_route_that_the_service_has() -> None:
    from faceavatar_cli.http.app import create_app

    (route,) = re.findall(r"127\.0\.0\.1:8000(/\w+)", DOCKERFILE)
    assert route in create_app().openapi()["paths"]


@pytest.mark.parametrize("names", [COMPOSE_FILES[:1], COMPOSE_FILES], ids=["cpu", "cuda"])
def test_the_compose_files_follow_the_specification_and_name_only_what_they_define(
    names: tuple[str, ...],
) -> None:
    content = compose(*names)
    read = PyCompose.from_json(json.dumps(content))
    read.validate()
    assert set(read.service_names()) == {"service", "worker", "valkey"}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"networks": ["nowhere"]}, "nowhere"),
        ({"ports": ["eight"]}, "port"),
        ({"depends_on": {"valkey": {"condition": "service_is_fine"}}}, "service_is_fine"),
        ({"no_such_key": 1}, "no_such_key"),
    ],
)
def test_a_slip_in_a_compose_file_would_be_found(change: dict[str, Any], complaint: str) -> None:
    content = laid_over(compose("compose.yaml"), {"services": {"service": change}})
    with pytest.raises(ValueError, match=complaint):
        PyCompose.from_json(json.dumps(content)).validate()


def test_every_volume_and_every_service_that_is_waited_for_is_defined() -> None:
    content = compose(*COMPOSE_FILES)
    for settings in content["services"].values():
        assert {volume.partition(":")[0] for volume in settings["volumes"]} <= set(content["volumes"])
        for name, waited in settings.get("depends_on", {}).items():
            assert waited == {"condition": "service_healthy"}
            assert "healthcheck" in content["services"][name]


@pytest.mark.parametrize("service", ["service", "worker", "valkey"])
def test_every_container_is_locked_up(service: str) -> None:
    settings = compose(*COMPOSE_FILES)["services"][service]
    assert settings["read_only"] is True
    assert settings["cap_drop"] == ["ALL"]
    assert settings["security_opt"] == ["no-new-privileges:true"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", settings["user"])
    assert settings["restart"] == "unless-stopped"
    assert "privileged" not in settings
    image = settings["image"].rpartition(":")
    assert image[0]
    assert image[2] not in {"", "latest"}


def test_service_and_worker_are_the_image_that_is_built_as_its_user_and_share_what_they_must() -> None:
    services = compose("compose.yaml")["services"]
    for name in ("service", "worker"):
        settings = services[name]
        assert settings["image"] == f"faceavatar:{settings['build']['target']}"
        assert settings["user"] == instructions("USER")[0]
        assert settings["environment"]["FACEAVATAR_BROKER"] == "redis://valkey:6379/0"
        assert settings["environment"]["FACEAVATAR_OUTPUTS"].startswith("/data/")
        assert settings["volumes"] == ["data:/data"]
        assert settings["depends_on"]["valkey"]["condition"] == "service_healthy"
    assert services["service"]["ports"] == ["127.0.0.1:8000:8000"]
    assert "ports" not in services["valkey"], "the queue is nobody's business outside"


def test_the_worker_is_asked_for_its_health_in_another_way_than_the_service() -> None:
    services = compose("compose.yaml")["services"]
    assert "healthcheck" not in services["service"], "the image's own"
    command = services["worker"]["healthcheck"]["test"]
    assert command[:3] == ["CMD", "python", "-m"]
    assert find_spec(command[3])


def test_no_container_starts_without_tokens_being_given() -> None:
    environment = compose("compose.yaml")["services"]["service"]["environment"]
    assert environment["FACEAVATAR_TOKENS"].startswith("${FACEAVATAR_TOKENS:?")


def test_both_that_draw_get_the_gpu_and_the_image_for_it() -> None:
    services = compose(*COMPOSE_FILES)["services"]
    for name in ("service", "worker"):
        (device,) = services[name]["deploy"]["resources"]["reservations"]["devices"]
        assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
        assert services[name]["image"] == "faceavatar:cuda"
        assert services[name]["build"]["target"] == "cuda"
