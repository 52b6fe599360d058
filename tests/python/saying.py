"""What errors and warnings of fiberback say: those of its table, and no others."""

from __future__ import annotations

import re


def table():
    from fiberback import _messages

    return {message.code: message for message in _messages.table()}


def says(told, code, *words):
    """What is told, an error, a warning or a text, is the table's message `code`, and has these words."""
    said = str(told)
    assert f"[fiberback:{code}]" in said, said
    message = table()[code]
    for part in (message.text, message.cure):
        assert re.search(pattern(part), said), (part, said)
    for word in words:
        assert word in said, said


def pattern(part):
    """Of a text in whose fields anything may stand."""
    pieces = re.split(r"\{\w+(?:!\w)?(?::[^}]*)?\}", part.replace("{{", "{").replace("}}", "}"))
    return "(?s:.*)".join(map(re.escape, pieces))
