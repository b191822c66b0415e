"""What training stages share: restarts, the learning-rate curve, averages, logs."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from faceavatar_export.toon.training import (
    Average,
    RunLog,
    agreed,
    channels_last,
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
