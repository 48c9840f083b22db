"""Figures of the code itself, printed: `python -m benchmarks.house_figures`.

Of components/, pipelines/, laptop/ and images/. Sizes of files and functions in lines, density per
100 lines that are not blank.
"""

import ast
import statistics
import subprocess
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("components", "pipelines", "laptop", "images")
LINE_LENGTH = 100
COMPREHENSIONS = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef


def main() -> None:
    files = {path: path.read_text(encoding="utf-8") for path in python_files()}
    nodes = [node for text in files.values() for node in ast.walk(ast.parse(text))]
    print_sizes(files)
    print_functions([node for node in nodes if isinstance(node, FUNCTIONS)])
    print_density(nodes, sum(map(num_lines, files.values())))


def python_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", *(f"{folder}/*.py" for folder in FOLDERS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / name for name in listed.stdout.splitlines()]


def num_lines(text: str) -> int:
    """Lines that are not blank."""
    return sum(bool(line.strip()) for line in text.splitlines())


def print_sizes(files: dict[Path, str]) -> None:
    sizes = sorted((len(text.splitlines()), path) for path, text in files.items())
    median = statistics.median(size for size, _ in sizes)
    largest, path = sizes[-1]
    print(f"files: {len(files)}, median {median:.0f} lines, largest {largest}", path.name)
    folders = Counter(path.parent for path in files if path.name != "__init__.py")
    folder, most = folders.most_common(1)[0]
    print(f"modules in a folder: at most {most}, in {folder.relative_to(ROOT)}")
    too_long = sum(len(line) > LINE_LENGTH for text in files.values() for line in text.splitlines())
    print(f"lines over {LINE_LENGTH} columns: {too_long}")


def print_functions(functions: list[ast.FunctionDef | ast.AsyncFunctionDef]) -> None:
    sizes = sorted((each.end_lineno or each.lineno) - each.lineno + 1 for each in functions)
    tenth = sizes[round(0.9 * len(sizes)) - 1]
    median = statistics.median(sizes)
    print(f"functions: {len(sizes)}, median {median:.0f}, p90 {tenth}, longest {sizes[-1]} lines")
    public = [each for each in functions if not each.name.startswith("_")]
    with_docstring = sum(ast.get_docstring(each) is not None for each in public)
    print(f"public functions with a docstring: {with_docstring / len(public):.0%}")


def print_density(nodes: list[ast.AST], lines: int) -> None:
    conditional = sum(isinstance(node, ast.IfExp) for node in nodes)
    comprehensions = sum(isinstance(node, COMPREHENSIONS) for node in nodes)
    names = sum(isinstance(node, ast.Name) and node.id == "Any" for node in nodes)
    print(f"conditional expressions per 100 lines: {100 * conditional / lines:.1f}")
    print(f"comprehensions per 100 lines: {100 * comprehensions / lines:.1f}")
    print(f"Any: {names} times")


if __name__ == "__main__":
    main()
