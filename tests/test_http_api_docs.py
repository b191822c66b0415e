"""docs/API_HTTP.md tells the routes, fields, statuses and errors that there are, and its examples run."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, get_args

import pytest
from live_server import serving
from PIL import Image
from pydantic import BaseModel

import faceavatar.client
from faceavatar import AvatarEngine
from faceavatar.client import AsyncAvatarClient, AvatarClient, Avatars, Patience, ServiceError, Task
from faceavatar_cli.http.app import create_app
from faceavatar_cli.http.bodies import allowed
from faceavatar_cli.http.contract import Answer, GetImage, ImageToImage, Status, TaskAnswer
from faceavatar_cli.http.problems import STATUSES
from faceavatar_cli.http.settings import Limits, Settings, Token
from faceavatar_cli.http.tokens import hash_secret
from faceavatar_cli.http.webhook import PAUSES, SIGNATURE, TIMESTAMP

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "API_HTTP.md").read_text(encoding="utf-8")
PHOTO = ROOT / "tests" / "fixtures" / "photos" / "ardern.jpg"
SECRET = "a secret of thirty characters."
HERE = "http://127.0.0.1:8000"


def tables(heading: str) -> list[list[list[str]]]:
    """The tables under a heading: rows of cells, without the table's own heading."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    found: list[list[list[str]]] = []
    before = ""
    for line in section.splitlines():
        if line.startswith("|"):
            if not before.startswith("|"):
                found.append([])
            found[-1].append([cell.strip().strip("`") for cell in line.strip("|").split(" | ")])
        before = line
    return [table[2:] for table in found]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.S)


def test_every_route_is_told_with_its_statuses_and_whether_it_asks_for_a_token() -> None:
    document = create_app().openapi()
    routes = {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    (table,) = tables("Routes")
    assert [route for route, *_ in table] == list(routes)
    for route, token, _, statuses in table:
        assert statuses.split(", ") == sorted(routes[route]["responses"]), route
        assert (token == "yes") is bool(routes[route].get("security")), route


@pytest.mark.parametrize(("index", "model"), [(0, ImageToImage), (1, GetImage)])
def test_every_field_of_a_request_is_told_with_its_range_and_default(
    index: int, model: type[BaseModel]
) -> None:
    table = tables("The request")[index]
    assert [name for name, *_ in table] == list(model.model_fields)
    for name, takes, default, _ in table:
        field = model.model_fields[name]
        assert takes == allowed(model, name), name
        assert default == ("required" if field.is_required() else json.dumps(field.default)), name


def test_every_field_of_an_answer_is_told() -> None:
    eight, five = tables("The answer")
    assert [name for name, _ in eight] == list(Answer.model_fields)
    assert [name for name, _ in five] == [
        name for name in TaskAnswer.model_fields if name not in Answer.model_fields
    ]
    (words,) = [words for name, words in eight if name == "status"]
    assert tuple(re.findall(r"`(\w+)`", f"`{words}`")) == get_args(Status)


def test_every_error_code_is_told_with_its_status() -> None:
    (table,) = tables("Errors")
    told = [(int(status), code) for status, code, _ in table]
    assert told == [(status, code) for status, codes in STATUSES.items() for code in codes]


def test_the_headers_and_tries_of_webhooks_are_those_told() -> None:
    assert f"`{TIMESTAMP}`" in PAGE
    assert f"`{SIGNATURE}`" in PAGE
    assert len(PAUSES) == 3
    assert "is tried three times more" in PAGE


@pytest.mark.parametrize("kind", [AvatarClient, AsyncAvatarClient])
def test_every_call_of_the_clients_is_told_with_its_arguments(kind: type) -> None:
    calls, _ = tables("The Python client")
    told = {re.sub(r"\(.*", "", call): call for call, _ in calls}
    public = [name for name, value in vars(kind).items() if callable(value) and not name.startswith("_")]
    assert set(told) == {"AvatarClient", *(f"client.{name}" for name in public)}
    for name in (*public, "AvatarClient"):
        call = told.get(name) or told[f"client.{name}"]
        signature = inspect.signature(getattr(kind, name, kind))
        names = [each for each in signature.parameters if each != "self"]
        assert re.findall(r"(\w+)(?:=[\w.()]+)?[,)]", call.partition("(")[2]) == names, call
        for each, default in re.findall(r"(\w+)=([\d.]+)", call):
            assert signature.parameters[each].default == float(default)


def test_every_error_of_the_client_is_told_with_its_code() -> None:
    _, table = tables("The Python client")
    errors = {
        name: value.code
        for name in faceavatar.client.__all__
        if isinstance(value := getattr(faceavatar.client, name), type) and issubclass(value, ServiceError)
    }
    assert {name: code for name, code, _ in table} == errors


@pytest.mark.parametrize("kind", [Avatars, Task])
def test_every_attribute_of_what_the_client_gives_is_told(kind: Any) -> None:
    told = PAGE.split(f"`{kind.__name__}`: ")[1].split("\n\n")[0]
    for field in dataclasses.fields(kind):
        assert f"`{field.name}`" in told, field.name


def test_the_defaults_of_patience_are_those_told() -> None:
    patience = Patience()
    assert f"`Patience(tries={patience.tries}, longest={patience.longest})`" in PAGE


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with the embedded pack and one token, which may fetch from this machine."""
    settings = Settings(
        outputs=tmp_path_factory.mktemp("outputs"),
        tokens=(Token("reader", hash_secret(SECRET), Limits()),),
        allowed_hosts=frozenset({"localhost"}),
    )
    toon = AvatarEngine.load("toon", provider="cpu", threads=1)
    with serving(create_app(settings, engines={"toon": toon})) as url:
        yield url


class Album(SimpleHTTPRequestHandler):
    """Serves a folder, and says nothing."""

    def log_message(self, *args: object) -> None: ...


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        picture.load()
        return picture.size


def run(program: list[str], code: str, folder: Path) -> str:
    """The output of an example, run in a folder with a selfie in it."""
    shutil.copy(PHOTO, folder / "selfie.jpg")
    paths = os.pathsep.join(path for path in sys.path if path)
    ran = subprocess.run(
        [*program, code],
        cwd=folder,
        env=os.environ | {"TOKEN": SECRET, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_the_first_example_answers_as_it_says(served: str, tmp_path: Path) -> None:
    first, _ = blocks("sh")
    (told,) = (json.loads(block) for block in blocks("json"))
    answer = json.loads(run(["sh", "-ec"], first.replace(HERE, served), tmp_path))
    assert list(answer) == list(told)
    assert len(answer["output"]) == len(told["output"]) == 2
    for shown, url in zip(told["output"], answer["output"], strict=True):
        assert len(url) == len(shown.replace(HERE, served))
        assert url.startswith(f"{served}/outputs/")
    changing = {"time_required", "output", "task_id"}
    assert {name: answer[name] for name in answer if name not in changing} == {
        name: told[name] for name in told if name not in changing
    }
    assert len(answer["task_id"]) == len(told["task_id"])


def test_the_queued_example_ends_with_a_picture(served: str, tmp_path: Path) -> None:
    _, second = blocks("sh")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Album, directory=tmp_path)) as album:
        threading.Thread(target=album.serve_forever).start()
        try:
            code = second.replace(HERE, served)
            code = code.replace("https://example.com", f"http://localhost:{album.server_port}")
            told = run(["sh", "-ec"], code, tmp_path)
        finally:
            album.shutdown()
    assert '"status": "completed"' in told.split("event: task")[-1]
    assert size_of(tmp_path / "avatar.png") == (512, 512)


def test_the_python_example_saves_its_avatars(served: str, tmp_path: Path) -> None:
    (code,) = blocks("python")
    told = run([sys.executable, "-c"], code.replace(HERE, served), tmp_path)
    assert sorted(path.name for path in (tmp_path / "avatars").iterdir()) == ["avatar-7.png", "avatar-8.png"]
    assert size_of(tmp_path / "inked.png") == (512, 512)
    assert re.search(r"^(queued|running): \d/\d$", told, re.M)
