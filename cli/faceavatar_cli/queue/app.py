"""The Celery app: JSON only, late acknowledgement, one message at a time, a queue for each pack.

Knows Celery's settings, and how a message is sent. What a task does is in work.py.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, cast

from faceavatar.errors import MissingExtra
from faceavatar_cli.http.problems import QueueUnavailable
from faceavatar_cli.queue.settings import QueueSettings, shown_url

if TYPE_CHECKING:
    from celery import Celery
    from redis import Redis

    from faceavatar_cli.queue.records import Records

TASK = "faceavatar.draw"
_MOST_PRIORITY = 9
_CONNECT_SECONDS = 5
_SOCKET_SECONDS = 20
# kombu's own redelivery for Redis, of messages whose worker died before it claimed their task. One that comes
# back while its task is drawn is dropped by whoever hears it, so this may be short.
_VISIBILITY_SECONDS = 60

log = logging.getLogger(__name__)


def make_app(settings: QueueSettings) -> Celery:
    """A Celery app of these settings; connects to nothing yet. Raises MissingExtra."""
    try:
        from celery import Celery
    except ImportError as error:
        raise MissingExtra("queue", "celery") from error
    app = Celery("faceavatar", broker=settings.broker, backend=settings.results, set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        result_accept_content=["json"],
        task_serializer="json",
        result_serializer="json",
        event_serializer="json",
        enable_utc=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        worker_cancel_long_running_tasks_on_connection_loss=False,  # the record outlives the connection
        worker_hijack_root_logger=False,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # a worker waits for its broker as long as it takes
        broker_heartbeat=0,  # a solo worker cannot send any while it draws; TCP's keepalive tells instead
        broker_transport_options=_transport_options(settings),
        result_expires=round(settings.keep_seconds),
        redis_socket_timeout=_SOCKET_SECONDS,
        redis_socket_connect_timeout=_CONNECT_SECONDS,
        redis_retry_on_timeout=True,
        redis_backend_health_check_interval=30,
        task_create_missing_queues=True,
        task_queue_max_priority=_MOST_PRIORITY,
        task_default_queue=queue_of("toon"),
    )
    return app


def queue_of(pack: str) -> str:
    """The broker's queue for a pack's tasks."""
    return f"faceavatar.{pack}"


def store_client(app: Celery) -> Redis:
    """The result store, by Celery's own connection to it: TLS, sentinels and sockets are its matter."""
    backend: Any = app.backend
    return cast("Redis", backend.client)


def open_records(app: Celery, settings: QueueSettings) -> Records:
    """The records in the app's result store."""
    from faceavatar_cli.queue.records import Records

    return Records(store_client(app), settings)


class Bell:
    """Sends messages: each says only that a task waits."""

    def __init__(self, app: Celery, settings: QueueSettings) -> None:
        self._app, self._settings = app, settings

    def ring(self, task_id: str, pack: str, priority: int) -> None:
        """Tell a worker of that pack to look; priority 0..9, 9 first. Raises QueueUnavailable."""
        from kombu.exceptions import OperationalError

        # In Redis, kombu serves the least number first; in AMQP brokers the greatest wins.
        number = _MOST_PRIORITY - priority if self._settings.speaks_redis else priority
        policy = {"max_retries": 2, "interval_start": 0, "interval_step": 0.2}
        try:
            self._app.send_task(
                TASK,
                args=[task_id],
                task_id=task_id,
                queue=queue_of(pack),
                priority=number,
                retry_policy=policy,
                ignore_result=False,
            )
        except OperationalError as error:
            raise unreachable("broker", self._settings.broker, error) from error

    def silent(self, packs: set[str]) -> bool:
        """Whether the broker holds no message for any of these packs."""
        with self._app.connection_for_read() as connection:
            return all(_messages(connection, queue_of(pack)) == 0 for pack in packs)


def close_app(app: Celery) -> None:
    """Hang up on the result store; kombu's connections to the broker belong to all apps of a process."""
    store_client(app).connection_pool.disconnect()
    app.close()


def check_reachable(app: Celery, settings: QueueSettings) -> None:
    """Raises QueueUnavailable unless broker and result store answer within seconds."""
    from redis.exceptions import RedisError

    try:
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=_CONNECT_SECONDS)
    except Exception as error:  # as various as kombu's transports
        raise unreachable("broker", settings.broker, error) from error
    try:
        store_client(app).ping()
    except (RedisError, OSError) as error:
        raise unreachable("result store", settings.results, error) from error


def unreachable(what: str, url: str, error: BaseException) -> QueueUnavailable:
    """The broker or the result store does not answer."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return QueueUnavailable(
        f"the {what} {shown_url(url)} does not answer ({reason}); start it, or name another"
    )


def _messages(connection: Any, queue: str) -> int:
    channel = connection.channel()
    try:
        return int(channel.queue_declare(queue=queue, passive=True).message_count)
    except connection.channel_errors:  # no such queue: nothing was ever sent, or all of it is gone
        return 0
    finally:
        if channel.is_open if hasattr(channel, "is_open") else True:
            channel.close()


def _transport_options(settings: QueueSettings) -> dict[str, Any]:
    if not settings.speaks_redis:
        return {"confirm_publish": True, "connect_timeout": _CONNECT_SECONDS}
    return {
        "visibility_timeout": _VISIBILITY_SECONDS,
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
        "priority_steps": list(range(_MOST_PRIORITY + 1)),
        "queue_order_strategy": "round_robin",
        "socket_timeout": _SOCKET_SECONDS,
        "socket_connect_timeout": _CONNECT_SECONDS,
        "socket_keepalive": True,
    }
