"""Who may call, how often and how much; and that nothing is told of why not."""

from __future__ import annotations

import hmac
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from service_client import EIGHT, Running, client_of

from faceavatar import AvatarEngine, InvalidRequest
from faceavatar_cli.http import Limits, Settings, Token, create_app
from faceavatar_cli.http.problems import RateLimited
from faceavatar_cli.http.rates import Rates
from faceavatar_cli.http.tokens import Keyring, hash_secret, new_secret, read_file, read_variable

ANN, BOB = "ann's long secret", "bob's long secret"
TOKENS = (Token("ann", hash_secret(ANN)), Token("bob", hash_secret(BOB)))
PROTECTED = [
    ("POST", "/getImageToImage"),
    ("POST", "/getImage"),
    ("GET", "/tasks/x"),
    ("DELETE", "/tasks/x"),
    ("GET", "/tasks/x/events"),
    ("GET", "/metrics"),
]


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


@pytest.mark.anyio
@pytest.mark.parametrize(("method", "path"), PROTECTED)
async def test_without_a_known_token_nothing_is_told_but_that(
    running: Running, method: str, path: str
) -> None:
    headers: list[dict[str, str]] = [
        {},
        bearer("wrong"),
        bearer(ANN[:-1]),
        bearer(TOKENS[0].sha256),
        bearer("ann"),
        {"Authorization": f"Basic {ANN}"},
        {"Authorization": ANN},
        {"Authorization": "Bearer"},
    ]
    async with running(tokens=TOKENS) as client:
        responses = [await client.request(method, path, headers=header) for header in headers]
    for response in responses:
        answer = response.json()
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
        assert set(answer) == EIGHT
        assert answer | {"time_required": 0} == responses[0].json() | {"time_required": 0}


@pytest.mark.anyio
async def test_health_page_and_docs_need_no_token(running: Running) -> None:
    async with running(tokens=TOKENS) as client:
        for path in ("/healthz", "/readyz", "/", "/docs", "/openapi.json"):
            assert (await client.get(path)).status_code == 200, path


@pytest.mark.anyio
async def test_a_token_sees_its_own_tasks_only(running: Running, photo_uri: str) -> None:
    async with running(tokens=TOKENS) as client:
        made = await client.post("/getImageToImage", json={"image": photo_uri}, headers=bearer(ANN))
        task_id = made.json()["task_id"]
        for secret, status in ((ANN, 200), (BOB, 404)):
            asked = await client.post("/getImage", json={"id": task_id}, headers=bearer(secret))
            looked = await client.get(f"/tasks/{task_id}", headers=bearer(secret))
            followed = await client.get(f"/tasks/{task_id}/events", headers=bearer(secret))
            dropped = await client.delete(f"/tasks/{task_id}", headers=bearer(secret))
            assert [one.status_code for one in (asked, looked, followed, dropped)] == [status] * 4
        unknown = await client.get("/tasks/none", headers=bearer(BOB))
        assert looked.json()["error_data"] == unknown.json()["error_data"]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("address", "headers", "status"),
    [
        ("127.0.0.1", {}, 200),
        ("::1", {"Host": "[::1]:8000"}, 200),
        ("127.0.0.1", {"Host": "localhost:8000", "Origin": "http://localhost:8000"}, 200),
        ("192.168.1.7", {}, 403),
        ("8.8.8.8", {}, 403),
        ("testclient", {}, 403),
        ("127.0.0.1", {"Host": "evil.example.com"}, 403),
        ("127.0.0.1", {"Origin": "https://evil.example.com"}, 403),
        ("127.0.0.1", {"Origin": "null"}, 403),
        ("127.0.0.1", {"Host": "localhost:8000", "Origin": "http://localhost:3000"}, 403),
    ],
)
async def test_without_tokens_only_programs_of_this_machine_call(
    engine: AvatarEngine, settings: Settings, address: str, headers: dict[str, str], status: int
) -> None:
    async with client_of(create_app(settings, {"tiny": engine}), address) as client:
        response = await client.get("/metrics", headers=headers)
    assert response.status_code == status
    if status == 403:
        assert response.json()["error"] == "forbidden"


@pytest.mark.anyio
async def test_with_tokens_any_address_and_origin_calls(engine: AvatarEngine, settings: Settings) -> None:
    app = create_app(replace(settings, tokens=TOKENS), {"tiny": engine})
    async with client_of(app, "8.8.8.8") as client:
        headers = bearer(BOB) | {"Host": "avatars.example.com", "Origin": "https://shop.example.com"}
        assert (await client.get("/metrics", headers=headers)).status_code == 200


@pytest.mark.anyio
async def test_too_many_requests_are_put_off_for_that_token_alone(running: Running) -> None:
    tokens = [replace(token, limits=Limits(per_minute=30)) for token in TOKENS]
    async with running(tokens=tuple(tokens)) as client:

        async def ask(secret: str) -> Any:
            return await client.post("/getImageToImage", json={}, headers=bearer(secret))

        statuses = [(await ask(ANN)).status_code for _ in range(6)]
        assert statuses == [422] * 5 + [429]
        last = await ask(ANN)
        assert last.json()["error"] == "rate_limited"
        assert 1 <= int(last.headers["retry-after"]) <= 3
        assert (await ask(BOB)).status_code == 422
        assert (await client.post("/getImage", json={"id": "x"}, headers=bearer(ANN))).status_code == 404


@pytest.mark.anyio
@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=x"])
async def test_a_body_that_is_too_large_is_refused(running: Running, declared: bool, kind: str) -> None:
    sent = 0

    async def pieces() -> Any:
        nonlocal sent
        if kind.startswith("multipart"):
            yield b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        for _ in range(100):
            sent += 1
            yield b"a" * 1000

    tokens = (replace(TOKENS[0], limits=Limits(body=5000)), TOKENS[1])
    async with running(tokens=tokens) as client:
        headers = bearer(ANN) | {"Content-Type": kind}
        if declared:
            headers["Content-Length"] = "100000"
        response = await client.post("/getImageToImage", content=pieces(), headers=headers)
    assert response.status_code == 413
    assert response.json()["error"] == "body_too_large"
    assert sent <= (1 if declared else 100)


@pytest.mark.anyio
async def test_more_pixels_than_a_token_may_ask_for_are_refused(running: Running, photo_uri: str) -> None:
    async with running(limits=Limits(pixels=512 * 512)) as client:
        asked = {"image": photo_uri, "batch": 2}
        response = await client.post("/getImageToImage", json=asked)
    assert response.json()["error_data"]["allowed"] == "262144 pixels"


def test_a_bucket_fills_by_the_clock() -> None:
    now = 0.0
    rates = Rates(lambda: now)
    token = replace(TOKENS[0], limits=Limits(per_minute=60))
    for _ in range(10):
        rates.take(token)
    with pytest.raises(RateLimited) as caught:
        rates.take(token)
    assert caught.value.headers() == {"Retry-After": "2"}
    now = 1.0
    rates.take(token)
    with pytest.raises(RateLimited):
        rates.take(token)


def test_every_token_is_compared_whatever_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    real = hmac.compare_digest

    def compare(one: str, other: str) -> bool:
        compared.append(other)
        return real(one, other)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    found = Keyring(TOKENS).find(ANN)
    assert found is not None
    assert found.name == "ann"
    assert compared == [token.sha256 for token in TOKENS]
    assert Keyring(TOKENS).find("\udcff") is None


def test_tokens_are_read_from_a_variable_and_a_file(tmp_path: Path) -> None:
    secret = new_secret()
    (token,) = read_variable(f"joe:{secret}", Limits())
    assert Keyring([token]).find(secret) == token
    path = tmp_path / "tokens"
    path.write_text(
        f"# ours\njoe:{hash_secret(secret)}\n\nann:{hash_secret(ANN)} per_minute=7 body=1000 # less\n"
    )
    joe, ann = read_file(path, Limits(waiting=3))
    assert (joe.name, joe.limits) == ("joe", Limits(waiting=3))
    assert ann.limits == Limits(per_minute=7, body=1000, waiting=3)


@pytest.mark.parametrize("text", ["joe", "joe:short", ":a long enough secret", "a b:a long enough secret"])
def test_a_variable_that_is_wrong_is_refused_without_its_secrets(text: str) -> None:
    with pytest.raises(InvalidRequest, match="got 'entry 2', allowed name:secret") as caught:
        read_variable(f"ok:a long enough secret,{text}", Limits())
    assert "enough" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("joe:abc", "line 1.*64 hex digits"),
        (f"joe:{'0' * 64} speed=3", "speed=3.*body, per_minute, pixels, priority, waiting"),
        (f"joe:{'0' * 64} priority=10", "priority=10.*priority 1..9"),
        (f"joe:{'0' * 64} body=0", "body=0.*from 1"),
        (f"joe:{'0' * 64}\njoe:{'1' * 64}", "names that differ"),
        (f"local:{'0' * 64}", "none of them `local`"),
        ("# nothing", "one token at least"),
    ],
)
def test_a_file_of_tokens_that_is_wrong_is_refused_by_its_line(tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "tokens"
    path.write_text(line)
    with pytest.raises(InvalidRequest, match=words):
        read_file(path, Limits())
    with pytest.raises(InvalidRequest, match="can be read"):
        read_file(tmp_path / "absent", Limits())
