"""A request's memory is foretold, held to a budget before any work, and running out of it is survived."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_pack

from faceavatar import AvatarEngine, AvatarRequest, InvalidRequest, OutOfMemory, OverBudget
from faceavatar.backends import failure
from faceavatar.budget import machine_budget, read_budget
from faceavatar.errors import FaceAvatarError, PackInvalid

PHOTO = Path(__file__).parent / "fixtures" / "photos" / "astronaut.jpg"
HERE = Path(__file__).parent
WITHIN = 0.25
MEASURED = {
    "cpu": {
        "loaded": 200_000_000,
        "stages": {"text_encoder": [1e6, 0, 0], "unet": [0, 10e3, 0], "vae_decoder": [0, 200e3, 0]},
    }
}


def ask(**fields: Any) -> AvatarRequest:
    return AvatarRequest(**{"image": PHOTO, "seed": 1, **fields})


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack that draws any size, with constants that are easy to count with."""
    folder = tiny_pack.build(tmp_path_factory.mktemp("packs") / "measured", tiny_pack.SD_LIKE)
    tiny_pack.change_manifest(folder, lambda content: content.update(memory=MEASURED))
    return folder


def test_a_forecast_counts_pictures_halves_and_cells(measured: Path) -> None:
    engine = AvatarEngine.load(measured, provider="cpu")
    cells, pixels = 64 * 96, 512 * 768
    seen = engine.forecast(ask(height=512, width=768, batch=3, guidance_scale=4.0))
    assert seen.measured
    assert seen.stages == {
        "loaded": 200_000_000,
        "text": 1_000_000,
        "face": 0,
        "encode": 0,
        "unet": 3 * 2 * 10_000 * cells,
        "decode": 200_000 * cells,  # one at a time
        "matting": 0,
        "request": 0,
        "pictures": pixels * (3 * 6 + 60),
    }
    assert seen.peak == sum(seen.stages.values())
    alone = engine.forecast(ask(height=512, width=768, batch=3, guidance_scale=1.0))
    assert alone.stages["unet"] * 2 == seen.stages["unet"]
    most = engine.forecast(ask(height=256, width=256, best_of=8, guidance_scale=1.0))
    assert most.stages["unet"] == 8 * 10_000 * 32 * 32


def test_a_pack_without_constants_is_estimated_and_says_so(sd_engine: AvatarEngine) -> None:
    small, large = (sd_engine.forecast(ask(height=side, width=side)) for side in (256, 1024))
    assert not small.measured
    assert small.peak < large.peak


def test_what_does_not_fit_is_refused_before_any_work_with_what_would(measured: Path) -> None:
    engine = AvatarEngine.load(measured, provider="cpu", memory_budget="1.5GB")
    with pytest.raises(OverBudget) as caught:
        engine.stream(ask(height=512, width=512, batch=8, guidance_scale=4.0))
    error = caught.value
    assert (error.field, error.got, error.allowed) == ("batch", "8 of 512x512", "5 of 512x512 at once")
    assert error.budget == 1_500_000_000
    assert error.needed == engine.forecast(ask(height=512, width=512, batch=8, guidance_scale=4.0)).peak
    assert engine.forecast(ask(height=512, width=512, batch=5, guidance_scale=4.0)).peak <= error.budget
    with pytest.raises(OverBudget, match=r"height: got '1 of 1024x1536', allowed 1 of \d+x\d+ at once"):
        engine.generate(ask(height=1536, width=1024))
    assert engine.generate(ask(height=256, width=256)).images


def test_a_budget_below_the_pack_itself_says_that_nothing_fits(measured: Path) -> None:
    engine = AvatarEngine.load(measured, provider="cpu", memory_budget=100_000_000)
    with pytest.raises(OverBudget, match=r"none: no picture fits, and the pack alone takes 0\.20 GB"):
        engine.generate(ask())


def test_fewer_are_joined_where_all_would_not_fit(measured: Path) -> None:
    engine = AvatarEngine.load(measured, provider="cpu", memory_budget="1.5GB")
    prepared = [engine.prepare(ask(seed=seed, batch=2, guidance_scale=4.0)) for seed in range(3)]
    assert engine.fits(prepared[:2])
    assert not engine.fits(prepared)
    with pytest.raises(OverBudget, match="6 of 512x512"):
        engine.generate_together(prepared)
    assert len(engine.generate_together(prepared[:2])) == 2


def test_what_earlier_runs_took_counts(measured: Path) -> None:
    engine = AvatarEngine.load(measured, provider="cpu", memory_budget="1.15GB")
    wide, many = ask(height=512, width=512), ask(height=256, width=256, batch=8, guidance_scale=30.0)
    assert engine.forecast(many).peak < 1.15e9
    engine.generate(wide.model_copy(update={"guidance_scale": 1.0}))
    # The decoder keeps what a large picture took, beside what eight small ones take of the net.
    with pytest.raises(OverBudget, match="8 of 256x256"):
        engine.generate(many.model_copy(update={"guidance_scale": 30.0}))


@pytest.mark.parametrize(
    ("words", "count"),
    [
        (None, None),
        (5, 5),
        ("6GB", 6 * 10**9),
        ("6 GiB", 6 * 2**30),
        ("1.5g", 1_500_000_000),
        ("700M", 7 * 10**8),
    ],
)
def test_a_budget_is_read_from_bytes_and_words(words: Any, count: int | None) -> None:
    assert read_budget(words) == count


@pytest.mark.parametrize("words", ["", "much", "-1GB", 0, -5, 1.5, True, "6TB"])
def test_a_budget_that_is_none_is_refused(tiny: Path, words: Any) -> None:
    with pytest.raises(InvalidRequest, match="memory_budget: got"):
        AvatarEngine.load(tiny, provider="cpu", memory_budget=words)


def test_the_machines_own_budget_is_what_is_held_and_what_is_free() -> None:
    budget = machine_budget()
    assert budget is not None
    assert 10**8 < budget < 10**14


@pytest.mark.parametrize(
    "words",
    [
        "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : std::bad_alloc",
        "BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer of size 4294967296",
        "CUDA failure 2: out of memory ; GPU=0",
        "Exception from src/inference: could not create a memory object",
    ],
)
def test_the_engines_words_for_no_memory_are_told_as_that(words: str) -> None:
    assert isinstance(failure("unet.onnx failed on cpu", RuntimeError(words), PackInvalid), OutOfMemory)
    assert isinstance(failure("x", MemoryError()), OutOfMemory)


def test_other_failures_stay_what_they_are() -> None:
    assert type(failure("x", RuntimeError("bad shape"))) is FaceAvatarError
    assert type(failure("x", RuntimeError("bad shape"), PackInvalid)) is PackInvalid


STARVED = """
import json, resource, sys
from pathlib import Path
from faceavatar import AvatarEngine, AvatarRequest, OutOfMemory
engine = AvatarEngine.load(sys.argv[1], provider=sys.argv[2], threads=1, memory_budget="1000GB")
engine.wait_until_open()
photo = sys.argv[3]
def ask(side, batch):
    return AvatarRequest(image=photo, seed=1, height=side, width=side, batch=batch, guidance_scale=4.0)
wanted = engine.generate(ask(256, 1)).images[0].tobytes()
held = next(int(l.split()[1]) for l in Path("/proc/self/status").read_text().splitlines() if "VmSize" in l)
limit = held * 1024 + int(sys.argv[4]) * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
told = []
for _ in range(3):
    try:
        engine.generate(ask(1536, 8))
        told.append("a picture")
    except OutOfMemory as error:
        told.append([error.needed, str(error)])
    told.append(engine.generate(ask(256, 1)).images[0].tobytes() == wanted)
print(json.dumps(told))
"""


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
def test_a_provider_that_runs_out_of_memory_is_told_and_the_next_request_works(
    tiny_sd: Path, provider: str
) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", STARVED, str(tiny_sd), provider, str(PHOTO), "200"],
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    told = json.loads(ran.stdout.splitlines()[-1])
    assert told[1::2] == [True] * 3
    for needed, words in told[::2]:
        assert needed > 10**8
        assert words.startswith("memory ran out: ")


def peaks(folder: str, provider: str, sizes: str, batches: str) -> list[dict[str, int]]:
    """Forecasts and high-water marks, each of a process of its own."""
    script = HERE.parent / "benchmarks" / "memory.py"
    command = [sys.executable, str(script), folder, "--provider", provider, "--check"]
    ran = subprocess.run(
        [*command, "--sizes", sizes, "--batches", batches], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    rows: list[dict[str, int]] = json.loads(ran.stdout.splitlines()[-1])["rows"]
    return rows


def assert_near(rows: list[dict[str, int]]) -> None:
    for row in rows:
        assert abs(row["forecast"] / row["measured"] - 1) <= WITHIN, row


def test_the_embedded_packs_forecast_is_near_what_it_takes() -> None:
    assert_near(peaks("toon", "cpu", "512", "1,4,8"))


@pytest.mark.heavy
@pytest.mark.parametrize("provider", ["cpu", "openvino"])
def test_the_embedded_packs_forecast_is_near_at_every_shape(provider: str) -> None:
    assert_near(peaks("toon", provider, "256,512,768,1024", "1,4,8"))


@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore")  # the libraries' own deprecations while they export
@pytest.mark.parametrize("provider", ["cpu", "openvino"])
def test_a_narrow_sd_packs_forecast_is_near_what_it_takes(tmp_path: Path, provider: str) -> None:
    import agreement
    import checkpoints

    made = agreement.export(checkpoints.sd(tmp_path / "sd"), tmp_path / "pack").pack
    script = HERE.parent / "benchmarks" / "memory.py"
    command = [sys.executable, str(script), str(made), "--provider", provider, "--write"]
    subprocess.run(command, check=True, capture_output=True)
    assert_near(peaks(str(made), provider, "256,512,768,1024", "1,4,8"))
