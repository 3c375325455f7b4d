"""Rows in threads: order, errors, and rows that hang."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import detr_ft
from detr_ft.criterion import detr_criterion
from detr_ft.data.generated.generate import generate
from detr_ft.errors import InputError
from detr_ft.models.load import load_model
from detr_ft.models.predict import detect_split, predict_split_raw
from detr_ft.utils import parallel
from detr_ft.utils.daemon_threads import DaemonThreads, TimeLimitError, result_within
from detr_ft.utils.parallel import LimitedReads, map_rows

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


def test_a_read_that_hangs_is_an_error_and_the_next_one_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "MAX_ROW_SECONDS", 0.3)
    released = threading.Event()
    with LimitedReads() as read:
        assert read(lambda: 7, "first.png") == 7
        with pytest.raises(InputError, match=r"^second\.png: could not be read within 0\.3 s"):
            read(lambda: released.wait(30), "second.png")
        assert read(lambda: 8, "third.png") == 8
        with pytest.raises(ValueError, match="fourth"):
            read(lambda: int("fourth"), "fourth.png")
    released.set()


@pytest.mark.parametrize("verb", ["detect_split", "predict_split_raw", "predict"])
def test_images_that_a_model_reads_have_a_time_limit(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = load_model("embedded:small")
    rows = ROWS.select([0])
    file = tmp_path / "slow.png"
    file.write_bytes(rows[0]["image"]["bytes"])
    released = threading.Event()

    def hang(*_: object) -> None:
        released.wait(30)

    monkeypatch.setattr(parallel, "MAX_ROW_SECONDS", 0.3)
    for module in ("models.predict", "data.pipeline.sample", "workflows.predict"):
        monkeypatch.setattr(f"detr_ft.{module}.open_image", hang)
    calls: dict[str, Callable[[], object]] = {
        "detect_split": lambda: detect_split(model, processor, rows),
        "predict_split_raw": lambda: list(predict_split_raw(model, processor, detr_criterion(), rows)),
    }
    if verb in calls:
        with pytest.raises(InputError, match=r"could not be read within 0\.3 s"):
            calls[verb]()
    else:
        (failure,) = detr_ft.predict("embedded:small", [file]).failures
        assert "could not be read within 0.3 s" in failure.reason
    released.set()
