"""What Prometheus reads is what happened."""

from __future__ import annotations

import io
import os

import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from service_client import Running


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.mark.anyio
async def test_requests_stages_batches_and_failures_are_counted(running: Running, photo: bytes) -> None:
    picture = Image.open(io.BytesIO(photo)).convert("RGB")
    picture.putpixel((0, 0), tuple(os.urandom(3)))  # no photo whose face is remembered
    fresh = io.BytesIO()
    picture.save(fresh, "PNG")
    async with running() as client:
        await client.post("/getImageToImage", files={"image": fresh.getvalue()}, data={"batch": "2"})
        await client.post("/getImageToImage", json={"image": "data:,no picture"})
        await client.post("/getImageToImage", json={"batch": 9})
        await client.get("/tasks/some-id")
        await client.get("/made-up/path")
        response = await client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = samples(response.text)

    def count(name: str, **labels: str) -> float:
        return found[f"faceavatar_{name}", tuple(sorted(labels.items()))]

    path = "/getImageToImage"
    assert count("requests_total", path=path, method="POST", status="200") == 1
    assert count("requests_total", path=path, method="POST", status="422") == 2
    assert count("requests_total", path="/tasks/{task_id}", method="GET", status="404") == 1
    assert count("requests_total", path="other", method="GET", status="404") == 1
    assert count("tasks_total", app_id="tiny", status="completed") == 1
    assert count("tasks_total", app_id="tiny", status="failed") == 1
    assert count("pictures_total", app_id="tiny") == 2
    assert count("failures_total", code="unreadable_image") == 1
    assert count("failures_total", code="invalid_request") == 1
    assert count("failures_total", code="task_not_found") == 1
    assert count("queue_depth", queue="local") == 0
    assert count("batch_requests_sum", app_id="tiny") == 1
    assert count("batch_pictures_sum", app_id="tiny") == 2
    assert count("steps_per_second", app_id="tiny") > 0
    for stage in ("queue", "load_image", "detect", "embed", "text", "denoise", "decode", "encode"):
        assert count("stage_seconds_count", app_id="tiny", stage=stage) == 1, stage
