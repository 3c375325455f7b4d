"""Parsing XML that a user names: entities are refused before they can grow without bound or name other files."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

# What reading raises on a file that can't be opened, isn't well formed, or is in an unknown encoding.
XML_ERRORS = (ElementTree.ParseError, ValueError, LookupError, OSError)


def parse_xml(path: Path) -> ElementTree.Element:
    """The root of an XML file; raises one of XML_ERRORS where it isn't well formed or declares a document type."""
    return ElementTree.fromstring(path.read_bytes(), ElementTree.XMLParser(target=_WithoutDoctype()))


class _WithoutDoctype(ElementTree.TreeBuilder):
    """Refuses a document type declaration, where entities are declared."""

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        """Called by the parser before any entity is declared."""
        raise ValueError("a DOCTYPE is not allowed here")
