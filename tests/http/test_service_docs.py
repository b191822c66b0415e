"""docs/service.md tells what is so."""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from pathlib import Path
from typing import Any

import pytest

from faceavatar_cli.http.metrics import Metrics
from faceavatar_cli.http.settings import Limits, Settings
from faceavatar_cli.http.webhook import PAUSES, sign

DOCS = (Path(__file__).resolve().parents[2] / "docs" / "service.md").read_text(encoding="utf-8")


def test_every_metric_is_told_with_its_labels() -> None:
    metrics = Metrics()
    told = {
        name: set(re.findall(r"`(\w+)`", labels.partition(":")[0]))
        for names, labels in re.findall(r"^\| (`faceavatar_.*?) \| (.*?) \|", DOCS, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", names)
    }
    real = {}
    for collector in vars(metrics).values():
        if hasattr(collector, "_labelnames"):
            (family,) = collector.describe()
            name = f"{family.name}_total" if family.type == "counter" else family.name
            real[name] = set(collector._labelnames)
    assert told == real


def test_the_check_of_a_webhook_works() -> None:
    (code,) = re.findall(r"```python\n(import hashlib.*?)```", DOCS, re.DOTALL)
    room: dict[str, Any] = {}
    exec(code, room)
    now, body = int(time.time()), b'{"status": "completed"}'
    signature = sign("the secret of the hooks", now, body)
    genuine = room["genuine"]
    assert genuine("the secret of the hooks", str(now), signature, body)
    assert not genuine("another", str(now), signature, body)
    assert not genuine("the secret of the hooks", str(now), signature, body + b" ")
    old = hmac.new(b"the secret of the hooks", b"1." + body, hashlib.sha256).hexdigest()
    assert not genuine("the secret of the hooks", "1", f"sha256={old}", body)


@pytest.mark.parametrize(
    "words",
    [
        f"requests for pictures a minute | {Limits().per_minute:.0f},",
        f"bytes of a request | {Limits().body // 2**20} MB",
        "batch x height x width | 8 x 1536 x 1536",
        f"tasks that wait or run at once | {Limits().waiting} |",
        f"`--waiting` ({Settings().queue} may wait)",
        f"bytes of all requests that wait | | | {Settings().waiting_bytes // 2**20} MB",
        f"{Settings().image_bytes // 2**20} MB, {Settings().fetch_seconds:.0f} seconds in all",
        f"{Settings().image_pixels // 10**6} megapixels",
        f"`--together {Settings().together}` pictures",
        f"`--gather {Settings().gather_seconds * 1000:.0f}` ms",
        f"after {PAUSES[0]:.0f}, {PAUSES[1]:.0f} and {PAUSES[2]:.0f} seconds",
    ],
)
def test_the_numbers_are_those_of_the_code(words: str) -> None:
    assert words in DOCS
    assert Limits().pixels == 8 * 1536 * 1536
