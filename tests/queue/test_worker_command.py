"""`faceavatar worker` says what it connects to and what it draws with, or why it cannot."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from queue_rig import Queue, environment, until

from faceavatar.pack import Pack, find_pack
from faceavatar_cli.main import main
from faceavatar_cli.queue.settings import queue_settings, shown_url

NOBODY = "redis://joe:secret@127.0.0.1:9/3"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    """Runs the command in this process; its exit code and its one line."""
    for name in [name for name in os.environ if name.startswith("FACEAVATAR_")]:
        monkeypatch.delenv(name)

    def call(*arguments: str) -> tuple[int, str]:
        code = main(["worker", *arguments])
        (line,) = capfd.readouterr().err.splitlines()
        return code, line

    return call


def test_a_worker_tells_its_pack_and_where_it_is_connected_but_no_password(
    redis_queue: Queue, tmp_path: Path
) -> None:
    redis_queue.client.config_set("requirepass", "very-secret")
    url = redis_queue.settings.broker.replace("redis://", "redis://:very-secret@")
    settings = environment() | {"FACEAVATAR_BROKER": url, "FACEAVATAR_OUTPUTS": str(tmp_path / "outputs")}
    log = tmp_path / "log"
    with log.open("wb") as file:
        command = [sys.executable, "-m", "faceavatar_cli", "worker"]
        process = subprocess.Popen(command, env=settings, stdout=file, stderr=file)
    redis_queue.workers.append(process)
    until(lambda: "ready." in log.read_text(), "the worker is ready")
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    said = log.read_text()
    place = shown_url(redis_queue.settings.broker)
    toon = f"toon {Pack.load(find_pack('toon')).manifest.version}"
    assert f"draws with {toon}; broker {place}, results {place}, outputs {tmp_path}/outputs" in said
    assert "very-secret" not in said
    assert "Traceback" not in said


def test_a_broker_that_does_not_answer_ends_with_11(run: Any, tmp_path: Path) -> None:
    code, line = run("--broker", NOBODY, "--outputs", str(tmp_path))
    assert code == 11
    assert line.startswith("error[queue_unavailable]: the broker redis://127.0.0.1:9/3 does not answer (")
    assert line.endswith("; start it, or name another")
    assert "secret" not in line


def test_a_result_store_that_does_not_answer_ends_with_11(
    run: Any, redis_queue: Queue, tmp_path: Path
) -> None:
    code, line = run("--broker", redis_queue.settings.broker, "--results", NOBODY, "--outputs", str(tmp_path))
    assert code == 11
    assert "the result store redis://127.0.0.1:9/3 does not answer" in line
    assert "secret" not in line


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), "--broker: got None, allowed a URL such as redis://host/0, or --state"),
        (("--broker", NOBODY), "--outputs: got None, allowed a folder or fsspec URL that the server"),
        (
            ("--broker", "kafka://u:secret@x/1", "--outputs", "o"),
            "--broker: got 'kafka://x/1', allowed a URL",
        ),
        (
            ("--broker", "redis", "--outputs", "o"),
            "--broker: got 'no URL', allowed a URL of these: redis://,",
        ),
        (
            ("--broker", "amqp://u:secret@x/", "--outputs", "o"),
            "--results: got None, allowed a Redis or Valkey",
        ),
        (
            ("--broker", NOBODY, "--results", "db://x", "--outputs", "o"),
            "--results: got 'db://x', allowed a URL",
        ),
        (
            ("--broker", NOBODY, "--outputs", "gopher://x"),
            "--outputs: got 'gopher://x', allowed a folder, or",
        ),
        (("--broker", NOBODY, "--outputs", "o", "--keep", "0"), "--keep: got 0.0, allowed more than 0"),
    ],
)
def test_what_is_wrong_is_named_by_its_flag(run: Any, flags: tuple[str, ...], words: str) -> None:
    code, line = run(*flags)
    assert code == 2
    assert line.startswith(f"error[invalid_request]: {words}")
    assert "secret" not in line


def test_an_unknown_pack_ends_with_5_before_anything_is_connected_to(run: Any) -> None:
    code, line = run("--broker", NOBODY, "--outputs", "o", "--pack", "nope")
    assert code == 5
    assert "packs found:" in line


@pytest.mark.parametrize("package", ["celery", "redis"])
def test_an_absent_package_ends_with_8_and_says_how_to_get_it(
    run: Any, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    for name in [name for name in sys.modules if name.startswith("faceavatar_cli.queue")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    code, line = run("--broker", NOBODY, "--outputs", "o")
    assert code == 8
    assert line.startswith(
        f"error[missing_extra]: needs the package {package}: pip install 'faceavatar[queue]'"
    )


def test_environment_variables_stand_in_for_flags(
    run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FACEAVATAR_BROKER", "amqp://joe:secret@127.0.0.1:9//")
    monkeypatch.setenv("FACEAVATAR_RESULTS", NOBODY)
    monkeypatch.setenv("FACEAVATAR_OUTPUTS", str(tmp_path))
    code, line = run()
    assert code == 11
    assert "the broker amqp://127.0.0.1:9// does not answer" in line
    assert "secret" not in line


def test_a_flag_wins_over_the_environment_and_two_queues_are_one_too_many(
    run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FACEAVATAR_BROKER", NOBODY)
    code, line = run("--state", str(tmp_path))
    assert code == 11
    assert f"the broker redis+socket://{tmp_path}/broker/valkey.sock does not answer" in line
    code, line = run("--state", str(tmp_path), "--broker", NOBODY)
    assert code == 2
    assert line == "error[invalid_request]: --state: got '--broker beside it', allowed one of the two"


def test_other_names_of_valkey_are_understood_and_urls_shown_without_what_is_secret() -> None:
    settings = queue_settings("valkey://joe:secret@example.org:7000/2?ssl=secret", "out")
    assert settings.broker == "redis://joe:secret@example.org:7000/2?ssl=secret"
    assert settings.told() == (
        "broker redis://example.org:7000/2, results redis://example.org:7000/2, outputs out"
    )
    assert "secret" not in repr(settings)
    assert queue_settings("unix:///run/valkey.sock", "out").broker == "redis+socket:///run/valkey.sock"
    assert shown_url("redis://[nonsense") == "redis://..."
