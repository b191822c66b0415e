"""One engine, many callers: joined where that changes nothing, in turn, and gone when nobody waits."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from live_server import serving
from numpy.typing import NDArray
from PIL import Image
from service_client import PHOTOS, Client, client_of, data_uri

from faceavatar import AvatarEngine, AvatarRequest, NumericalError, Step
from faceavatar.drawing import Prepared
from faceavatar_cli.http import Limits, Settings, Token, create_app
from faceavatar_cli.http.tokens import hash_secret

Pixels = NDArray[np.uint8]
SECRETS = {name: f"the long secret of {name}" for name in ("ann", "bob", "cid")}
TOKENS = tuple(Token(name, hash_secret(secret), Limits(per_minute=1e6)) for name, secret in SECRETS.items())


class Held:
    """The real engine, whose runs wait for the gate and are remembered."""

    def __init__(self, engine: AvatarEngine) -> None:
        self._engine, self.pack = engine, engine.pack
        self.gate, self.begun = threading.Event(), threading.Event()
        self.runs: list[list[int]] = []  # seeds of the requests of each run
        self.steps = 0
        self.pause_at = 0  # a step before which the run waits for `resume`; 0: none
        self.resume = threading.Event()
        self.fails_together = False

    def prepare(self, request: AvatarRequest, **limits: Any) -> Prepared:
        return self._engine.prepare(request, **limits)

    def fits(self, prepared: Sequence[Prepared]) -> bool:
        return self._engine.fits(prepared)

    def stream_together(self, prepared: Sequence[Prepared], **limits: Any) -> Iterator[tuple[Step, ...]]:
        self.begun.set()
        assert self.gate.wait(20)
        self.runs.append([one.plan.seeds[0] for one in prepared])
        if self.fails_together and len(prepared) > 1:
            raise NumericalError("unet", 2)
        for steps in self._engine.stream_together(prepared, **limits):
            self.steps += 1
            if self.steps == self.pause_at:
                assert self.resume.wait(20)
            yield steps


@pytest.fixture
def held(engine: AvatarEngine) -> Iterator[Held]:
    held = Held(engine)
    yield held
    held.gate.set()


def app_of(held: Held, settings: Settings, **changes: Any) -> Any:
    return create_app(replace(settings, **changes), {"tiny": held})  # type: ignore[dict-item]


async def until(app: Any, waiting: int) -> None:
    """So many tasks stand prepared and wait."""
    lane = app.state.service._local._lanes["tiny"]
    for _ in range(400):
        if len(lane._ready) == waiting and lane.waiting() == waiting:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"{lane.waiting()} wait, not {waiting}")


async def begun(held: Held) -> None:
    """The first run waits at the gate; what comes now is not in it."""
    assert await asyncio.to_thread(held.begun.wait, 20)


async def ask(client: Client, name: str = "ann", **fields: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {SECRETS[name]}"}
    return await client.post("/getImageToImage", json=fields, headers=headers)


async def queue(client: Client, name: str = "ann", **fields: Any) -> str:
    """The id of a task that is queued."""
    answer = (await ask(client, name, celery=True, **fields)).json()
    assert answer["status"] == "queued", answer
    task_id: str = answer["task_id"]
    return task_id


async def pixels(client: Client, answer: dict[str, Any]) -> list[Pixels]:
    pngs = [(await client.get(url)).content for url in answer["output"]]
    return [np.asarray(Image.open(io.BytesIO(png))) for png in pngs]


def difference(one: Pixels, other: Pixels) -> int:
    """The largest, of 255: sums in another order may round one pixel in many thousands otherwise."""
    return int(np.abs(one.astype(int) - other.astype(int)).max())


@pytest.mark.anyio
async def test_callers_are_drawn_together_and_get_what_they_get_alone(
    held: Held, engine: AvatarEngine, settings: Settings
) -> None:
    photos = [(PHOTOS / f"{name}.jpg").read_bytes() for name in ("obama", "ardern", "astronaut")]
    asked: list[dict[str, Any]] = [
        {"seed": 1, "prompt": "a man, laughing", "batch": 2},
        {"seed": 2, "gender": "woman", "guidance_scale": 5.0, "remove_background": True},
        {"seed": 3, "prompt": "pixel art", "bg_color": "#112233", "width": 300},
    ]
    app = app_of(held, settings, tokens=TOKENS)
    async with client_of(app) as client:
        first = asyncio.create_task(ask(client, image=data_uri(photos[0]), seed=0))
        await begun(held)
        rest = [
            asyncio.create_task(ask(client, name, image=data_uri(photo), **fields))
            for name, photo, fields in zip(SECRETS, photos, asked, strict=True)
        ]
        await until(app, 3)
        held.gate.set()
        await first
        answers = [(await one).json() for one in rest]
        got = [await pixels(client, answer) for answer in answers]
    assert [sorted(run) for run in held.runs] == [[0], [1, 2, 3]]
    for photo, fields, pictures in zip(photos, asked, got, strict=True):
        alone = engine.generate(AvatarRequest(image=photo, **fields))
        assert len(pictures) == len(alone.images)
        for picture, wanted in zip(pictures, alone.images, strict=True):
            assert difference(picture, wanted) <= 1


@pytest.mark.anyio
async def test_toon_draws_the_same_whomever_it_draws_beside(
    toon: AvatarEngine, settings: Settings, photo_uri: str, photo: bytes
) -> None:
    app = create_app(settings, {"toon": toon})
    async with client_of(app) as client:
        asked = [{"image": photo_uri, "seed": seed, "batch": 1 + seed % 2} for seed in range(5)]
        answers = await asyncio.gather(*[client.post("/getImageToImage", json=one) for one in asked])
        got = [await pixels(client, answer.json()) for answer in answers]
        counted = (await client.get("/metrics")).text
    assert 'faceavatar_batch_requests_count{app_id="toon"} 5.0' not in counted  # some were joined
    for fields, pictures in zip(asked, got, strict=True):
        alone = toon.generate(AvatarRequest(**fields | {"image": photo}))  # type: ignore[arg-type]
        for picture, wanted in zip(pictures, alone.images, strict=True):
            assert difference(picture, wanted) <= 1


@pytest.mark.anyio
async def test_only_what_fits_is_joined_and_eight_pictures_at_most(
    held: Held, settings: Settings, photo_uri: str
) -> None:
    app = app_of(held, settings)
    async with client_of(app) as client:
        tasks = [await queue(client, image=photo_uri, seed=0)]
        await begun(held)
        for seed, fields in enumerate(
            [
                {},
                {"num_inference_steps": 3},
                {"guidance_scale": 1.0},
                {"scheduler": "euler"},
                {"batch": 6},
                {"batch": 2},
                {"num_inference_steps": 3},
            ],
            start=1,
        ):
            tasks.append(await queue(client, image=photo_uri, seed=seed, **fields))
        await until(app, 7)
        held.gate.set()
        for task_id in tasks:
            await client.get(f"/tasks/{task_id}/events")
    assert held.runs == [[0], [1, 5], [2, 7], [3], [4], [6]]


@pytest.mark.anyio
async def test_callers_are_served_in_turn(held: Held, settings: Settings, photo_uri: str) -> None:
    app = app_of(held, settings, tokens=TOKENS, together=1)
    async with client_of(app) as client:
        tasks = [(await queue(client, image=photo_uri, seed=0), "ann")]
        await begun(held)
        for seed, name in enumerate(("ann", "ann", "ann", "bob", "bob", "cid"), start=1):
            tasks.append((await queue(client, name, image=photo_uri, seed=seed), name))
            await until(app, seed)
        places = []
        for task_id, name in tasks[1:]:
            looked = await client.get(
                f"/tasks/{task_id}", headers={"Authorization": f"Bearer {SECRETS[name]}"}
            )
            places.append(looked.json()["queue_position"])
        held.gate.set()
        for task_id, name in tasks:
            headers = {"Authorization": f"Bearer {SECRETS[name]}"}
            await client.get(f"/tasks/{task_id}/events", headers=headers)
    assert held.runs == [[0], [1], [4], [6], [2], [5], [3]]
    assert places == [0, 3, 5, 1, 4, 2]


@pytest.mark.anyio
async def test_a_full_queue_says_when_to_come_again(held: Held, settings: Settings, photo_uri: str) -> None:
    few = tuple(replace(token, limits=Limits(waiting=2)) for token in TOKENS)
    app = app_of(held, settings, tokens=few, queue=3)
    async with client_of(app) as client:
        await queue(client, image=photo_uri)
        await begun(held)
        await queue(client, image=photo_uri)
        own = await ask(client, image=photo_uri)
        await queue(client, "bob", image=photo_uri)
        await queue(client, "bob", image=photo_uri)
        full = await ask(client, "cid", image=photo_uri)
        held.gate.set()
    for response, words in ((own, "2 tasks of this token"), (full, "the queue is full")):
        assert response.status_code == 429
        assert response.json()["error"] == "queue_full"
        assert words in response.json()["error_data"]["message"]
        assert int(response.headers["retry-after"]) >= 1


@pytest.mark.anyio
async def test_the_bytes_that_wait_are_limited_too(held: Held, settings: Settings, photo_uri: str) -> None:
    app = app_of(held, settings, waiting_bytes=len(photo_uri) * 2)
    async with client_of(app) as client:
        tasks = [await queue(client, image=photo_uri) for _ in range(2)]
        assert (await ask(client, image=photo_uri)).status_code == 429
        held.gate.set()
        for task_id in tasks:
            await client.get(f"/tasks/{task_id}/events")
        assert (await ask(client, image=photo_uri)).status_code == 200


@pytest.mark.anyio
async def test_a_task_is_cancelled_between_two_steps(held: Held, settings: Settings, photo_uri: str) -> None:
    app = app_of(held, settings)
    held.gate.set()
    held.pause_at = 3
    async with client_of(app) as client:
        waiting = asyncio.create_task(ask(client, image=photo_uri, num_inference_steps=50))
        while held.steps < 3:
            await asyncio.sleep(0.005)
        (task_id,) = app.state.service._local._jobs
        gone = (await client.delete(f"/tasks/{task_id}")).json()
        held.resume.set()
        answer = await waiting
        assert (gone["status"], gone["error"]) == ("cancelled", None)
        assert gone["step"] < 50
        assert answer.status_code == 409
        assert answer.json()["status"] == "cancelled"
        assert (await ask(client, image=photo_uri, seed=9)).status_code == 200
        again = (await client.delete(f"/tasks/{task_id}")).json()
    assert again["status"] == "cancelled"
    assert held.steps == 3 + 4  # no further step of the cancelled one, and the next request's own
    assert list(settings.outputs.glob("*")) != []


@pytest.mark.anyio
async def test_a_cancelled_task_leaves_the_queue_and_its_company_is_drawn(
    held: Held, settings: Settings, photo_uri: str
) -> None:
    app = app_of(held, settings)
    async with client_of(app) as client:
        tasks = [await queue(client, image=photo_uri, seed=0)]
        await begun(held)
        tasks += [await queue(client, image=photo_uri, seed=seed) for seed in (1, 2, 3)]
        await until(app, 3)
        assert (await client.delete(f"/tasks/{tasks[2]}")).json()["status"] == "cancelled"
        held.gate.set()
        for task_id in tasks:
            await client.get(f"/tasks/{task_id}/events")
        ends = [(await client.get(f"/tasks/{task_id}")).json() for task_id in tasks]
    assert held.runs == [[0], [1, 3]]
    assert [end["status"] for end in ends] == ["completed", "completed", "cancelled", "completed"]
    assert [len(end["output"]) for end in ends] == [1, 1, 0, 1]


def test_a_caller_that_hangs_up_frees_its_place(held: Held, settings: Settings, photo_uri: str) -> None:
    app = app_of(held, settings)
    with serving(app) as url, httpx.Client(base_url=url, timeout=30) as client:
        first = client.post("/getImageToImage", json={"image": photo_uri, "seed": 0, "celery": True}).json()
        assert held.begun.wait(20)
        with pytest.raises(httpx.ReadTimeout):
            client.post("/getImageToImage", json={"image": photo_uri, "seed": 1}, timeout=1)
        held.gate.set()
        last = client.post("/getImageToImage", json={"image": photo_uri, "seed": 2}).json()
        assert client.get(f"/tasks/{first['task_id']}").json()["status"] == "completed"
        counted = client.get("/metrics").text
    assert last["status"] == "completed"
    assert held.runs == [[0], [2]]
    assert 'faceavatar_tasks_total{app_id="tiny",status="cancelled"} 1.0' in counted
    assert len(list(settings.outputs.glob("*"))) == 2


@pytest.mark.anyio
async def test_a_run_that_fails_for_one_is_run_for_each_alone(
    held: Held, settings: Settings, photo_uri: str
) -> None:
    app = app_of(held, settings)
    held.fails_together = True
    async with client_of(app) as client:
        tasks = [await queue(client, image=photo_uri, seed=0)]
        await begun(held)
        tasks += [await queue(client, image=photo_uri, seed=seed) for seed in (1, 2)]
        await until(app, 2)
        held.gate.set()
        for task_id in tasks:
            await client.get(f"/tasks/{task_id}/events")
        ends = [(await client.get(f"/tasks/{task_id}")).json()["status"] for task_id in tasks]
    assert held.runs == [[0], [1, 2], [1], [2]]
    assert ends == ["completed"] * 3


@pytest.mark.anyio
async def test_a_net_that_gives_nan_is_a_fault_of_the_server(
    tmp_path: Path, settings: Settings, photo_uri: str
) -> None:
    import tiny_pack

    engine = AvatarEngine.load(tiny_pack.build(tmp_path / "tiny", poison=True), provider="cpu")
    async with client_of(create_app(settings, {"tiny": engine})) as client:
        response = await client.post("/getImageToImage", json={"image": photo_uri})
    assert response.status_code == 500
    assert response.json()["error"] == "numerical_error"


@pytest.mark.anyio
async def test_a_server_that_ends_tells_those_that_wait(
    held: Held, settings: Settings, photo_uri: str
) -> None:
    app = app_of(held, settings)
    async with client_of(app) as client:
        waiting = asyncio.create_task(ask(client, image=photo_uri))
        await begun(held)
        behind = asyncio.create_task(ask(client, image=photo_uri))
        await until(app, 1)
        held.gate.set()
    for one in (waiting, behind):
        answer = (await one).json()
        assert (answer["status"], answer["error"]) in {("failed", "interrupted"), ("completed", None)}
    assert answer["error"] == "interrupted"
