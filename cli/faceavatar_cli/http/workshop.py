"""What the lanes of a server share: settings, store, counters, and threads that fetch and encode."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from faceavatar.sources import Rules
from faceavatar_cli.http.metrics import Metrics
from faceavatar_cli.http.settings import Settings
from faceavatar_cli.http.tasks import OutputStore
from faceavatar_cli.http.threads import standing_pool

FETCHERS = 16  # pictures fetched at once
ENCODERS = 2


@dataclass(frozen=True)
class Workshop:
    """What all lanes share: settings, the store, counters, threads that fetch and threads that encode."""

    settings: Settings
    store: OutputStore
    metrics: Metrics
    fetchers: ThreadPoolExecutor
    encoders: ThreadPoolExecutor

    @classmethod
    def open(cls, settings: Settings, store: OutputStore, metrics: Metrics) -> Workshop:
        """With fresh threads."""
        fetchers, encoders = standing_pool(FETCHERS, "fetch"), standing_pool(ENCODERS, "encode")
        return cls(settings, store, metrics, fetchers, encoders)

    @property
    def rules(self) -> Rules:
        """For the pictures' URLs."""
        settings = self.settings
        return Rules(settings.allowed_hosts, settings.image_bytes, settings.fetch_seconds)

    def close(self) -> None:
        """Ends the threads; what they fetch is left behind."""
        self.fetchers.shutdown(wait=False, cancel_futures=True)
        self.encoders.shutdown(wait=True, cancel_futures=True)
