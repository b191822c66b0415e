"""What a worker does when it hears of a task: claim it, draw it, keep the pictures, end it, or give it up.

A task is drawn by whoever holds its record. The pictures' names and the seed were drawn when it was taken
in, so that a second attempt makes the same files; and only the holder can end it.
"""

from __future__ import annotations

import _thread
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from redis.exceptions import RedisError

from faceavatar import AvatarEngine, AvatarRequest, AvatarResult, FaceAvatarError, Step
from faceavatar.image import encode_lossy, encode_png, refuse_large, resize
from faceavatar.sources import DEFAULT_RULES, Rules, read_remote, shown, source_kind
from faceavatar_cli.http.contract import ImageToImage
from faceavatar_cli.http.problems import problem_of
from faceavatar_cli.queue.owner import new_owner
from faceavatar_cli.queue.records import Error, Going, Records
from faceavatar_cli.queue.stores import SharedStore
from faceavatar_cli.running import Running

PREVIEW_SIDE = 256
_BEATS_A_LEASE = 4
_ENDING_SECONDS = 120.0  # how long a finished picture is held while the result store does not answer

log = logging.getLogger(__name__)


class TimeLimit(FaceAvatarError):
    """A task took longer than one may."""

    code = "time_limit"


class Dropped(Exception):
    """Work on a task stopped between two steps; `why` is "cancel", "lost" or "stop"."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


@dataclass(frozen=True)
class Photos:
    """What photos may be: how they are fetched, and their pixels."""

    rules: Rules = DEFAULT_RULES
    pixels: int = 50_000_000


@dataclass
class Engines:
    """The packs that this process draws with, each opened when its first task comes."""

    packs: Mapping[str, str]
    running: Running = field(default_factory=Running)
    _open: dict[str, AvatarEngine] = field(default_factory=dict)

    def engine(self, name: str) -> AvatarEngine:
        """The engine of a pack's name. Raises PackNotFound and its kin, ProviderUnavailable."""
        if name not in self._open:
            self._open[name] = self.running.load(self.packs.get(name, name)).wait_until_open()
        return self._open[name]


class Worker:
    """Draws tasks, one at a time. `stopping` says whether this process was asked to end."""

    def __init__(
        self,
        records: Records,
        store: SharedStore,
        engines: Engines,
        lease_seconds: float,
        task_seconds: float,
        photos: Photos,
        stopping: Callable[[], bool],
    ) -> None:
        self._records, self._store, self._engines = records, store, engines
        self._lease, self._limit, self._photos, self._stopping = lease_seconds, task_seconds, photos, stopping

    def hear(self, task_id: str) -> str:
        """Do what there is to do for a task; says what came of it, for the log.

        Raises the task's own FaceAvatarError once its record tells of it, and redis' errors where the
        result store stays away: the message is then not acknowledged, and the task is begun anew.
        """
        owner = new_owner()
        claim, work = self._records.claim(task_id, owner)
        if claim != "claimed":
            return claim
        try:
            with self._heart(task_id, owner) as going:
                names, warnings = self._draw(task_id, owner, work, going)
        except Dropped as dropped:
            return self._drop(task_id, owner, dropped.why, work["names"])
        except Exception as error:
            self._fail(task_id, owner, error, work["names"])
            raise
        ended = self._insist(lambda: self._records.complete(task_id, owner, names, warnings))
        if not ended:
            return "lost"
        self._forget_photo(task_id)
        return "completed"

    def _draw(
        self, task_id: str, owner: str, work: Mapping[str, Any], going: Callable[[], Going]
    ) -> tuple[list[str], tuple[str, ...]]:
        begun = time.monotonic()
        request = self._request(task_id, ImageToImage(**work["request"]))
        engine = self._engines.engine(work["app_id"])
        for step in engine.stream(request, check=lambda: self._look_up(going, begun)):
            self._tell(task_id, owner, step)
            self._look_up(going, begun)
        if step.result is None:
            raise RuntimeError("the last step carries no result")
        return self._keep(step.result, work["names"], going, begun), step.result.warnings

    def _request(self, task_id: str, asked: ImageToImage) -> AvatarRequest:
        if source_kind(asked.image) == "url":
            photo = read_remote(asked.image, self._photos.rules)
        else:
            photo = self._store.photo(task_id)
        refuse_large(photo, self._photos.pixels, shown(asked.image))
        return asked.to_avatar_request(photo)

    def _tell(self, task_id: str, owner: str, step: Step) -> None:
        previews = [_small(image) for image in step.preview or ()]
        try:
            going = self._records.step(task_id, owner, step.index + 1, step.total, previews)
        except RedisError:  # the heart goes on trying; a picture is not thrown away for it
            return
        if going != "on":
            raise Dropped(going)

    def _look_up(self, going: Callable[[], Going], begun: float) -> None:
        """Between two steps: whether to go on."""
        if (word := going()) != "on":
            raise Dropped(word)
        if self._stopping():
            raise Dropped("stop")
        if time.monotonic() - begun > self._limit:
            raise TimeLimit(f"not done after {self._limit:.0f} s; ask for fewer steps or pictures")

    def _keep(
        self, result: AvatarResult, names: Sequence[str], going: Callable[[], Going], begun: float
    ) -> list[str]:
        for index, (image, name) in enumerate(zip(result.images, names, strict=True)):
            png = encode_png(image, result.metadata(index))
            self._look_up(going, begun)
            self._store.keep(name, png)
        return list(names)

    @contextmanager
    def _heart(self, task_id: str, owner: str) -> Iterator[Callable[[], Going]]:
        """Beats in a thread of its own, also while a model is loaded or a step is long."""
        stop, begun, over = threading.Event(), threading.Event(), threading.Event()
        heard: list[Going] = ["on"]

        def beat() -> None:
            begun.set()
            try:
                while heard[0] == "on" and not stop.wait(self._lease / _BEATS_A_LEASE):
                    with suppress(RedisError):
                        heard[0] = self._records.beat(task_id, owner)
            finally:
                over.set()

        # Not a Thread: where memory has run out, its start would wait for ever for a thread that never began.
        # Without a heart each step still beats.
        _thread.start_new_thread(beat, ())
        try:
            yield lambda: heard[0]
        finally:
            stop.set()
            if begun.is_set():
                over.wait()

    def _drop(self, task_id: str, owner: str, why: str, names: Sequence[str]) -> str:
        if why == "stop":
            self._insist(lambda: self._records.release(task_id, owner))
            return "put back"
        if why == "cancel" and self._insist(lambda: self._records.cancelled(task_id, owner)):
            self._clear(task_id, names)
            return "cancelled"
        return "lost"

    def _fail(self, task_id: str, owner: str, error: Exception, names: Sequence[str]) -> None:
        problem = problem_of(error)
        told = Error(problem.code, problem.data)
        if self._insist(lambda: self._records.fail(task_id, owner, told)):
            self._clear(task_id, names)

    def _clear(self, task_id: str, names: Sequence[str]) -> None:
        for name in names:
            self._store.drop(name)
        self._forget_photo(task_id)

    def _forget_photo(self, task_id: str) -> None:
        """A photo that stays for now is found by the next sweep."""
        try:
            self._store.drop_photo(task_id)
        except Exception as error:
            log.warning("the photo of %s could not be removed yet: %s", task_id, type(error).__name__)
            return
        self._insist(lambda: self._records.photo_gone(task_id))

    def _insist(self, change: Callable[[], Any]) -> Any:
        """Tell the result store, which may be starting again just now."""
        until = time.monotonic() + _ENDING_SECONDS
        while True:
            try:
                return change()
            except RedisError:
                if time.monotonic() > until or self._stopping():
                    raise
                time.sleep(0.5)


def _small(image: Any) -> bytes:
    """A preview as JPEG, its longer side 256 pixels at most."""
    height, width = image.shape[:2]
    scale = min(1.0, PREVIEW_SIDE / max(height, width))
    small = resize(image, max(1, round(height * scale)), max(1, round(width * scale)))
    return encode_lossy(small[..., :3], "jpeg")
