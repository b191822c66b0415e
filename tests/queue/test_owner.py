"""A holder of a task is known to be dead where its process ran here and is gone, and nowhere else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from faceavatar_cli.queue.owner import new_owner, surely_dead


def test_each_attempt_has_a_name_of_its_own_and_lives_with_this_process() -> None:
    one, other = new_owner(), new_owner()
    assert one != other
    assert str(os.getpid()) in one.split("/")
    assert not surely_dead(one)


def test_a_process_that_ended_is_dead_and_so_is_a_zombie() -> None:
    with subprocess.Popen([sys.executable, "-c", "import os; os.read(0, 1)"], stdin=subprocess.PIPE) as child:
        place, _, _, rest = new_owner().rsplit("/", 3)
        began = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19]
        owner = "/".join((place, str(child.pid), began, rest))
        assert not surely_dead(owner)
        assert child.stdin is not None
        child.stdin.close()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # ended, and still listed
        assert surely_dead(owner)
    assert surely_dead(owner)


def test_another_process_under_the_same_number_does_not_count() -> None:
    place, pid, began, rest = new_owner().rsplit("/", 3)
    assert surely_dead("/".join((place, pid, str(int(began) - 1), rest)))


def test_a_process_elsewhere_is_not_judged() -> None:
    _, _, began, rest = new_owner().rsplit("/", 3)
    assert not surely_dead("/".join(("another machine", "4194304", began, rest)))
    assert not surely_dead("elsewhere/4194304/?/ab")
