"""How a server is set up: one frozen value, made by the command line or by whoever embeds the app."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

MEGABYTE = 2**20


@dataclass(frozen=True)
class Limits:
    """What one token may do.

    per_minute: requests for pictures; body: bytes; waiting: tasks that wait or run at once; pixels: batch x
    height x width of one request. priority: 0..9, 9 first, of its tasks in the queue of `celery: true`.
    """

    per_minute: float = 600
    body: int = 24 * MEGABYTE
    waiting: int = 64
    pixels: int = 8 * 1536 * 1536
    priority: int = 4


@dataclass(frozen=True)
class Token:
    """A caller: its name, sha256 of its secret (hex, lower case), and what it may do."""

    name: str
    sha256: str
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Settings:
    """All of a server's settings.

    packs: names or folders, the first is the default. provider, threads, precision ("bf16", or as
    "unet=bf16,vae_decoder=fp32") and engines: how AvatarEngine.load opens them. tokens: none
    means that only this machine may call.
    inline: pictures are answered as data URIs. public_url: begins the pictures' URLs; None takes the
    request's own. outputs: their folder. keep_seconds: how long pictures and ended tasks are kept.
    queue: tasks that may wait in all. together: most pictures in one run; gather_seconds: how long a run
    waits for company. allowed_hosts: names that may lead to addresses that are not public. webhook_secret:
    signs what webhooks are told; None refuses webhooks. waiting_bytes: of requests that wait, in all.
    memory_budget: what the process may grow to, such as "6GB"; None for what the machine has free.
    tiling: decode in tiles what does not fit whole.
    timeout: seconds that preparing a request, and drawing one, may take; None for no end.
    image_bytes, image_pixels, fetch_seconds: most that a picture handed in may have, and its fetching take.
    """

    packs: tuple[str, ...] = ("toon",)
    provider: str = "auto"
    threads: int | None = None
    precision: str | None = None
    engines: str | None = None
    tokens: tuple[Token, ...] = ()
    limits: Limits = field(default_factory=Limits)
    inline: bool = False
    public_url: str | None = None
    outputs: Path = Path("outputs")
    keep_seconds: float = 24 * 3600
    queue: int = 256
    waiting_bytes: int = 512 * MEGABYTE
    together: int = 8
    gather_seconds: float = 0.005
    timeout: float | None = None
    memory_budget: str | None = None
    tiling: bool = False
    allowed_hosts: frozenset[str] = frozenset()
    webhook_secret: str | None = field(default=None, repr=False)
    image_bytes: int = 20 * MEGABYTE
    image_pixels: int = 50_000_000
    fetch_seconds: float = 20.0
