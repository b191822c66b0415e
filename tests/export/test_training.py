"""What training stages share: settings, devices, restarts, the learning-rate curve, averages, logs."""

from __future__ import annotations

import csv
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from faceavatar_export.toon.settings import read_settings, stage_parser
from faceavatar_export.toon.training import (
    Average,
    RunLog,
    Stage,
    agreed,
    channels_last,
    choose_device,
    data_workers,
    endless,
    join_processes,
    load_checkpoint,
    save_checkpoint,
    share_gradients,
    warm_cosine,
)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.last(self.norm(self.first(x))))


def net(seed: int) -> Net:
    torch.manual_seed(seed)
    return Net()


def learn(module: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    inputs = torch.randn(16, 4, generator=torch.Generator().manual_seed(seed))
    loss: Tensor = module(inputs).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def test_a_checkpoint_gives_back_step_seconds_and_weights(tmp_path: Path) -> None:
    first, second = net(0), net(1)
    save_checkpoint(tmp_path / "new" / "run.pt", 7, 12.5, model=first)
    assert load_checkpoint(tmp_path / "new" / "run.pt", model=second) == (7, 12.5)
    for mine, theirs in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, theirs, atol=0, rtol=0)
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["run.pt"]


def test_a_restarted_run_goes_on_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    whole = net(0)
    optimizer = torch.optim.AdamW(whole.parameters(), lr=1e-2)
    learn(whole, optimizer, 1)
    save_checkpoint(tmp_path / "run.pt", 1, 1.0, model=whole, optimizer=optimizer)
    learn(whole, optimizer, 2)
    again = net(5)
    restarted = torch.optim.AdamW(again.parameters(), lr=1e-2)
    load_checkpoint(tmp_path / "run.pt", model=again, optimizer=restarted)
    learn(again, restarted, 2)
    for mine, theirs in zip(whole.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, atol=0, rtol=0)


def test_no_checkpoint_is_a_run_at_its_start(tmp_path: Path) -> None:
    model = net(0)
    before = model.first.weight.clone()
    assert load_checkpoint(tmp_path / "none.pt", model=model) == (0, 0.0)
    torch.testing.assert_close(model.first.weight, before, atol=0, rtol=0)


def test_a_part_may_be_read_alone_as_the_export_does(tmp_path: Path) -> None:
    model = net(0)
    save_checkpoint(tmp_path / "run.pt", 3, 1.0, model=net(1), average=Average(model))
    average = Average(net(2))
    load_checkpoint(tmp_path / "run.pt", average=average)
    torch.testing.assert_close(average.module.first.weight, model.first.weight, atol=0, rtol=0)


def test_the_learning_rate_rises_over_the_warm_up_and_falls_to_its_floor() -> None:
    rates = np.array([warm_cosine(p) for p in np.linspace(0, 1, 501)])
    top = int(rates.argmax())
    assert rates[0] == 0.01
    assert rates.max() == pytest.approx(1, abs=0.01)
    assert 8 <= top <= 12
    assert np.all(np.diff(rates[:top]) >= 0)
    assert np.all(np.diff(rates[top:]) <= 0)
    assert rates[-1] == pytest.approx(0.02)
    assert warm_cosine(1.5) == pytest.approx(0.02)


def test_an_average_follows_slowly_and_keeps_its_names() -> None:
    start, model = net(0), net(0)
    average = Average(model, 0.9)
    with torch.no_grad():
        model.first.weight += 1
        torch.as_tensor(model.norm.running_mean).fill_(3)
    average.update(model, step=10**6)
    torch.testing.assert_close(average.module.first.weight, start.first.weight + 0.1)
    torch.testing.assert_close(average.module.norm.running_mean, torch.full((8,), 3.0))
    assert [name.removeprefix("module.") for name in average.state_dict()] == list(model.state_dict())
    assert not any(p.requires_grad for p in average.parameters())


def test_early_averages_forget_the_first_weights() -> None:
    model = net(0)
    average = Average(model, 0.999)
    with torch.no_grad():
        model.first.weight.fill_(1)
    for step in range(1, 40):
        average.update(model, step)
    torch.testing.assert_close(average.module.first.weight, model.first.weight, atol=1e-3, rtol=0)


def test_an_average_does_not_change_with_its_model() -> None:
    model = net(0)
    average = Average(model)
    with torch.no_grad():
        model.first.weight.zero_()
    assert bool(average.module.first.weight.any())


def test_channels_last_keeps_values_and_type() -> None:
    conv = nn.Conv2d(8, 8, 3)
    before = conv.weight.clone()
    moved = channels_last(conv)
    assert moved is conv
    assert moved.weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(moved.weight, before, atol=0, rtol=0)


def test_a_log_has_one_head_however_often_a_run_restarts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in (1, 2):
        RunLog(tmp_path / "run.csv", ("step", "loss")).write(step, 0.25)
    with (tmp_path / "run.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["step", "loss"], ["1", "0.25"], ["2", "0.25"]]
    assert "loss 0.25" in capsys.readouterr().out


def test_one_process_shares_with_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.delenv("RANK", raising=False)
    assert join_processes() == (0, 1)
    assert agreed(2.5, 1) == 2.5
    model = net(0)
    model(torch.ones(3, 4)).sum().backward()
    before = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    share_gradients(model, 1)
    for kept, p in zip(before, model.parameters(), strict=True):
        torch.testing.assert_close(kept, p.grad, atol=0, rtol=0)


@dataclass(frozen=True, slots=True)
class Pace:
    minutes: float
    lr: float


@dataclass(frozen=True, slots=True)
class Settings:
    minutes: float
    batch: int
    face_weight: float


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "own.toml"
    file.write_text(
        "[unet]\nminutes = 80\nbatch = 24\nface_weight = 2.5\n[unet.cuda]\nbatch = 512\n"
        "[other]\nminutes = 1\n"
    )
    return file


def test_a_gpu_changes_only_the_numbers_of_its_own_table(config: Path) -> None:
    assert read_settings(Settings, "unet", "cpu", config) == Settings(80.0, 24, 2.5)
    assert read_settings(Settings, "unet", "cuda", config) == Settings(80.0, 512, 2.5)


def test_the_command_line_beats_the_file_on_either_device(config: Path) -> None:
    args = stage_parser("", Settings).parse_args(
        ["--batch", "7", "--face-weight", "1", "--config", str(config)]
    )
    assert args.device == "auto"
    for device in ("cpu", "cuda"):
        assert read_settings(Settings, "unet", device, args.config, vars(args)) == Settings(80.0, 7, 1.0)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[other]\nminutes = 1\n", r"own.toml: no section \[unet\], only other"),
        ("[unet]\nminutes = 1\nbatch = 2\n", r"\[unet\] lacks \['face_weight'\]"),
        (
            "[unet]\nminutes = 1\nbatch = 2\nface_weight = 1\nfaces = 2\n",
            r"\['faces'\]; known are .*'face_weight'",
        ),
        ("[unet]\nminutes = 1\nbatch = 2.5\nface_weight = 1\n", r"\[unet\] batch is 2.5; int expected"),
    ],
)
def test_a_faulty_configuration_says_where_and_what(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "own.toml").write_text(text)
    with pytest.raises(ValueError, match=told):
        read_settings(Settings, "unet", "cpu", tmp_path / "own.toml")


def test_auto_is_the_cpu_where_torch_sees_no_gpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    assert capsys.readouterr().out == "device: cpu\n" * 2
    with pytest.raises(RuntimeError, match="torch sees no GPU; use --device cpu"):
        choose_device("cuda")


def test_auto_is_the_gpu_of_this_process_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    taken: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")
    monkeypatch.setattr(torch, "set_float32_matmul_precision", lambda precision: None)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_device("auto") == torch.device("cuda", 1)
    assert taken == [torch.device("cuda", 1)]
    assert capsys.readouterr().out == "device: cuda:1 (Some GPU)\n"


def stage(file: Path, minutes: float, seed: int = 0) -> tuple[Stage, Net]:
    model = net(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    return Stage(file, ("loss", "held_out"), Pace(minutes, 1e-2), (0, 1), model, optimizer), model


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that moves six seconds each time it is read."""
    now = [1000.0]

    def read() -> float:
        now[0] += 6
        return now[0]

    monkeypatch.setattr("faceavatar_export.toon.training.time.time", read)
    return now


def test_a_stage_trains_until_its_minutes_are_spent_and_goes_on_for_more(
    tmp_path: Path, clock: list[float]
) -> None:
    first, model = stage(tmp_path / "run.pt", 1)
    shares = []
    for share in first.steps(log_every=3, save_every=1000):
        loss = model(torch.ones(4, 4)).square().mean()
        first.learn(loss)
        first.note(loss=loss)
        if first.step % 3 == 0:
            first.note(held_out=0.5)
        shares.append(share)
    assert shares == pytest.approx([0.1 * i for i in range(1, 10)])
    again, restored = stage(tmp_path / "run.pt", 2, seed=5)
    assert again.step == 9
    for mine, theirs in zip(model.parameters(), restored.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, atol=0, rtol=0)
    assert next(again.steps()) > 0.5
    with (tmp_path / "run.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["3", "6", "9"]
    assert [row["held_out"] for row in rows] == ["0.5"] * 3


def test_a_row_of_the_log_holds_means_and_leaves_out_what_was_not_noted(
    tmp_path: Path, clock: list[float]
) -> None:
    run, _ = stage(tmp_path / "run.pt", 1)
    for _ in run.steps(log_every=2):
        run.step += 1
        run.note(loss=torch.tensor(float(run.step)))
        if run.step == 4:
            break
    with (tmp_path / "run.csv").open(newline="") as file:
        assert [(row["loss"], row["held_out"]) for row in csv.DictReader(file)] == [("1.5", "")]


def test_a_loss_that_is_no_number_stops_a_run_before_it_is_saved(tmp_path: Path, clock: list[float]) -> None:
    run, _ = stage(tmp_path / "run.pt", 1)

    def go() -> None:
        for _ in run.steps(log_every=1, save_every=1):
            run.step += 1
            run.note(loss=float("nan"))

    with pytest.raises(RuntimeError, match=r"step 1: .*nan"):
        go()
    assert not (tmp_path / "run.pt").exists()


def test_other_processes_step_and_write_nothing(tmp_path: Path, clock: list[float]) -> None:
    model = net(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    run = Stage(tmp_path / "run.pt", ("loss",), Pace(1, 1e-2), (1, 1), model, optimizer)
    for _ in run.steps(log_every=1, save_every=1):
        run.step += 1
        run.note(loss=1.0)
    assert run.step == 9
    assert not (tmp_path / "run.pt").exists()


def numbers(rng: np.random.Generator) -> list[float]:
    return list(rng.random(3))


def test_batches_made_here_follow_their_seed() -> None:
    one, same, other = (endless(numbers, seed) for seed in ((3, 1), (3, 1), (3, 2)))
    first = [next(one), next(one)]
    assert first == [next(same), next(same)]
    assert first[0] != first[1]
    assert next(other) not in first
    rng = np.random.default_rng((3, 1))
    assert first == [numbers(rng), numbers(rng)]


def test_batches_made_by_workers_are_as_they_were_made_and_all_different() -> None:
    """In a process of its own: workers are forked, and openvino's threads, left here by other tests, end a
    process that forks."""
    program = """
import numpy as np
from faceavatar_export.toon.training import endless

def numbers(random):
    return random.integers(0, 1 << 30, 4)

batches = endless(numbers, (3, 1), workers=2)
seen = [tuple(next(batches)) for _ in range(6)]
assert len(set(seen)) == 6
assert tuple(numbers(np.random.default_rng((3, 1, 0)))) == seen[0]
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_only_a_gpu_has_batches_made_beside_it() -> None:
    assert data_workers(torch.device("cpu")) == 0
    assert 1 <= data_workers(torch.device("cuda")) <= 8
