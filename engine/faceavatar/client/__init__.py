"""A client of the HTTP service: AvatarClient, AsyncAvatarClient, what they give and what they raise.

    with AvatarClient("http://127.0.0.1:8000", token="...") as client:
        client.generate("selfie.jpg", gender="woman", batch=4).save("avatars/")

Needs the extra `client`. Knows the wire; knows nothing of engines and packs.
"""

from faceavatar.client.aio import AsyncAvatarClient
from faceavatar.client.errors import (
    RateLimited,
    ServiceError,
    TaskCancelled,
    TaskNotFound,
    TimedOut,
    Unauthorized,
    Unavailable,
)
from faceavatar.client.patience import Patience
from faceavatar.client.results import Avatars, Task
from faceavatar.client.sync import AvatarClient
from faceavatar.client.wire import Asked

__all__ = [
    "Asked",
    "AsyncAvatarClient",
    "AvatarClient",
    "Avatars",
    "Patience",
    "RateLimited",
    "ServiceError",
    "Task",
    "TaskCancelled",
    "TaskNotFound",
    "TimedOut",
    "Unauthorized",
    "Unavailable",
]
