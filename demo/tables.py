"""Tables as the whole page has them."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape


def head(titles: Sequence[str]) -> str:
    """The row of titles."""
    return "<tr>" + "".join(f'<th scope="col">{escape(title)}</th>' for title in titles) + "</tr>"


def table(caption: str, titles: str, rows: Sequence[str], kind: str = "") -> str:
    """A table with a caption; `heat` colours cells by their `--heat`."""
    return (
        f'<figure class="told"><figcaption>{escape(caption)}</figcaption><div class="wide">'
        f'<table class="{kind}" aria-label="{escape(caption)}"><thead>{titles}</thead><tbody>{"".join(rows)}</tbody></table></div></figure>'
    )
