"""What a docstring says of each parameter: in the styles of Google, NumPy and Sphinx."""

from __future__ import annotations

import inspect
import re
from typing import Dict, List, Optional

from perfect_client.wire.messages import clean_text

MAX_DESCRIPTION = 1000  # characters

_SPHINX = re.compile(r"^\s*:(?:param|parameter|arg|argument|key|keyword)\s+(?:[^:]*\s)?\*{0,2}(\w+)\s*:\s*(.*)$")
_GOOGLE = re.compile(r"^\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)$")
_GOOGLE_HEADS = ("Args:", "Arguments:", "Parameters:", "Keyword Args:", "Keyword Arguments:", "Other Parameters:")
_NUMPY_HEADS = ("Parameters", "Other Parameters", "Keyword Arguments")
_NUMPY = re.compile(r"^(\*{0,2}\w+(?:\s*,\s*\*{0,2}\w+)*)\s*(?::.*)?$")
_UNDERLINE = re.compile(r"^-{3,}$")


def parameter_descriptions(docstring: str) -> Dict[str, str]:
    """Descriptions by parameter, each on one line."""
    lines = inspect.cleandoc(docstring).splitlines()
    told = {**_google_and_sphinx(lines), **_numpy(lines)}
    return {name: text for name, text in ((n, _joined(parts)) for n, parts in told.items()) if text}


def _joined(lines: List[str]) -> str:
    return clean_text(" ".join(" ".join(lines).split())[:MAX_DESCRIPTION])


def _google_and_sphinx(lines: List[str]) -> Dict[str, List[str]]:
    told: Dict[str, List[str]] = {}
    current: Optional[List[str]] = None
    section_indent, entry_indent = -1, -1
    for line in lines:
        text, indent = line.strip(), len(line) - len(line.lstrip())
        sphinx = _SPHINX.match(line)
        if sphinx:
            current, entry_indent, section_indent = told.setdefault(sphinx.group(1), []), indent, -1
            current.append(sphinx.group(2))
        elif text in _GOOGLE_HEADS:
            section_indent, entry_indent, current = indent, -1, None
        elif section_indent >= 0 and text and indent > section_indent and entry_indent in (-1, indent):
            google = _GOOGLE.match(text)
            entry_indent, current = indent, told.setdefault(google.group(1), []) if google else None
            if google and current is not None:
                current.append(google.group(2))
        elif current is not None and text and indent > entry_indent:
            current.append(text)
        elif text:
            section_indent, current = -1, None
    return told


def _numpy(lines: List[str]) -> Dict[str, List[str]]:
    """``Parameters`` underlined, then ``name : type`` with the description indented below it."""
    told: Dict[str, List[str]] = {}
    current: List[List[str]] = []
    inside = False
    for number, line in enumerate(lines):
        text, following = line.strip(), lines[number + 1].strip() if number + 1 < len(lines) else ""
        if text and _UNDERLINE.match(following):
            inside, current = text in _NUMPY_HEADS, []
        elif not inside or not text or _UNDERLINE.match(text):
            continue
        elif line[0].isspace():
            for entry in current:
                entry.append(text)
        else:
            named = _NUMPY.match(text)
            names = re.split(r"\s*,\s*", named.group(1)) if named else []
            current = [told.setdefault(name.lstrip("*"), []) for name in names]
    return told
