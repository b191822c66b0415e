"""What the service counts, for Prometheus; in a registry of its own, as several apps may share a process."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_SIZES = (1, 2, 3, 4, 5, 6, 7, 8)


class Metrics:
    """Counters and histograms; names begin with faceavatar_."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "faceavatar_requests",
            "HTTP requests answered.",
            ("path", "method", "status"),
            registry=self.registry,
        )
        self._tasks = Counter(
            "faceavatar_tasks", "Tasks that have ended.", ("app_id", "status"), registry=self.registry
        )
        self._failures = Counter(
            "faceavatar_failures", "Errors that were answered, by code.", ("code",), registry=self.registry
        )
        self._pictures = Counter(
            "faceavatar_pictures", "Pictures finished.", ("app_id",), registry=self.registry
        )
        self._waiting = Gauge(
            "faceavatar_queue_depth", "Tasks that wait.", ("queue",), registry=self.registry
        )
        self._stages = Histogram(
            "faceavatar_stage_seconds",
            "Seconds of a task's stages; denoise counts once for all that were drawn together.",
            ("app_id", "stage"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._together = Histogram(
            "faceavatar_batch_requests",
            "Requests drawn together in one run.",
            ("app_id",),
            buckets=_SIZES,
            registry=self.registry,
        )
        self._together_pictures = Histogram(
            "faceavatar_batch_pictures",
            "Pictures drawn together in one run.",
            ("app_id",),
            buckets=_SIZES,
            registry=self.registry,
        )
        self._speed = Gauge(
            "faceavatar_steps_per_second",
            "Steps of one picture a second, in the last run: steps x pictures / seconds of denoising.",
            ("app_id",),
            registry=self.registry,
        )

    def answered(self, path: str, method: str, status: int) -> None:
        """An HTTP request has its answer; path is the route's, so that ids make no series of their own."""
        self._requests.labels(path, method, str(status)).inc()

    def failed(self, code: str) -> None:
        """An error was told, by an answer or a task."""
        self._failures.labels(code).inc()

    def ended(self, app_id: str, status: str, pictures: int) -> None:
        """A task has ended."""
        self._tasks.labels(app_id, status).inc()
        self._pictures.labels(app_id).inc(pictures)

    def waiting(self, queue: str, count: int) -> None:
        """So many wait now."""
        self._waiting.labels(queue).set(count)

    def stage(self, app_id: str, stage: str, seconds: float) -> None:
        """A stage took so long."""
        self._stages.labels(app_id, stage).observe(seconds)

    def drawn(
        self, app_id: str, requests: int, pictures: int, steps: int, timings: Mapping[str, float]
    ) -> None:
        """A run is over: timings of one of its requests, whose denoising is that of all."""
        seconds = timings.get("denoise", 0.0)
        self._together.labels(app_id).observe(requests)
        self._together_pictures.labels(app_id).observe(pictures)
        self.stage(app_id, "denoise", seconds)
        if seconds > 0:
            self._speed.labels(app_id).set(steps * pictures / seconds)

    def text(self) -> bytes:
        """The text format."""
        return generate_latest(self.registry)
