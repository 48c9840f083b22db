"""Sizes of the built images beside their bounds: `python -m images.table`; with `--accept` today's
become the bounds.

The bounds are kept in tests/golden/images.json. They are of what hagane puts on the base image,
since a site may have a base of its own; hagane's own code has a fixed one.
"""

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from components.shared.errors import HaganeError
from images.bake import Target, read_bake
from images.build import bake_variables
from images.contents import Contents, contents
from pipelines.local.engine import Engine, find_engine

BOUNDS = Path(__file__).parents[1] / "tests" / "golden" / "images.json"
TOLERANCE = 1.02
"""Byte code and links differ a little between machines."""
PARTS = ("torch", "dependencies", "code")
CODE_KB = 3500
"""Bound of hagane's own code, which grows with each commit: half as much again as the largest
holds, against a stray file of data or weights."""
Sizes = dict[str, int]


def sizes(found: Contents) -> Sizes:
    """kB of each part, number of packages."""
    return {part: round(found.probed["num_bytes"][part] / 1000) for part in PARTS} | {
        "packages": len(found.probed["packages"])
    }


def excess(image: str, found: Sizes, bounds: dict[str, Sizes]) -> list[str]:
    """One line for each number over its bound."""
    if image not in bounds:
        return [f"image {image}: has no bound in {BOUNDS.name}; run `make images-accept`"]
    over = {key: value for key, value in found.items() if value > most(key, bounds[image])}
    return [
        (
            f"image {image}: {key} is {value:,}, must be at most {most(key, bounds[image]):,}; "
            "find out why, or run `make images-accept`"
        )
        for key, value in over.items()
    ]


def most(key: str, bound: Sizes) -> int:
    """What a part, in kB, or the number of packages may come to."""
    if key == "code":
        return CODE_KB
    if key == "packages":
        return bound[key]
    return round(bound[key] * TOLERANCE)


def table(rows: list[tuple[Target, Contents]]) -> Table:
    shown = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("image", "MB", *(f"{part} MB" for part in PARTS), "layers", "packages"):
        shown.add_column(heading, justify="left" if heading == "image" else "right")
    for target, found in rows:
        parts = [f"{found.probed['num_bytes'][part] / 1e6:.1f}" for part in PARTS]
        shown.add_row(
            target.name,
            f"{found.num_bytes / 1e6:.0f}",
            *parts,
            str(found.num_layers),
            str(len(found.probed["packages"])),
        )
    return shown


def built(engine: Engine) -> list[tuple[Target, Contents]]:
    """The images of the bake file that are on this machine."""
    targets = read_bake(bake_variables(), ["all"])
    return [
        (target, contents(engine, target.tags[0]))
        for target in targets
        if engine.has_image(target.tags[0])
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m images.table", description=__doc__)
    parser.add_argument("--accept", action="store_true", help="write today's sizes as bounds")
    accept = parser.parse_args().accept
    try:
        rows = built(find_engine())
    except HaganeError as error:
        sys.exit("\n".join(f"error: {problem}" for problem in error.problems))
    Console(width=120).print(table(rows))
    if BOUNDS.exists():
        bounds = json.loads(BOUNDS.read_text())
    else:
        bounds = {}
    if accept:
        bounds |= {
            target.name: {key: value for key, value in sizes(found).items() if key != "code"}
            for target, found in rows
        }
        BOUNDS.write_text(json.dumps(bounds, indent=1) + "\n")
        return
    problems = [
        problem for target, found in rows for problem in excess(target.name, sizes(found), bounds)
    ]
    if problems:
        sys.exit("\n".join(f"error: {problem}" for problem in problems))


if __name__ == "__main__":
    main()
