"""Backgrounds that are removed and replaced by an engine, batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tiny_pack
from asking import ask
from numpy.typing import NDArray

from faceavatar import AvatarEngine
from faceavatar.matting import Answer, Matter


def test_a_removed_background_is_transparent_and_the_colours_stay(engine: AvatarEngine) -> None:
    plain, cut = engine.generate(ask()).images[0], engine.generate(ask(remove_background=True)).images[0]
    assert cut.shape == (512, 512, 4)
    figure = cut[..., 3] == 255
    np.testing.assert_array_equal(cut[figure][:, :3], plain[figure])
    assert cut[0, 0, 3] == 0
    assert cut[256, 256, 3] == 255


@pytest.mark.parametrize(("given", "color"), [("#12AB7F", (0x12, 0xAB, 0x7F)), ("#f00", (255, 0, 0))])
def test_bg_color_is_exact_where_alpha_is_0(
    engine: AvatarEngine, given: str, color: tuple[int, int, int]
) -> None:
    cut = engine.generate(ask(remove_background=True)).images[0]
    image = engine.generate(ask(bg_color=given)).images[0]
    assert image.shape == (512, 512, 3)
    assert (image[cut[..., 3] == 0] == color).all()
    np.testing.assert_array_equal(image[cut[..., 3] == 255], cut[cut[..., 3] == 255][:, :3])


def test_a_colour_wins_over_transparency_and_says_so(engine: AvatarEngine) -> None:
    result = engine.generate(ask(bg_color="#00ff00", remove_background=True))
    assert result.images[0].shape == (512, 512, 3)
    assert result.warnings == ("bg_color #00ff00 was used, so the background is not transparent",)


def test_a_pack_without_matting_cuts_out_with_the_net_that_ships(tmp_path: Path) -> None:
    folder = tiny_pack.build(tmp_path / "plain")
    tiny_pack.change_manifest(folder, lambda m: (m["graphs"].pop("matting"), m.pop("matting")))
    plain = AvatarEngine.load(folder, provider="cpu")
    assert plain.generate(ask(remove_background=True)).images[0].shape == (512, 512, 4)
    assert plain.generate(ask(bg_color="#fff")).images[0].shape == (512, 512, 3)


def test_all_pictures_of_a_batch_go_through_the_matting_net_at_once(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fed: list[int] = []
    whole = Matter.answers

    def counting(matter: Matter, images: Sequence[NDArray[np.uint8]]) -> list[Answer]:
        fed.append(len(images))
        return whole(matter, images)

    monkeypatch.setattr(Matter, "answers", counting)
    result = AvatarEngine.load(tiny, provider="cpu").generate(ask(batch=3, bg_color="#0a0"))
    assert fed == [3]
    assert len(result.images) == 3
