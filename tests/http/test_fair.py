"""Callers take turns, and the place that is told is the place that is served."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from faceavatar_cli.http.fair import FairQueue

arrivals = st.lists(st.sampled_from("abcd"), max_size=30)


def queue_of(callers: str | list[str]) -> FairQueue[str]:
    """Each caller's items are numbered: a0, a1, b0 ..."""
    queue: FairQueue[str] = FairQueue()
    counts: dict[str, int] = {}
    for caller in callers:
        counts[caller] = counts.get(caller, -1) + 1
        queue.put(caller, f"{caller}{counts[caller]}")
    return queue


def drained(queue: FairQueue[str]) -> list[str]:
    found = []
    while (item := queue.take()) is not None:
        found.append(item)
    return found


def test_callers_take_turns_however_many_each_has() -> None:
    assert drained(queue_of("aaaabcb")) == ["a0", "b0", "c0", "a1", "b1", "a2", "a3"]


def test_whoever_was_served_goes_behind_the_others_even_with_what_fits() -> None:
    queue = queue_of("aabb")
    assert queue.take(lambda item: item.startswith("b")) == "b0"
    assert drained(queue) == ["a0", "b1", "a1"]


def test_what_fits_is_found_behind_what_does_not() -> None:
    queue = queue_of("aaa")
    assert queue.take(lambda item: item == "a2") == "a2"
    assert queue.take(lambda item: item == "z") is None
    assert len(queue) == 2


def test_what_is_put_in_late_takes_its_place_in_the_line() -> None:
    queue: FairQueue[int] = FairQueue()
    for number in (3, 1, 2):
        queue.put("a", number, float)
    assert list(queue) == [1, 2, 3]


@given(arrivals)
def test_the_place_told_is_the_place_served(callers: list[str]) -> None:
    queue = queue_of(callers)
    told = {item: queue.position(item[0], item) for item in queue}
    assert told == {item: place for place, item in enumerate(drained(queue))}


@given(arrivals, st.data())
def test_one_that_is_taken_out_leaves_the_rest_in_order(callers: list[str], data: st.DataObject) -> None:
    queue = queue_of(callers)
    if len(queue) == 0:
        return
    gone = data.draw(st.sampled_from(sorted(queue)))
    assert queue.remove(gone[0], gone)
    assert not queue.remove(gone[0], gone)
    assert queue.position(gone[0], gone) is None
    served = drained(queue)
    assert gone not in served
    assert len(served) == len(callers) - 1
    for caller in set(callers):
        mine = [int(item[1:]) for item in served if item[0] == caller]
        assert mine == sorted(mine)
