"""CONTRIBUTING: the diffs of common changes show lines that exist, and the tiers of tests print what they leave out."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def hunks(text: str) -> Iterator[tuple[str, list[str]]]:
    """The file and the lines after the change of each hunk in the diffs of a page."""
    for diff in re.findall(r"```diff\n(.*?)```", text, re.DOTALL):
        assert diff.startswith("+++ "), f"a diff begins with the name of its file: {diff}"
        for part in re.split(r"^\+\+\+ ", diff, flags=re.MULTILINE)[1:]:
            file, _, body = part.partition("\n")
            for hunk in re.split(r"^@@\n", body, flags=re.MULTILINE):
                yield file, [line[1:] for line in hunk.splitlines() if not line.startswith("-")]


HUNKS = list(hunks((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")))


@pytest.mark.parametrize(("file", "lines"), HUNKS, ids=[f"{file}-{lines[0].strip()[:30]}" for file, lines in HUNKS])
def test_the_lines_of_a_diff_stand_in_its_file(file: str, lines: list[str]) -> None:
    content = (ROOT / file).read_text(encoding="utf-8")
    assert "\n" + "\n".join(lines) + "\n" in "\n" + content


def test_the_common_changes_have_diffs() -> None:
    assert len({file for file, _ in HUNKS}) == 8
    with pytest.raises(AssertionError, match="name of its file"):
        list(hunks("```diff\n+ x\n```"))


@pytest.mark.skipif(shutil.which("make") is None, reason="make is absent")
@pytest.mark.parametrize(
    ("target", "left_out"), [("check", "tests/models"), ("test", "marked slow"), ("test-all", "as skipped")]
)
def test_a_tier_of_tests_prints_what_it_leaves_out(target: str, left_out: str) -> None:
    command = ["make", "--dry-run", "--no-print-directory", target]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    last = [line for line in done.stdout.splitlines() if line.startswith("echo")][-1]
    assert "left out" in last
    assert left_out in last
