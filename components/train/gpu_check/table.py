"""Findings as a table of plain text, for an image that has no library for that."""

import textwrap
from collections.abc import Sequence

from components.shared.documents.findings import Finding

HEAD = ("check", "state", "what was seen, and how to fix it")
MOST_LETTERS = 140


def table(findings: Sequence[Finding]) -> str:
    """One row each; how to fix it stands below what was seen."""
    if findings:
        first = max(len(each.check) for each in (*findings,))
    else:
        first = 0
    first = max(first, len(HEAD[0]))
    second = max(len(each) for each in ("warning", HEAD[1]))
    lines = [f"{HEAD[0]:{first}}  {HEAD[1]:{second}}  {HEAD[2]}"]
    room = MOST_LETTERS - first - second - 4
    for each in findings:
        cell = textwrap.wrap(each.found, room) or [""]
        if each.fix:
            cell += textwrap.wrap(f"fix: {each.fix}", room)
        lines.append(f"{each.check:{first}}  {each.state:{second}}  {cell[0]}")
        lines += [" " * (first + second + 4) + line for line in cell[1:]]
    return "\n".join(lines)
