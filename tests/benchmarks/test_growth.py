"""More pictures, larger ones and more steps cost no more than their work says."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from growth import grow, sweeps

from faceavatar import AvatarEngine

# Processor time of one thread, so that a busy machine hardly shows. What grows with the square of something
# that only the work's root grows with is far beyond this.
LENIENT = 1.5


@pytest.mark.alone
@pytest.mark.parametrize("what", ["batch", "steps"])
def test_the_toon_packs_cost_grows_no_faster_than_its_work(what: str) -> None:
    engine = AvatarEngine.load("toon", provider="cpu", threads=1).wait_until_open()
    rows = grow(engine, sweeps(sizes=False)[what], 3, time.process_time)
    assert [row for row in rows if row.growth > LENIENT] == []


@pytest.mark.alone
@pytest.mark.parametrize("what", ["batch", "steps", "size"])
def test_a_small_diffusion_packs_cost_grows_no_faster_than_its_work(what: str, tiny_sd: Path) -> None:
    engine = AvatarEngine.load(tiny_sd, provider="cpu", threads=1).wait_until_open()
    rows = grow(engine, sweeps(sizes=True)[what], 3, time.process_time)
    assert [row for row in rows if row.growth > LENIENT] == []
