"""Hooks of mkdocs.yml: links to files of the repository that are no pages become their paths; the
word `run` of code blocks, which tests go by, is left out; pages in Japanese say that they are."""

import re
from pathlib import Path
from typing import Any

LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#\s]+)(#[^)]*)?\)")
RUN = re.compile(r"^( *```\w+) run$", re.MULTILINE)
DOCS = Path(__file__).parent
IN_JAPANESE = {
    '<html lang="en"': '<html lang="ja"',  # or a browser may take Chinese forms of the letters
    "Table of contents": "目次",
    "Copy to clipboard": "コピー",
    'aria-label="Search"': 'aria-label="検索"',
    'placeholder="Search"': 'placeholder="検索"',
}


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    folder = (DOCS / page.file.src_uri).parent

    def replaced(link: re.Match[str]) -> str:
        text, target = link[1], link[2]
        if "://" in target or (folder / target).resolve().is_relative_to(DOCS):
            return link[0]
        path = (folder / target).resolve().relative_to(DOCS.parent)
        return f"{text} (`{path}` in the repository)"

    return LINK.sub(replaced, RUN.sub(r"\1", markdown))


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """The theme has one language for all pages of a site."""
    if not page.file.src_uri.startswith("ja/"):
        return output
    for english, japanese in IN_JAPANESE.items():
        output = output.replace(english, japanese)
    return output
