"""The contract's two calls, end to end: what is sent, what comes back, and in which words it is refused."""

from __future__ import annotations

import io
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import httpx
import numpy as np
import pytest
from PIL import Image
from service_client import EIGHT, Running, client_of

from faceavatar import AvatarEngine, AvatarRequest
from faceavatar.image import encode_png
from faceavatar_cli.http import Settings, create_app
from faceavatar_cli.http.contract import Answer, ImageToImage
from faceavatar_cli.http.store import FolderStore


def refused(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The error's detail, of an answer that must be whole."""
    answer = response.json()
    assert (response.status_code, answer["error"]) == (status, code), answer
    assert set(answer) == EIGHT
    assert answer["status"] == "failed"
    assert answer["output"] == []
    data: dict[str, Any] = answer["error_data"]
    return data


@pytest.mark.anyio
async def test_a_photo_becomes_pictures_that_the_engine_alone_would_draw(
    toon: AvatarEngine, settings: Settings, photo: bytes, photo_uri: str
) -> None:
    asked = {"app_id": "toon", "image": photo_uri, "gender": "man", "batch": 2, "seed": 7, "width": 384}
    async with client_of(create_app(settings, {"toon": toon})) as client:
        response = await client.post("/getImageToImage", json=asked)
        answer = response.json()
        assert response.status_code == 200
        assert set(answer) == EIGHT
        assert (answer["status"], answer["error"], answer["error_data"]) == ("completed", None, None)
        assert answer["app_id"] == "toon"
        assert 0 < answer["time_required"] < 60
        assert answer["input"] == asked | {"image": f"data:image/jpeg ({len(photo_uri) - 23} characters)"}
        pngs = [await client.get(url) for url in answer["output"]]
        again = (await client.post("/getImage", json={"id": answer["task_id"]})).json()
    assert again == answer
    alone = toon.generate(AvatarRequest(image=photo, gender="man", batch=2, seed=7, width=384))
    for index, png in enumerate(pngs):
        assert png.headers["content-type"] == "image/png"
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(png.content))), alone.images[index])


@pytest.mark.anyio
async def test_a_form_with_a_file_is_the_same_request(running: Running, photo: bytes, photo_uri: str) -> None:
    fields = {"batch": "2", "seed": "3", "guidance_scale": "2.5", "remove_background": "true", "bg_color": ""}
    wanted = {"batch": 2.0, "seed": 3, "guidance_scale": 2.5, "remove_background": True}
    async with running() as client:
        form = (await client.post("/getImageToImage", data=fields, files={"image": photo})).json()
        body = (await client.post("/getImageToImage", json={"image": photo_uri, **wanted})).json()
        pictures = [[(await client.get(url)).content for url in answer["output"]] for answer in (form, body)]
    assert {**form["input"], "image": None} == {**body["input"], "image": None} == {**wanted, "image": None}
    assert pictures[0] == pictures[1]
    assert len(pictures[0]) == 2


@pytest.mark.anyio
async def test_pictures_come_as_data_uris_where_the_server_is_set_so(
    running: Running, photo_uri: str
) -> None:
    async with running(inline=True) as client:
        answer = (await client.post("/getImageToImage", json={"image": photo_uri})).json()
    (uri,) = answer["output"]
    assert uri.startswith("data:image/png;base64,iVBOR")


@pytest.mark.anyio
async def test_a_public_url_begins_the_pictures_urls(running: Running, photo_uri: str) -> None:
    async with running(public_url="https://avatars.example.com/v1/") as client:
        answer = (await client.post("/getImageToImage", json={"image": photo_uri})).json()
    assert answer["output"][0].startswith("https://avatars.example.com/v1/outputs/")


@pytest.mark.anyio
async def test_a_drawn_seed_is_told_and_repeats_the_picture(running: Running, photo_uri: str) -> None:
    async with running() as client:
        first = (await client.post("/getImageToImage", json={"image": photo_uri})).json()
        asked = {"image": photo_uri, "seed": first["input"]["seed"]}
        second = (await client.post("/getImageToImage", json=asked)).json()
        one, two = [(await client.get(answer["output"][0])).content for answer in (first, second)]
    assert one == two


@pytest.mark.anyio
async def test_a_picture_says_its_request_and_not_its_photo(running: Running, photo_uri: str) -> None:
    async with running() as client:
        answer = (await client.post("/getImageToImage", json={"image": photo_uri, "seed": 5})).json()
        png = (await client.get(answer["output"][0])).content
    told = json.loads(Image.open(io.BytesIO(png)).info["faceavatar"])
    assert told["request"]["seed"] == 5
    assert told["request"]["image"].startswith("sha256:")


@pytest.mark.anyio
async def test_a_queued_task_is_answered_at_once_and_found_by_its_id(
    running: Running, photo_uri: str
) -> None:
    async with running() as client:
        asked = {"image": photo_uri, "celery": True, "refID": "order 66", "seed": 1}
        queued = (await client.post("/getImageToImage", json=asked)).json()
        assert (queued["status"], queued["output"]) == ("queued", [])
        known = {"id": queued["task_id"], "refID": "order 66"}
        async with client.stream("GET", f"/tasks/{queued['task_id']}/events") as stream:
            await stream.aread()
        done = (await client.post("/getImage", json=known)).json()
        assert done["status"] == "completed"
        assert (await client.post("/getImage", json={"id": queued["task_id"]})).json() == done
        wrong = await client.post("/getImage", json=known | {"refID": "order 67"})
    assert "refID" in refused(wrong, 404, "task_not_found")["message"]


@pytest.mark.anyio
async def test_any_refid_finds_a_task_that_was_given_none(running: Running, photo_uri: str) -> None:
    async with running() as client:
        task_id = (await client.post("/getImageToImage", json={"image": photo_uri})).json()["task_id"]
        found = await client.post("/getImage", json={"id": task_id, "refID": "anything"})
    assert found.json()["status"] == "completed"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("image", "/etc/passwd", "an http(s) URL or a data URI"),
        ("image", "file:///etc/passwd", "an http(s) URL or a data URI"),
        ("image", 7, "an http(s) URL or a data URI"),
        ("batch", 9, "a whole number 1..8"),
        ("batch", "2", "a whole number 1..8"),
        ("batch", True, "a whole number 1..8"),
        ("height", 255, "a whole number 256..1536"),
        ("width", None, "a whole number 256..1536"),
        ("num_inference_steps", 51, "a whole number 1..50 or null"),
        ("guidance_scale", 0.5, "a number 1..30 or null"),
        ("gender", "robot", "man, woman, male, female, person, neutral or null"),
        ("bg_color", "red", "#RRGGBB or #RGB or null"),
        ("scheduler", "heun", "ddim, euler"),
        ("prompt", "a" * 4001, "text of at most 4000 characters or null"),
        ("celery", "yes", "true or false"),
        ("webhook", "ftp://example.com", "an http(s) URL of at most 4096 characters or null"),
        ("steps", 4, "these only: image, app_id, prompt"),
    ],
)
async def test_what_is_out_of_range_is_named(
    running: Running, photo_uri: str, field: str, value: object, allowed: str
) -> None:
    async with running() as client:
        response = await client.post("/getImageToImage", json={"image": photo_uri, field: value})
    data = refused(response, 422, "invalid_request")
    assert data["field"] == field
    assert data["allowed"].startswith(allowed)
    assert data["message"].startswith(f"{field}: got ")


@pytest.mark.anyio
async def test_an_unknown_app_id_is_named_beside_the_known_ones(running: Running, photo_uri: str) -> None:
    async with running() as client:
        response = await client.post("/getImageToImage", json={"image": photo_uri, "app_id": "sdxl"})
    assert refused(response, 404, "pack_not_found")["message"] == (
        "app_id: no pack 'sdxl' is loaded here, only tiny"
    )
    assert response.json()["app_id"] == "sdxl"
    assert response.json()["input"]["app_id"] == "sdxl"


@pytest.mark.anyio
async def test_a_photo_without_a_face_is_told_apart_from_one_that_is_none(running: Running) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    async with running() as client:
        faceless = await client.post("/getImageToImage", files={"image": encode_png(noise)})
        text = await client.post("/getImageToImage", files={"image": b"no picture"})
    answer = faceless.json()
    assert (faceless.status_code, answer["error"], answer["status"]) == (422, "no_face", "failed")
    assert answer["task_id"] is not None
    assert text.json()["error"] == "unreadable_image"
    assert "no picture" in text.json()["error_data"]["message"]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("content", "kind", "status", "code"),
    [
        (b"{", "application/json", 400, "unreadable_body"),
        (b"[]", "application/json", 400, "unreadable_body"),
        (b"", "application/json", 400, "unreadable_body"),
        (b'{"image": "\xff"}', "application/json", 400, "unreadable_body"),
        (b"[" * 100_000, "application/json", 400, "unreadable_body"),
        (b"{}", "text/plain", 415, "unsupported_media_type"),
        (b"{}", "", 415, "unsupported_media_type"),
        (b"nonsense", "multipart/form-data; boundary=x", 400, "unreadable_body"),
        (b"--x", "multipart/form-data", 400, "unreadable_body"),
        (b"batch=1&batch=2", "application/x-www-form-urlencoded", 422, "invalid_request"),
    ],
)
async def test_a_body_that_cannot_be_read_is_told_apart(
    running: Running, content: bytes, kind: str, status: int, code: str
) -> None:
    async with running() as client:
        headers = {"Content-Type": kind} if kind else {}
        refused(await client.post("/getImageToImage", content=content, headers=headers), status, code)


@pytest.mark.anyio
async def test_a_file_under_another_name_and_two_files_are_refused(running: Running, photo: bytes) -> None:
    async with running() as client:
        other = await client.post("/getImageToImage", files={"photo": photo})
        both = await client.post("/getImageToImage", files=[("image", photo), ("image", photo)])
    assert refused(other, 422, "invalid_request")["field"] == "photo"
    assert "Too many files" in refused(both, 400, "unreadable_body")["message"]


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/nothing", "/outputs/../../etc/passwd", "/outputs/x.png", "/tasks/none"])
async def test_what_is_not_there_is_answered_in_eight_fields(running: Running, path: str) -> None:
    async with running() as client:
        response = await client.get(path)
    assert response.status_code == 404
    assert set(response.json()) == EIGHT


class FullStore(FolderStore):
    """A store that cannot keep anything."""

    def put(self, task_id: str, index: int, png: bytes) -> str:
        raise RuntimeError(f"{self.folder} is full")


@pytest.mark.anyio
async def test_a_fault_of_the_server_is_told_without_its_words(
    engine: AvatarEngine, settings: Settings, photo_uri: str
) -> None:
    store = FullStore(Path("/secret"))
    async with client_of(create_app(settings, {"tiny": engine}, store)) as client:
        response = await client.post("/getImageToImage", json={"image": photo_uri})
    assert response.json()["error"] == "internal"
    assert response.status_code == 500
    assert "secret" not in response.text


@pytest.mark.anyio
async def test_before_the_packs_are_loaded_requests_are_put_off(settings: Settings, photo_uri: str) -> None:
    async with client_of(create_app(settings)) as client:
        assert (await client.get("/healthz")).json() == {"status": "ok"}
        response = await client.post("/getImageToImage", json={"image": photo_uri})
        assert (await client.get("/readyz")).status_code == 503
    refused(response, 503, "not_ready")
    assert response.headers["retry-after"] == "2"


@pytest.mark.anyio
async def test_a_pack_that_cannot_be_loaded_is_said_so(settings: Settings) -> None:
    async with client_of(create_app(replace(settings, packs=("no-such-pack",)))) as client:
        for _ in range(100):
            message = (await client.get("/readyz")).json()["error_data"]["message"]
            if "no-such-pack" in message:
                break
            await anyio.sleep(0.05)
    assert message.startswith("a pack could not be loaded: no pack called 'no-such-pack'")


def test_the_ranges_are_those_of_the_engine() -> None:
    ours, engines = ImageToImage.model_fields, AvatarRequest.model_fields
    # The eight fields of an answer have no place for similarities: over the wire best_of alone uses them.
    assert set(engines) - set(ours) == {"similarity"}
    assert set(ours) - set(engines) == {"refID", "webhook"}
    for name in set(engines) & set(ours) - {"image"}:
        bounds = [
            [
                getattr(rule, side)
                for rule in fields[name].metadata
                for side in ("gt", "ge", "le")
                if hasattr(rule, side)
            ]
            for fields in (ours, engines)
        ]
        assert bounds[0] == bounds[1], name
        assert ours[name].default == engines[name].default, name


def test_an_answer_has_eight_fields() -> None:
    assert set(Answer.model_fields) == EIGHT
    assert len(EIGHT) == 8


def test_pictures_are_kept_for_their_time_only(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    old, new = store.put("a", 0, b"old"), store.put("a", 1, b"new")
    os.utime(tmp_path / old, (time.time() - 100, time.time() - 100))
    assert store.expire(50) == 1
    assert (store.open(old), store.open(new)) == (None, b"new")
    assert store.open("../" + new) is None
