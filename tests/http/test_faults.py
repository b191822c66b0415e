"""What goes wrong inside a server: a full disk, a slow head, a fault in a loop, a wake-up that is lost."""

from __future__ import annotations

import asyncio
import shutil
import socket
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from live_server import serving
from service_client import PHOTOS, Running

from faceavatar import AvatarEngine, AvatarRequest, HashMismatch
from faceavatar_cli.exits import CannotWrite
from faceavatar_cli.http import Settings, create_app
from faceavatar_cli.http.connections import TimedHeads
from faceavatar_cli.http.lane import Lane
from faceavatar_cli.http.steadily import steadily
from faceavatar_cli.http.store import FolderStore
from faceavatar_cli.http.threads import in_pool, standing_pool

HEAD = b"POST /getImageToImage HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"


class Hasty(TimedHeads):
    head_seconds = 0.5


def cut_after(url: str, *parts: bytes) -> float:
    """Seconds until the server closes a connection on which these parts came, 0.2 s apart."""
    port = urlsplit(url).port
    assert port is not None
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        for part in parts:
            connection.sendall(part)
            time.sleep(0.2)
        while connection.recv(2**16):
            pass
    return time.monotonic() - began


def test_a_head_that_does_not_come_to_its_end_is_not_waited_for(
    engine: AvatarEngine, settings: Settings, photo_uri: str
) -> None:
    with serving(create_app(settings, {"tiny": engine}), http=Hasty) as url:
        silent, dripping = cut_after(url), cut_after(url, HEAD[:20], HEAD[20:40])
        second = cut_after(url, b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", HEAD[:20])
        with httpx.Client(base_url=url, timeout=30) as client:  # kept, and waited for
            for _ in range(3):
                answer = client.post("/getImageToImage", json={"image": photo_uri, "num_inference_steps": 50})
                assert answer.json()["status"] == "completed"
                time.sleep(0.7)
    assert 0.4 < silent < 10
    assert 0.4 < dripping < 10
    assert 0.6 < second < 10


@pytest.mark.anyio
async def test_a_store_that_cannot_be_written_is_told_but_not_where_it_is(
    running: Running, tmp_path: Path, photo_uri: str
) -> None:
    (tmp_path / "file").write_bytes(b"")
    async with running(outputs=tmp_path / "file") as client:
        answer = await client.post("/getImageToImage", json={"image": photo_uri})
        (tmp_path / "file").unlink()
        again = await client.post("/getImageToImage", json={"image": photo_uri})
    assert (answer.status_code, answer.json()["error"]) == (500, "cannot_write")
    assert "full or out of reach" in answer.text
    assert str(tmp_path) not in answer.text
    assert again.status_code == 200


def test_half_a_picture_does_not_stay_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, data: bytes) -> int:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(CannotWrite, match=r"outputs: cannot be written \(No space left on device\)"):
        FolderStore(tmp_path / "outputs").put("task", 0, b"PNG")
    assert list((tmp_path / "outputs").iterdir()) == []


@pytest.mark.anyio
async def test_a_fault_in_the_loop_that_draws_fails_who_waits_and_the_next_are_drawn(
    running: Running, photo_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved, faults = Lane._moved, [MemoryError(), MemoryError()]

    def faulty(self: Lane) -> None:
        if faults:
            raise faults.pop()
        moved(self)

    async with running() as client:
        monkeypatch.setattr(Lane, "_moved", faulty)
        first = await client.post("/getImageToImage", json={"image": photo_uri})
        second = await client.post("/getImageToImage", json={"image": photo_uri})
    assert (first.status_code, first.json()["error"]) == (500, "out_of_memory")
    assert "ask for a smaller size" in first.json()["error_data"]["message"]
    assert second.status_code == 200


@pytest.mark.anyio
async def test_work_goes_on_after_a_fault() -> None:
    done = 0

    async def work() -> None:
        nonlocal done
        done += 1
        if done < 3:
            raise MemoryError
        await asyncio.Event().wait()

    task = asyncio.create_task(steadily("a test", work))
    await asyncio.sleep(1.5)
    task.cancel()
    assert done == 3


@pytest.mark.anyio
async def test_a_wake_up_that_is_lost_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, loop, lost = standing_pool(2, "test"), asyncio.get_running_loop(), threading.Event()

    def lose(*_: Any, **__: Any) -> None:
        lost.set()
        raise MemoryError

    assert len(pool._threads) == 2
    gate = threading.Event()
    waiting = asyncio.ensure_future(in_pool(pool, lambda: gate.wait() and 7))
    await asyncio.sleep(0.1)
    with monkeypatch.context() as patched:
        patched.setattr(loop, "call_soon_threadsafe", lose)
        gate.set()
        while not lost.is_set():
            await asyncio.sleep(0.01)
    assert await asyncio.wait_for(waiting, 20) == 7
    pool.shutdown()


def test_an_engine_outlives_changes_of_its_pack_and_the_next_one_refuses_them(
    tiny: Path, tmp_path: Path
) -> None:
    pack = tmp_path / "tiny"
    shutil.copytree(tiny, pack)
    engine = AvatarEngine.load(pack, provider="cpu")
    request = AvatarRequest(image=PHOTOS / "astronaut.jpg", seed=1)
    before = engine.generate(request).images[0]
    for file in pack.glob("*.onnx"):
        half = file.read_bytes()[: file.stat().st_size // 2]
        file.write_bytes(half)
    assert (engine.generate(request).images[0] == before).all()
    with pytest.raises(HashMismatch):
        AvatarEngine.load(pack, provider="cpu")
