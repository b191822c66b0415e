"""A worker joins a queue: settings, packs, broker and stores are looked at before any work."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click

from faceavatar.budget import read_budget
from faceavatar.errors import InvalidRequest
from faceavatar_cli.queue.local import local_settings
from faceavatar_cli.queue.settings import QueueSettings, queue_settings
from faceavatar_cli.running import Running


@dataclass(frozen=True)
class Joining:
    """Which queue: a broker with its stores, or the state folder of a server on this machine."""

    broker: str | None = field(repr=False)
    results: str | None = field(repr=False)
    outputs: str | None
    state: Path | None
    limits: Mapping[str, float]

    def settings(self) -> QueueSettings:
        """Raises InvalidRequest."""
        if self.broker is None and self.state is not None:
            return local_settings(self.state, self.outputs, **self.limits)
        if self.broker is None:
            raise InvalidRequest(
                "broker", None, "a URL such as redis://host/0, or --state with a server's state folder"
            )
        if self.outputs is None:
            raise InvalidRequest("outputs", None, "a folder or fsspec URL that the server reaches too")
        return queue_settings(self.broker, self.outputs, self.results, **self.limits)


def join(
    joining: Joining,
    packs: Sequence[str],
    running: Running,
    pool: str,
    hosts: Sequence[str],
) -> int:
    """Work until told to stop; gives the exit code.

    Raises InvalidRequest, MissingExtra, PackNotFound and its kin, QueueUnavailable, before any work.
    """
    read_budget(running.memory_budget)
    settings = joining.settings()
    from faceavatar_cli.queue.app import check_reachable, close_app, make_app

    app = make_app(settings)
    from faceavatar.pack import Pack, find_pack
    from faceavatar.sources import Rules
    from faceavatar_cli.queue.stores import open_store
    from faceavatar_cli.queue.tasks import run_worker
    from faceavatar_cli.queue.work import Engines, Photos

    opened = [Pack.load(find_pack(pack)) for pack in packs]
    open_store(settings.outputs)
    check_reachable(app, settings)
    close_app(app)
    _log_to_stderr()
    names = ", ".join(f"{pack.name} {pack.manifest.version}" for pack in opened)
    click.echo(f"worker: draws with {names}; {settings.told()}", err=True)
    if os.geteuid() == 0:
        click.echo("worker: runs as root, which it has no use for; run it as another user", err=True)
    engines = Engines({pack.name: str(pack.folder) for pack in opened}, running)
    photos = Photos(Rules(allowed_hosts=frozenset(host.lower() for host in hosts)))
    return run_worker(settings, engines, photos, pool)


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.getLogger("celery.redirected").setLevel(logging.WARNING)
