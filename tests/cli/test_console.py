"""The advice of libraries to run the code in a file never reaches the user."""

from __future__ import annotations

import io
import logging
import pickle
from pathlib import Path

import pytest
import torch

from detr_ft.cli.console import exit_with_status, without_unsafe_advice
from detr_ft.errors import InputError

ADVICE = ("weights_only", "trust_remote_code", "safe_globals", "allow_pickle", "trusted source")
REMOTE_CODE = (
    "The repository x contains custom code which must be executed.\n"
    "Please pass the argument `trust_remote_code=True` to allow custom code to be run."
)
NUMPY = "Object arrays cannot be loaded when allow_pickle=False"


class Evil:
    def __reduce__(self) -> object:
        return Path.cwd, ()


def torch_message(content: bytes | None = None) -> str:
    """The message of torch for a pickled object, or for other bytes."""
    if content is None:
        buffer = io.BytesIO()
        torch.save(Evil(), buffer)
        content = buffer.getvalue()
    with pytest.raises(pickle.UnpicklingError) as caught:
        torch.load(io.BytesIO(content), weights_only=True)
    return str(caught.value)


MESSAGES = {
    "torch": torch_message(),
    "torch, damaged": torch_message(b"no pickle"),
    "transformers": REMOTE_CODE,
    "numpy": NUMPY,
}


@pytest.mark.parametrize("name", MESSAGES)
@pytest.mark.parametrize("kind", [RuntimeError, InputError, logging.WARNING, logging.ERROR])
@pytest.mark.parametrize("debug", ["0", "1"])
def test_advice_to_run_code_is_not_shown(
    name: str, kind: object, debug: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DETR_FT_DEBUG", debug)
    text = f"model: {MESSAGES[name]}"
    assert any(word in text for word in ADVICE)

    @exit_with_status
    def command() -> None:
        if isinstance(kind, type):
            raise kind(text)
        logging.getLogger("detr_ft.some").log(int(str(kind)), "%s", text)

    if isinstance(kind, type):
        with pytest.raises(SystemExit) as stopped:
            command()
        assert stopped.value.code == (2 if kind is InputError else 1)
    else:
        command()
    shown = capsys.readouterr().err
    assert shown.strip()
    assert not any(word in shown for word in ADVICE), shown


def test_other_sentences_stay() -> None:
    text = "model.safetensors: is damaged. Restore it.\n  Or train again: detr-ft train"
    assert without_unsafe_advice(text) == text
    assert without_unsafe_advice(REMOTE_CODE) == REMOTE_CODE.partition("\n")[0]
    assert without_unsafe_advice(f"a.npy: {NUMPY}. Replace the file.") == "Replace the file."
    assert without_unsafe_advice(NUMPY) == "the file has objects that are not loaded"
    assert without_unsafe_advice(MESSAGES["torch"]).startswith("Weights only load failed.")
