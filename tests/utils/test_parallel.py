"""Rows in threads: order, errors, and rows that hang."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from detr_ft.data.generated.generate import generate
from detr_ft.errors import InputError
from detr_ft.utils import parallel
from detr_ft.utils.daemon_threads import DaemonThreads, TimeLimitError, result_within
from detr_ft.utils.parallel import map_rows

ROWS = generate("workshop?train=40&validation=0&edge=64")["train"]


def test_results_are_in_the_order_of_the_rows() -> None:
    def slow_at_first(row: dict[str, Any]) -> int:
        time.sleep(0.02 if row["image_id"] < 2 else 0)
        return int(row["image_id"])

    assert list(map_rows(slow_at_first, ROWS, "rows")) == ROWS["image_id"][:]


@pytest.mark.parametrize("error", [ValueError("row"), SystemExit(3)])
def test_an_exception_is_raised_at_its_row(error: BaseException) -> None:
    def fail(row: dict[str, Any]) -> int:
        if row["image_id"] == ROWS[5]["image_id"]:
            raise error
        return 1

    results = map_rows(fail, ROWS, "rows")
    assert [next(results) for _ in range(5)] == [1] * 5
    with pytest.raises(type(error)):
        next(results)


def test_a_row_that_hangs_is_an_error_and_does_not_delay_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "MAX_ROW_SECONDS", 0.3)
    released = threading.Event()
    with pytest.raises(InputError, match=r"^the image of row 0: could not be read within 0\.3 s"):
        list(map_rows(lambda row: released.wait(30), ROWS, "rows"))
    hanging = [thread for thread in threading.enumerate() if thread.name == "detr_ft calls"]
    assert hanging
    assert all(thread.daemon for thread in hanging)
    released.set()


def test_a_call_has_its_result_within_the_limit() -> None:
    threads = DaemonThreads(1)
    assert result_within(threads.submit(lambda: 7), 5) == 7
    with pytest.raises(TimeoutError):  # of the call itself, which is no TimeLimitError
        result_within(threads.submit(_time_out), 5)
    released = threading.Event()
    waiting = threads.submit(lambda: released.wait(30))
    with pytest.raises(TimeLimitError):
        result_within(waiting, 0.1)
    assert any(frame.f_code.co_name == "wait" for frame in threads.frames())
    released.set()
    assert result_within(waiting, 5)
    threads.close(5)
    assert threads.frames() == []


def _time_out() -> int:
    raise TimeoutError
