"""Photos and pictures lie in a folder or behind fsspec, whole or not at all."""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path

import pytest

from faceavatar import ImageError, InvalidRequest
from faceavatar_cli.exits import CannotWrite
from faceavatar_cli.http.store import NAME
from faceavatar_cli.queue.bucket import Bucket
from faceavatar_cli.queue.stores import SharedFolder, SharedStore, new_name, open_store


@pytest.fixture(params=["folder", "file", "memory", "local"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> SharedStore:
    """A folder, by its path and as a URL; fsspec's memory; fsspec's own view of a folder."""
    places = {
        "folder": str(tmp_path / "outputs"),
        "file": f"file://{tmp_path}/outputs",
        "memory": f"memory://{uuid.uuid4().hex}/outputs",
        "local": f"local://{tmp_path}/outputs",
    }
    return open_store(places[request.param])


def test_a_picture_is_found_by_its_name_and_written_over(store: SharedStore) -> None:
    name = new_name()
    assert store.open(name) is None
    store.keep(name, b"first")
    store.keep(name, b"again")
    assert store.open(name) == b"again"
    store.drop(name)
    store.drop(name)
    assert store.open(name) is None


def test_names_cannot_be_guessed_and_others_are_not_looked_up(store: SharedStore) -> None:
    names = {store.put("task", 0, b"x") for _ in range(3)}
    assert len(names) == 3
    assert all(NAME.fullmatch(name) for name in names)
    store.keep_photo("task", b"a face")
    for name in (".photos/task", "../outputs", "", "a" * 40 + ".png/../.photos/task"):
        assert store.open(name) is None


def test_a_photo_stays_until_it_is_dropped(store: SharedStore) -> None:
    store.keep_photo("a", b"a face")
    assert store.photo("a") == b"a face"
    store.drop_photo("a")
    store.drop_photo("a")
    with pytest.raises(ImageError, match=r"not in the output store .*; check that server and"):
        store.photo("a")


def test_old_pictures_expire_and_nothing_half_written_stays(store: SharedStore) -> None:
    name = store.put("task", 0, b"old")
    store.keep_photo("task", b"a face")
    assert store.expire(3600) == 0
    time.sleep(0.06)
    assert store.expire(0.02) == 1
    assert store.open(name) is None
    with pytest.raises(ImageError):
        store.photo("task")


def test_what_a_killed_worker_left_half_written_goes_too(tmp_path: Path) -> None:
    half = tmp_path / f".{new_name()}.0a1b2c3d"
    half.write_bytes(b"half")
    folder = SharedFolder(tmp_path)
    folder.expire(3600)
    assert half.exists()
    time.sleep(0.06)
    folder.expire(0.02)
    assert not half.exists()


def test_an_empty_store_expires_nothing(store: SharedStore) -> None:
    assert store.expire(0) == 0


def test_readers_never_see_half_a_picture(tmp_path: Path) -> None:
    folder = SharedFolder(tmp_path)
    folder.keep(new_name(), b"x" * 100)
    assert len(os.listdir(tmp_path)) == 1
    assert not any(name.startswith(".") for name in os.listdir(tmp_path))


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CannotWrite, match=r"file/outputs: cannot be written .*server and workers all need"):
        open_store(str(tmp_path / "file" / "outputs")).keep(new_name(), b"x")


def test_a_protocol_that_is_not_known_or_not_installed_is_named() -> None:
    with pytest.raises(InvalidRequest, match=r"outputs: got 'gopher://x', allowed a folder, or a URL"):
        open_store("gopher://x")
    with pytest.raises(InvalidRequest, match=r"(?i)outputs: got 's3://bucket/avatars', .*s3fs"):
        open_store("s3://bucket/avatars")


def test_what_has_no_whole_puts_is_written_beside_and_moved_in() -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    seen: list[str] = []

    class Watched(MemoryFileSystem):  # type: ignore[misc]
        def pipe_file(self, path: str, value: bytes, **options: object) -> None:
            seen.append(path)
            super().pipe_file(path, value, **options)

    root = f"/{uuid.uuid4().hex}"
    bucket, name = Bucket(Watched(), root, whole_puts=False), new_name()
    bucket.keep(name, b"x")
    assert bucket.open(name) == b"x"
    assert seen[0].startswith(f"{root}/{name}.")
    assert Watched().ls(root, detail=False) == [f"{root}/{name}"]
