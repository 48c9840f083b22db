"""`hagane help`: the how-to pages of docs/. What is imported here is imported for `--help`."""

from pathlib import Path
from typing import Annotated

import typer


def show_help(
    topic: Annotated[
        str, typer.Argument(metavar="[TOPIC]", help="A page; without it, all are listed.")
    ] = "",
) -> None:
    """Show a how-to page, or list them: private registry, gated models, proxy, PVC and others."""
    import difflib

    from components.shared.errors import SpecError
    from components.shared.own_files import own_file
    from components.shared.printable import shown

    pages = {page.stem: page for page in sorted(own_file("docs/how-to").glob("*.md"))}
    if not topic:
        width = max(map(len, pages), default=0)
        for name, page in pages.items():
            print(f"{name:{width}}  {_title(page)}")
        print("\nhagane help TOPIC prints one; hagane COMMAND --help explains a command")
        return
    if topic not in pages:
        near = difflib.get_close_matches(topic, pages, n=1, cutoff=0.4)
        if near:
            meant = f"did you mean {near[0]!r}? "
        else:
            meant = ""
        raise SpecError(f"help: got {shown(topic)}; {meant}allowed: {', '.join(pages)}")
    print(pages[topic].read_text(encoding="utf-8"), end="")


def _title(page: Path) -> str:
    with page.open(encoding="utf-8") as stream:
        return stream.readline().removeprefix("# ").strip()
