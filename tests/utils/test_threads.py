"""Threads leave the cores to other processes that use them."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from detr_ft.utils import threads
from detr_ft.utils.threads import ProcessorLoad, use_free_cores


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Four cores, of which others use `by_others`, and the `number` of threads."""
    machine = SimpleNamespace(by_others=0.0, number=4, measured=0)

    def by_others(_: object) -> float:
        machine.measured += 1
        return float(machine.by_others)

    monkeypatch.setattr(threads, "_MEASURED_SECONDS", 0.0)
    monkeypatch.setattr(threads, "num_cores", lambda: 4)
    monkeypatch.setattr(ProcessorLoad, "by_others", by_others)
    monkeypatch.setattr(threads.torch, "get_num_threads", lambda: machine.number)
    monkeypatch.setattr(threads.torch, "set_num_threads", lambda number: setattr(machine, "number", number))
    for name in threads._VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return machine


@pytest.mark.parametrize(("by_others", "expected"), [(0.0, 4), (0.3, 4), (0.7, 3), (2.0, 2), (3.9, 1), (4.0, 1)])
def test_threads_are_those_of_free_cores(machine: SimpleNamespace, by_others: float, expected: int) -> None:
    machine.by_others = by_others
    use_free_cores()
    assert machine.number == expected


def test_threads_never_become_more(machine: SimpleNamespace) -> None:
    machine.number = 2
    use_free_cores()
    assert machine.number == 2


@pytest.mark.parametrize("name", threads._VARIABLES)
def test_a_number_of_the_user_has_priority(
    machine: SimpleNamespace, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "3")
    machine.by_others = 4.0
    use_free_cores()
    assert machine.number == 4


def test_a_single_thread_needs_no_measurement(machine: SimpleNamespace) -> None:
    machine.number = 1
    use_free_cores()
    assert machine.measured == 0


def test_the_load_is_that_of_other_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """In two seconds on four cores all processes used seven seconds of processor time, this one three."""
    clock, busy, own = [10.0], [100.0], [5.0]
    monkeypatch.setattr(threads.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(threads, "_busy_seconds", lambda: busy[0])
    monkeypatch.setattr(threads, "_own_seconds", lambda: own[0])
    monkeypatch.setattr(threads.psutil, "cpu_count", lambda: 4)
    load = ProcessorLoad()
    clock[0], busy[0], own[0] = 12.0, 107.0, 8.0
    assert load.by_others() == pytest.approx(2.0)


def test_own_work_is_no_load_by_others() -> None:
    busy, own, end = threads._busy_seconds(), threads._own_seconds(), time.monotonic() + 0.3
    while time.monotonic() < end:
        sum(range(1000))
    assert 0.05 < threads._own_seconds() - own <= threads._busy_seconds() - busy + 0.1
