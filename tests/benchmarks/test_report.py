"""The page of figures is filled from files, part by part, and no target is left out of it."""

from __future__ import annotations

import re

import pytest
from report import PAGE, fill, peers
from summary import medians
from targets import Target, peer_targets, rows

STEP = {"steps": [3.0, 1.0, 2.0]}


def test_a_part_is_replaced_and_the_rest_stays() -> None:
    page = "a\n<!-- toon -->\nold\n<!-- /toon -->\nb <!-- sd --><!-- /sd -->"
    new = fill(page, "toon", iter(["new \\1", "lines"]))
    assert new == "a\n<!-- toon -->\nnew \\1\nlines\n<!-- /toon -->\nb <!-- sd --><!-- /sd -->"
    with pytest.raises(ValueError, match="0 parts called growth"):
        fill(page, "growth", iter([]))


def test_the_page_has_every_part_once() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for part in ("targets", "peers", "sd", "toon", "growth"):
        assert page.count(f"<!-- {part} -->") == page.count(f"<!-- /{part} -->") == 1


def test_medians_are_over_rounds_and_what_failed_is_told_in_its_own_words() -> None:
    lines = [
        {"engine": "diffusers fp32", "measure": "step", "round": 0, "numbers": {"steps": [9.0, 11.0, 10.0]}},
        {"engine": "diffusers fp32", "measure": "step", "round": 1, "numbers": {"steps": [12.0]}},
        {"engine": "faceavatar openvino bf16", "measure": "step", "round": 0, "numbers": {"steps": [4.0]}},
        {"engine": "optimum-onnx fp32", "measure": "step", "round": 0, "error": "ImportError: no optimum"},
    ]
    found = medians(lines)
    assert found["diffusers fp32"]["step"] == 11.0
    assert found["diffusers fp32"]["runs"] == {"step": 2}
    assert found["optimum-onnx fp32"]["errors"] == ["step: ImportError: no optimum"]
    told = {one.words: one for one in peer_targets(found)}
    assert told["step: openvino bf16 over diffusers fp32"].got == pytest.approx(11 / 4)
    assert told["step: openvino bf16 over diffusers fp32"].met
    assert not told["picture: openvino bf16 over diffusers fp32"].met  # what was not measured is not met
    report = {"machine": MACHINE, "medians": found, "psnr": {}}
    page = "\n".join(peers(report))
    assert "optimum-onnx fp32 could not run: step: ImportError: no optimum" in page
    assert re.search(r"\| diffusers fp32 \| 11\.00 \(2\)( \| -){8} \| - \|", page)


def test_a_target_says_whether_it_was_met() -> None:
    low = Target("load", 3.0, 2.5, at_least=False)
    assert list(rows(iter([low, Target("step", 2.3, 2.2), Target("step", 2.3, None)]))) == [
        "| load | ≤ 3.00 | 2.50 | met |",
        "| step | ≥ 2.30 | 2.20 | missed |",
        "| step | ≥ 2.30 | not measured | missed |",
    ]


MACHINE = {
    "processor": "a processor",
    "cores": 2,
    "memory_gb": 24,
    "system": "Linux x86_64",
    "python": "Python 3.11",
    "packages": {"numpy": "2.4"},
}
