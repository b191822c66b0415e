"""The small memory behind texts and faces seen before."""

from __future__ import annotations

import pytest

from faceavatar.cache import Cache


def test_a_value_is_made_once_and_then_remembered() -> None:
    cache: Cache[object] = Cache(2)
    first = cache.get("a", object)
    assert cache.get("a", object) is first


def test_the_value_not_used_for_longest_is_forgotten() -> None:
    cache: Cache[object] = Cache(2)
    a, b = cache.get("a", object), cache.get("b", object)
    cache.get("a", object)
    cache.get("c", object)
    assert cache.get("a", object) is a
    assert cache.get("b", object) is not b


def test_a_failure_is_not_remembered() -> None:
    cache: Cache[int] = Cache(2)
    with pytest.raises(ZeroDivisionError):
        cache.get("a", lambda: 1 // 0)
    assert cache.get("a", lambda: 1) == 1
