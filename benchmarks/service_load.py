"""What the service makes of many callers at once: the same requests from 20 callers, and one by one.

    python benchmarks/service_load.py [--requests 200] [--callers 20] [--plot docs/images/service-load.png]

Starts `faceavatar serve` as a process of its own in front of the toon pack and sends every request three
times: from all callers at once to a server that joins, one by one from a single caller, and from all
callers to a server that does not join (--together 1); a part of each in turn. Prints a table, then one line
of JSON. The machine should have nothing else to do; callers and server share its cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

PHOTOS = Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "photos"
PROMPTS = (
    None,
    "storybook illustration of a woman, laughing, teal background",
    "pixel art portrait of a man with a beard",
    "vector cartoon of a person, glasses, yellow background",
)


@dataclass(frozen=True)
class Round:
    """What came of one round.

    seconds: of the whole; waits: of each request, sorted; batches: how many runs had so many requests.
    """

    name: str
    seconds: float
    waits: tuple[float, ...]
    statuses: dict[int, int]
    pictures: int
    batches: dict[int, int]

    @property
    def per_second(self) -> float:
        """Requests a second."""
        return len(self.waits) / self.seconds

    @property
    def mean_batch(self) -> float:
        """Requests in a run, on average."""
        runs = sum(self.batches.values())
        return sum(size * count for size, count in self.batches.items()) / runs

    def wait(self, share: float) -> float:
        """Seconds that this share of the requests stayed below."""
        return self.waits[min(len(self.waits) - 1, int(share * len(self.waits)))]


def requests(count: int) -> list[dict[str, Any]]:
    """Photos, prompts and seeds in turn, all of one picture."""
    return [
        {"prompt": PROMPTS[index // 4 % 4], "gender": ("man", "woman", None)[index % 3], "seed": index}
        for index in range(count)
    ]


@contextmanager
def server(callers: Sequence[str], *flags: str) -> Iterator[str]:
    """A server process; its URL once it is ready."""
    tokens = ",".join(f"caller-{index}:{secret}" for index, secret in enumerate(callers))
    command = [sys.executable, "-m", "faceavatar_cli", "serve", "--port", "0", "--no-queue"]
    with tempfile.TemporaryDirectory() as state, Path(state, "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--state", state, "--per-minute", "1000000", *flags],
            env=os.environ | {"FACEAVATAR_TOKENS": tokens},
            stdout=log,
            stderr=log,
        )
        try:
            yield _ready(process, Path(log.name))
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def _ready(process: subprocess.Popen[bytes], log: Path) -> str:
    """The URL that the server said, once it takes requests."""
    while process.poll() is None:
        if found := re.search(r"serves on (http://\S+)", log.read_text()):
            with suppress(httpx.TransportError):
                if httpx.get(f"{found[1]}/readyz").status_code == 200:
                    return found[1]
        time.sleep(0.1)
    raise SystemExit(log.read_text())


async def ask(url: str, secret: str, asked: Sequence[dict[str, Any]]) -> list[tuple[int, float, int]]:
    """One caller: one request after the other; status, seconds and pictures of each."""
    answered = []
    # Without certificates, which it would take each client 30 ms to read.
    async with httpx.AsyncClient(base_url=url, timeout=600, verify=False) as client:
        for fields in asked:
            photos = sorted(PHOTOS.glob("*.jpg"))
            photo = photos[fields["seed"] % len(photos)].read_bytes()
            data = {name: str(value) for name, value in fields.items() if value is not None}
            start = time.perf_counter()
            response = await client.post(
                "/getImageToImage",
                data=data,
                files={"image": photo},
                headers={"Authorization": f"Bearer {secret}"},
            )
            seconds = time.perf_counter() - start
            answered.append((response.status_code, seconds, len(response.json()["output"])))
    return answered


async def run(name: str, url: str, callers: Sequence[str], asked: Sequence[dict[str, Any]]) -> Round:
    """All requests, dealt out to the callers; some before it warm the server up and show it each photo."""
    await ask(url, callers[0], requests(4))
    before = batches(url, callers[0])
    start = time.perf_counter()
    answered = await asyncio.gather(
        *[ask(url, secret, asked[index :: len(callers)]) for index, secret in enumerate(callers)]
    )
    seconds = time.perf_counter() - start
    found = [one for each in answered for one in each]
    return Round(
        name=name,
        seconds=seconds,
        waits=tuple(sorted(wait for _, wait, _ in found)),
        statuses=dict(Counter(status for status, _, _ in found)),
        pictures=sum(pictures for _, _, pictures in found),
        batches=dict(batches(url, callers[0]) - before),
    )


def batches(url: str, secret: str) -> Counter[int]:
    """How many runs had how many requests, from the server's own counters."""
    text = httpx.get(f"{url}/metrics", headers={"Authorization": f"Bearer {secret}"}).text
    up_to = {
        sample.labels["le"]: int(sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "faceavatar_batch_requests_bucket"
    }
    sizes = sorted(int(float(size)) for size in up_to if size != "+Inf")
    counts = [up_to[f"{size}.0"] for size in sizes]
    return Counter({size: more - less for size, more, less in zip(sizes, counts, [0, *counts], strict=False)})


def rounds(count: int, callers: int, parts: int) -> list[Round]:
    """The three rounds, a part of each in turn: what else the machine does meets all of them alike."""
    names = [secrets.token_urlsafe(24) for _ in range(callers)]
    asked = requests(count)
    found: list[list[Round]] = [[], [], []]
    with server(names) as joins, server(names, "--together", "1") as plain:
        for part in range(parts):
            some = asked[part::parts]
            found[0].append(asyncio.run(run(f"{callers} callers, joined", joins, names, some)))
            found[1].append(asyncio.run(run("one by one", joins, names[:1], some)))
            found[2].append(asyncio.run(run(f"{callers} callers, not joined", plain, names, some)))
    return [_sum(each) for each in found]


def _sum(parts: Sequence[Round]) -> Round:
    return Round(
        name=parts[0].name,
        seconds=sum(part.seconds for part in parts),
        waits=tuple(sorted(wait for part in parts for wait in part.waits)),
        statuses=dict(sum((Counter(part.statuses) for part in parts), Counter())),
        pictures=sum(part.pictures for part in parts),
        batches=dict(sum((Counter(part.batches) for part in parts), Counter())),
    )


def plot(found: Sequence[Round], path: Path) -> None:
    """Throughput, waits and sizes of runs."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (speed, waits, sizes) = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    colors = ["#1c6b61", "#c9a227", "#8a8f98"]
    names = [one.name.replace(", ", ",\n") for one in found]
    bars = speed.bar(names, [one.per_second for one in found], color=colors)
    speed.bar_label(bars, fmt="%.1f")
    speed.set_title("requests a second")
    for one, color in zip(found, colors, strict=True):
        shares = [(index + 1) / len(one.waits) for index in range(len(one.waits))]
        waits.plot(one.waits, shares, color=color, label=one.name)
    waits.set_title("share of requests answered")
    waits.set_xlabel("seconds of waiting")
    waits.set_xlim(left=0)
    waits.legend(fontsize=8)
    joined = found[0]
    sizes.bar(list(joined.batches), list(joined.batches.values()), color=colors[0])
    sizes.set_title(f"requests in a run, joined (mean {joined.mean_batch:.1f})")
    sizes.set_xlabel("requests")
    sizes.set_ylabel("runs")
    sizes.set_xticks(range(1, 9))
    for axes in (speed, waits, sizes):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--callers", type=int, default=20)
    parser.add_argument("--parts", type=int, default=5)
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    load = os.getloadavg()[0]
    found = rounds(args.requests, args.callers, args.parts)
    print(f"{'':26} {'seconds':>8} {'a second':>9} {'median':>7} {'95 %':>7} {'batch':>6}  answers")
    for one in found:
        numbers = f"{one.seconds:8.1f} {one.per_second:9.2f} {statistics.median(one.waits):7.2f}"
        print(f"{one.name:26} {numbers} {one.wait(0.95):7.2f} {one.mean_batch:6.2f}  {one.statuses}")
    ratio = found[0].per_second / found[1].per_second
    print(f"joined answers {ratio:.2f} times as many requests as one by one")
    if args.plot is not None:
        plot(found, args.plot)
    summary = [
        {**{key: value for key, value in asdict(one).items() if key != "waits"}, "mean_batch": one.mean_batch}
        for one in found
    ]
    print(json.dumps({"cores": os.cpu_count(), "load_before": load, "ratio": ratio, "rounds": summary}))


if __name__ == "__main__":
    main()
