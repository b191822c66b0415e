"""make_pack: every stage in order, finished ones skipped, and plots of what a run logged."""

from __future__ import annotations

import argparse
import csv
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

from faceavatar_export.toon import make_pack
from faceavatar_export.toon.make_pack import EMBEDDED, GIVEN, Plan, commands
from faceavatar_export.toon.plot_training import plot, read_curves
from faceavatar_export.toon.settings import CONFIG


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    photo = tmp_path / "photo.jpg"
    photo.touch()
    return Plan(tmp_path / "work", tmp_path / "pack", CONFIG, "cpu", 2, None, EMBEDDED, (photo,))


class UnderstoodError(Exception):
    """Raised in place of a stage's work."""


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_stage_understands_its_command(
    plan: Plan, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parse = argparse.ArgumentParser.parse_args

    def parse_alone(parser: argparse.ArgumentParser) -> None:
        parse(parser)
        raise UnderstoodError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_alone)
    for command in commands(replace(plan, device=device)).values():
        at = next(i for i, part in enumerate(command) if part.startswith("faceavatar_export."))
        monkeypatch.setattr(sys, "argv", command[at:])
        with pytest.raises(UnderstoodError):  # argparse would exit with a usage message
            import_module(command[at]).main()


def test_stages_that_share_gradients_run_in_all_processes_and_the_others_alone(plan: Plan) -> None:
    two, one = commands(plan), commands(replace(plan, processes=1))
    shared = {name for name, command in two.items() if "torch.distributed.run" in command}
    assert shared == {"autoencoder", "unet", "refine", "distill", "matting"}
    assert two["unet"][3:6] == ["--standalone", "--nproc-per-node", "2"]
    assert not any("torch.distributed.run" in command for command in one.values())


def test_a_run_from_nothing_needs_no_warm_start_and_without_photos_gives_no_scores(plan: Plan) -> None:
    cold = commands(replace(plan, warm=None, gender_net=Path("net.onnx"), photos=()))
    assert set(commands(plan)) - set(cold) == {"warm_start", "score"}
    assert not any("--warm" in command for command in cold.values())
    assert cold["face_encoder"][-2:] == ["--gender-net", "net.onnx"]


def test_the_numbers_of_the_file_reach_stages_that_do_not_read_it(plan: Plan, tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(CONFIG.read_text("utf-8").replace("count = 42000", "count = 4321"))
    drawn = commands(replace(plan, config=own))["draw_unet"]
    assert drawn[drawn.index("--count") + 1] == "4321"


@pytest.fixture
def ran(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """make_pack with commands that only note their stage; "text" fails while WORK/fail is there."""
    notes, fail = plan.work / "notes", plan.work / "fail"
    plan.work.mkdir()

    def noting(plan: Plan) -> dict[str, list[str]]:
        names = ("autoencoder", "text", "unet", "plot")
        code = "import sys, pathlib as p; p.Path(sys.argv[1]).open('a').write(sys.argv[2] + ' '); "
        code += "sys.exit(sys.argv[2] == 'text' and p.Path(sys.argv[3]).exists())"
        return {name: [sys.executable, "-S", "-c", code, str(notes), name, str(fail)] for name in names}

    monkeypatch.setattr(make_pack, "commands", noting)
    return []


def stages_run(plan: Plan) -> list[str]:
    notes = plan.work / "notes"
    names = notes.read_text().split() if notes.exists() else []
    notes.unlink(missing_ok=True)
    return names


@pytest.mark.usefixtures("ran")
def test_a_failed_run_goes_on_where_it_failed(plan: Plan) -> None:
    (plan.work / "fail").touch()
    with pytest.raises(SystemExit, match="text ended with 1; the same command goes on from there"):
        make_pack.make_pack(plan)
    assert stages_run(plan) == ["autoencoder", "text"]
    (plan.work / "fail").unlink()
    make_pack.make_pack(plan)
    assert stages_run(plan) == ["text", "unet", "plot"]
    make_pack.make_pack(plan)
    assert stages_run(plan) == ["plot"]


@pytest.mark.usefixtures("ran")
def test_a_stage_with_other_numbers_is_not_finished(plan: Plan, tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(CONFIG.read_text("utf-8"))
    plan = replace(plan, config=own)
    make_pack.make_pack(plan)
    stages_run(plan)
    own.write_text(own.read_text("utf-8").replace("[unet]\nminutes = 80", "[unet]\nminutes = 90"))
    make_pack.make_pack(plan)
    assert stages_run(plan) == ["unet", "plot"]


@pytest.mark.usefixtures("ran")
def test_from_and_only_run_finished_stages_again(plan: Plan) -> None:
    make_pack.make_pack(plan)
    stages_run(plan)
    make_pack.make_pack(plan, first="text")
    assert stages_run(plan) == ["text", "unet", "plot"]
    make_pack.make_pack(plan, only="text")
    assert stages_run(plan) == ["text"]
    with pytest.raises(ValueError, match="no stage 'paint'"):
        make_pack.make_pack(plan, only="paint")


@pytest.mark.usefixtures("ran")
def test_a_dry_run_prints_the_commands_and_touches_nothing(
    plan: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    make_pack.make_pack(plan, dry=True)
    assert stages_run(plan) == []
    assert not plan.pack.exists()
    assert f"[2/4] text: {sys.executable}" in capsys.readouterr().out


def test_what_only_a_person_can_bring_is_asked_for_before_anything_runs(plan: Plan) -> None:
    with pytest.raises(ValueError, match="--gender-net, or a finished pack as --warm"):
        make_pack.make_pack(replace(plan, warm=None))
    with pytest.raises(FileNotFoundError, match=r"nobody\.jpg"):
        make_pack.make_pack(replace(plan, photos=(Path("nobody.jpg"),)))


def test_a_new_pack_is_given_the_files_that_no_stage_makes(plan: Plan) -> None:
    make_pack.prepare(plan, ["unet"])
    for name in GIVEN:
        assert (plan.pack / name).read_bytes() == (EMBEDDED / name).read_bytes()


def write_log(file: Path, rows: list[tuple[object, ...]]) -> None:
    with file.open("w", newline="") as out:
        csv.writer(out).writerows(rows)


def test_a_curve_forgets_the_steps_that_a_restart_took_again(tmp_path: Path) -> None:
    rows = [("step", "minutes", "loss", "held_out"), (50, 1, 4, ""), (100, 2, 3, 9), (150, 3, 2, "")]
    write_log(tmp_path / "unet.csv", [*rows, (100, 2.1, 2.5, 8), (150, 3.1, 1, "")])
    assert read_curves(tmp_path / "unet.csv") == {
        "loss": ([50, 100, 150], [4, 2.5, 1]),
        "held_out": ([100], [8]),
    }


def test_a_sheet_has_a_panel_for_each_stage_that_logged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no \.csv log with a row"):
        plot(tmp_path, tmp_path)
    for name in ("unet", "text", "refined", "matting"):
        write_log(tmp_path / f"{name}.csv", [("step", "loss"), (50, 4), (100, 3)])
    write_log(tmp_path / "new.csv", [("step", "loss")])
    file = plot(tmp_path, tmp_path / "plots")
    assert file.name == "training.png"
    assert file.read_bytes().startswith(b"\x89PNG")
