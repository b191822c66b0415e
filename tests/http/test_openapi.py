"""The OpenAPI document is true: calls generated from it, valid and invalid ones, are answered as it says."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed
from hypothesis import settings as hypothesis_settings
from live_server import serving
from PIL import Image
from schemathesis import GenerationMode
from service_client import PHOTOS, Running, data_uri

from faceavatar import AvatarEngine
from faceavatar_cli.http import Limits, Settings, Token, create_app
from faceavatar_cli.http.contract import EXAMPLE_ANSWER, EXAMPLE_REQUEST, Answer, ImageToImage
from faceavatar_cli.http.problems import STATUS_OF
from faceavatar_cli.http.tokens import hash_secret


def small_photo() -> bytes:
    """Small enough to be read in a failure's message."""
    picture = io.BytesIO()
    Image.open(PHOTOS / "astronaut.jpg").resize((160, 160)).save(picture, "JPEG", quality=70)
    return picture.getvalue()


SECRET = "the schema's own secret"
PHOTO = small_photo()
WEIGHTS = {  # of all calls, in hundredths, half of them valid
    "POST /getImageToImage": 50,
    "POST /getImage": 16,
    "GET /tasks/{task_id}": 8,
    "DELETE /tasks/{task_id}": 8,
    "GET /tasks/{task_id}/events": 6,
    "GET /outputs/{name}": 8,
    "GET /healthz": 0,  # nothing about them can be varied: once is enough
    "GET /readyz": 0,
    "GET /metrics": 4,
}


@dataclass
class Caller:
    """Makes the calls of a schema, and leads half of them to what there is."""

    url: str
    counts: Counter[tuple[str, int]] = field(default_factory=Counter)
    tasks: list[str] = field(default_factory=lambda: ["none"])
    pictures: list[str] = field(default_factory=lambda: ["none"])
    number: Iterator[int] = field(default_factory=count)

    def call(self, label: str, case: Any, valid: bool) -> None:
        """One call, held against the document; raises what schemathesis finds."""
        number = next(self.number)
        if valid and label == "POST /getImageToImage":
            self._draw_something_small(case, form=case.media_type == "multipart/form-data")
        if valid and number % 2 and "task_id" in (case.path_parameters or {}):
            case.path_parameters["task_id"] = self.tasks[number % len(self.tasks)]
        if valid and number % 2 and label == "POST /getImage":
            case.body["id"] = self.tasks[number % len(self.tasks)]
        if valid and number % 2 and "name" in (case.path_parameters or {}):
            case.path_parameters["name"] = self.pictures[number % len(self.pictures)]
        response = case.call_and_validate(headers={"Authorization": f"Bearer {SECRET}"})
        self.counts[label, response.status_code] += 1
        if label == "POST /getImageToImage" and response.status_code == 200:
            answer = response.json()
            self.tasks.append(answer["task_id"])
            self.pictures += [url.rpartition("/")[2] for url in answer["output"]]

    def _draw_something_small(self, case: Any, form: bool) -> None:
        """A photo that can be read, so that what is valid must be accepted; no webhook, as strangers are none
        of a test's business; and sizes that are quickly drawn.
        """
        body = case.body
        body["image"] = PHOTO if form else data_uri(PHOTO)
        body.pop("webhook", None)
        # One face; a pack without those graphs; two numbers whose order no schema tells.
        for name in ("face_index", "controlnet_scale", "strength", "step_cache", "guidance_interval"):
            body.pop(name, None)
        for name, most in {
            "height": 300,
            "width": 300,
            "batch": 2,
            "num_inference_steps": 2,
            "best_of": 2,
        }.items():
            if isinstance(body.get(name), int):
                body[name] = min(body[name], most)


@pytest.fixture(scope="module")
def caller(engine: AvatarEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    settings = Settings(
        outputs=tmp_path_factory.mktemp("outputs"),
        tokens=(Token("schema", hash_secret(SECRET), Limits(per_minute=1e6, waiting=1000)),),
        queue=1000,
    )
    with serving(create_app(settings, {"tiny": engine})) as url:
        yield Caller(url)


def calls(caller: Caller, total: int) -> None:
    """About so many calls, over all operations."""
    schema = schemathesis.openapi.from_url(f"{caller.url}/openapi.json")
    operations = {found.ok().label: found.ok() for found in schema.get_all_operations()}
    assert set(operations) == set(WEIGHTS)
    for label, operation in operations.items():
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            wanted = WEIGHTS[label] * total // 200
            if wanted == 0 and mode is GenerationMode.NEGATIVE:
                continue
            _many(caller, label, operation, mode, max(1, wanted))()


def _many(caller: Caller, label: str, operation: Any, mode: GenerationMode, many: int) -> Callable[[], None]:
    @hypothesis_settings(
        max_examples=many,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @seed(20261126)
    @given(case=operation.as_strategy(generation_mode=mode))
    def run(case: Any) -> None:
        caller.call(label, case, mode is GenerationMode.POSITIVE)

    return run  # type: ignore[no-any-return]


def check(caller: Caller, total: int) -> None:
    before = caller.counts.total()
    calls(caller, total)
    made = caller.counts.total() - before
    assert made >= total * 0.95
    assert {status for _, status in caller.counts if status >= 500} == set()
    for label, status in (
        ("POST /getImageToImage", 200),
        ("POST /getImageToImage", 422),
        ("POST /getImage", 200),
        ("POST /getImage", 404),
        ("GET /outputs/{name}", 200),
        ("GET /tasks/{task_id}", 401),
    ):
        assert caller.counts[label, status] > 0, (label, status, caller.counts)
    with httpx.Client(base_url=caller.url, timeout=60) as client:
        assert client.get("/readyz").json()["status"] == "ready"


def test_200_generated_calls_are_answered_as_the_document_says(caller: Caller) -> None:
    check(caller, 200)


@pytest.mark.heavy
def test_2000_generated_calls_are_answered_as_the_document_says(caller: Caller) -> None:
    check(caller, 2000)


@pytest.mark.anyio
async def test_the_document_has_a_worked_example_that_is_true(running: Running) -> None:
    async with running() as client:
        document = (await client.get("/openapi.json")).json()
        page = await client.get("/docs")
        scripts = [await client.get(path) for path in re.findall(r'(?:src|href)="([^"]+)"', page.text)]
    assert len(scripts) == 3
    assert {script.status_code for script in scripts} == {200}
    assert "://" not in page.text  # nothing is fetched from elsewhere
    operation = document["paths"]["/getImageToImage"]["post"]
    shown = operation["requestBody"]["content"]["application/json"]["example"]
    told = {name: value for name, value in EXAMPLE_REQUEST.items() if value is not None}
    assert ImageToImage.model_validate(shown).echo() == told
    Answer.model_validate(EXAMPLE_ANSWER)
    assert operation["security"] == [{"HTTPBearer": []}]
    assert "curl" in document["info"]["description"]


@pytest.mark.anyio
async def test_every_error_code_is_told_where_it_may_come(running: Running) -> None:
    async with running() as client:
        document = (await client.get("/openapi.json")).json()
    told = {
        (int(status), response["description"])
        for path in document["paths"].values()
        for operation in path.values()
        for status, response in operation["responses"].items()
    }
    for code, status in STATUS_OF.items():
        if code != "method_not_allowed":  # no operation answers so
            assert any(status == known and f"`{code}`" in words for known, words in told), code
