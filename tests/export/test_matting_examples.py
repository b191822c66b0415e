"""Which pixels the matting net learns from more than once."""

from __future__ import annotations

import torch
from torch import Tensor

from faceavatar_export.toon.matting_examples import ALONE, TIMES, alone, repeated

COAT, SHIRT = torch.tensor([0.1, 0.5, 0.2]), torch.tensor([0.9, 0.9, 0.9])


def shape(edge: float, color: Tensor, side: int = 32) -> Tensor:
    """A figure (1, 4, side, side), its colours times alpha, of one colour, that begins at a column."""
    alpha = (torch.arange(side) - edge + 0.5).clamp(0, 1).expand(1, 1, side, side)
    return torch.cat([color[:, None, None] * alpha, alpha], dim=1)


def over(top: Tensor, below: Tensor) -> Tensor:
    return top + below * (1 - top[:, 3:])


def test_the_rim_of_a_shape_has_its_colour() -> None:
    assert not alone(shape(9.9, COAT)).any()


def test_where_two_shapes_end_together_the_lower_one_shines_through() -> None:
    both = over(shape(10.2, COAT), shape(10.2, SHIRT))
    found = alone(both)[0, 0]
    assert found[:, 10].all()
    assert int(found.sum()) == 32
    # One that ends well within the other does not.
    assert not alone(over(shape(10.2, COAT), shape(15.2, SHIRT))).any()


def test_a_line_thinner_than_a_pixel_has_a_colour_of_its_own() -> None:
    line = shape(9.9, COAT * 0)
    line[..., 11:] = shape(9.9, SHIRT)[..., 11:]
    assert alone(line)[0, 0, :, 10].all()


def test_a_strand_far_from_the_figure_is_a_rim_as_others_are() -> None:
    figure = shape(20.0, SHIRT)
    figure[..., 5] = torch.cat([COAT * 0.5, torch.tensor([0.5])])[:, None]
    assert not alone(figure).any()
    figure[..., 18] = figure[..., 5]
    assert alone(figure)[0, 0, :, 18].all()
    assert float((COAT - SHIRT).abs().max()) > ALONE


def test_odd_rows_are_there_several_times_and_others_once() -> None:
    rows, odd = torch.arange(5), torch.tensor([False, True, False, False, True])
    first, second = repeated((rows, rows[:, None] * 2.0), odd)
    assert torch.bincount(first).tolist() == [1, TIMES, 1, 1, TIMES]
    assert torch.equal(second[:, 0], first * 2.0)
