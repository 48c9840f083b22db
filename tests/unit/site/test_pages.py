"""Tutorials and how-to pages: each code block is run, validated or marked; links and languages."""

import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest
import yaml

from tests.support.command_pages import commands_page, events_page
from tests.support.doc_blocks import (
    DOCS,
    ROOT,
    Block,
    blocks_of,
    pages,
    problems_of_command,
    problems_of_yaml,
)
from tests.support.pipeline_picture import COLOURS, picture

BLOCKS = [block for page in pages() for block in blocks_of(page)]
LINK = re.compile(r"(?<!`)\[[^\]]+\]\(([^)#\s]+)(?:#[^)]*)?\)")


def test_every_block_is_run_or_validated_or_marked() -> None:
    counts = Counter(block.kind for block in BLOCKS)
    print(", ".join(f"{kind}: {number}" for kind, number in sorted(counts.items())))
    assert counts["run"] >= 20
    assert counts["validated"] >= 30
    assert counts["marked"] <= counts["run"] + counts["validated"]


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if block.language == "sh"], ids=lambda b: b.page.stem
)
def test_commands_have_the_options_that_pages_name(block: Block) -> None:
    """Of a block that is marked or run, its commands of hagane."""
    any_command = block.is_marked or block.is_run
    lines = [line for line in block.lines if line.startswith("hagane ") or not any_command]
    assert [problem for line in lines for problem in problems_of_command(line)] == []


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if block.language == "yaml"], ids=lambda b: b.page.stem
)
def test_yaml_is_a_spec_or_an_object_of_kubernetes(block: Block) -> None:
    assert block.is_marked or problems_of_yaml(block.text) == []


def test_the_checks_find_what_is_wrong() -> None:
    assert problems_of_command("hagane plan spec.yaml --row 5")
    assert problems_of_command("hagane plann spec.yaml")
    assert problems_of_command("kubectl apply -f x")
    assert problems_of_yaml("name: a\nstore: runs\n")
    assert problems_of_yaml("apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringdata: {}\n")


def test_every_page_is_in_the_sites_menu() -> None:
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = set(re.findall(r"\b([\w/-]+\.md)$", menu, re.MULTILINE))
    assert {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")} == named


@pytest.mark.parametrize("name", ["README.md", "README.ja.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_links_of_the_first_pages_lead_somewhere(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    targets = [target for target in LINK.findall(text) if "://" not in target]
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_links_of_the_docs_lead_somewhere() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in DOCS.rglob("*.md")
        for target in LINK.findall(page.read_text(encoding="utf-8"))
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert broken == []


OF_OTHERS = {"docs/variables.md"}
"""Of Argo Workflows, which a comment names as its source."""


def test_pages_that_the_code_names_are_there() -> None:
    listed = subprocess.check_output(
        ["git", "grep", "-ohE", r"(^|[^/a-zA-Z])docs/[a-z/-]+\.md", "--", ":!docs"],
        cwd=ROOT,
        text=True,
    )
    names = set(re.findall(r"docs/[a-z/-]+\.md", listed)) - OF_OTHERS
    assert [name for name in names if not (ROOT / name).exists()] == []


JAPANESE = [
    *((DOCS / "ja" / "tutorials" / page.name) for page in (DOCS / "tutorials").glob("*.md")),
    DOCS / "ja" / "how-to" / "your-data.md",
]


@pytest.mark.parametrize("page", JAPANESE, ids=lambda page: page.stem)
def test_a_japanese_page_has_the_commands_and_yaml_of_the_english_one(page: Path) -> None:
    english = DOCS / page.relative_to(DOCS / "ja")
    same = [(block.language, block.text, block.kind) for block in blocks_of(english)]
    assert [(block.language, block.text, block.kind) for block in blocks_of(page)] == same
    assert same


def numbers_of(page: Path) -> set[str]:
    """Numbers of the text outside of code, those with two digits or a point: the others are often
    words in one of the languages."""
    text = re.sub(r"```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    text = re.sub(r"`[^`]*`|\]\([^)]*\)", "", text)
    found = set(re.findall(r"\d+(?:\.\d+)?", text))
    return {number for number in found if len(number) > 1}


SAME_NUMBER = {"135": "3500"}
"""135 million parameters are 1 億 3500 万 in Japanese."""


@pytest.mark.parametrize("page", JAPANESE, ids=lambda page: page.stem)
def test_a_japanese_page_has_the_numbers_of_the_english_one(page: Path) -> None:
    english = numbers_of(DOCS / page.relative_to(DOCS / "ja"))
    translated = {SAME_NUMBER.get(number, number) for number in english}
    assert translated <= numbers_of(page)


def test_both_readmes_have_the_same_commands_and_figures() -> None:
    english, japanese = ((ROOT / name).read_text() for name in ("README.md", "README.ja.md"))
    blocks = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    shown = [(kind, re.sub(r" *#.*", "", text)) for kind, text in blocks.findall(english)]
    again = [(kind, re.sub(r" *#.*", "", text)) for kind, text in blocks.findall(japanese)]
    assert again == shown


def test_messages_of_the_error_page_are_in_the_code() -> None:
    page = (DOCS / "reference" / "errors.md").read_text(encoding="utf-8")
    messages = re.findall(r"^\| `([^`]+)`", page, re.MULTILINE)
    assert len(messages) >= 15
    code = "\n".join(
        file.read_text(encoding="utf-8")
        for folder in ("components", "pipelines")
        for file in (ROOT / folder).rglob("*.py")
    )
    joined = re.sub(r'"\s*\n\s*f?"', "", code)
    assert [message for message in messages if message not in joined] == []


def test_made_pages_are_what_the_code_makes() -> None:
    assert (DOCS / "reference" / "commands.md").read_text() == commands_page()
    assert (DOCS / "reference" / "events.md").read_text() == events_page()
    for scheme in COLOURS:
        assert (DOCS / "images" / f"pipeline-{scheme}.svg").read_text() == picture(scheme)


def test_workflows_pin_what_they_use_and_the_registry_is_one_variable() -> None:
    for file in (ROOT / ".github" / "workflows").glob("*.yaml"):
        used = re.findall(r"uses: (\S+)", file.read_text())
        assert all(re.search(r"@[0-9a-f]{40}$", each) for each in used)
    release = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yaml").read_text())
    job = release["jobs"]["release"]
    assert job["if"] == "vars.HAGANE_REGISTRY != ''"
    assert job["env"]["REGISTRY"] == "${{ vars.HAGANE_REGISTRY }}"
    steps = "\n".join(step.get("run", "") for step in job["steps"])
    targets = set(re.findall(r"\bmake ([a-z-]+)", steps))
    makefile = (ROOT / "Makefile").read_text()
    assert targets
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def test_the_readmes_spec_is_one_of_eight_lines() -> None:
    readme = (ROOT / "README.md").read_text()
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    assert len(text.splitlines()) == 8
    assert problems_of_yaml(text) == []


MODULE = re.compile(r"(?<![\w/.<>*-])([\w-]+(?:/[\w-]+)*\.py)\b")
MODULES = [
    ROOT / name
    for name in subprocess.check_output(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"],
        cwd=ROOT,
        text=True,
    ).split()
]
NOT_OF_THE_REPOSITORY = {
    "integrations/sdpa_attention.py",  # of transformers
    "load.py",  # written into each export
    "serve/load.py",
    "my-adapter/adapter/serve/load.py",
}


@pytest.mark.parametrize(
    "page",
    [*sorted((ROOT / "components").glob("*/README.md")), *sorted(DOCS.rglob("*.md"))],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_modules_that_pages_name_are_there(page: Path) -> None:
    """By the end of its path: in a component's README of its own modules, or by the path from
    components/ or from the top."""
    folder = ROOT if page.is_relative_to(DOCS) else page.parent
    own = [f"/{path.relative_to(folder).as_posix()}" for path in MODULES if folder in path.parents]
    named = set(MODULE.findall(page.read_text(encoding="utf-8"))) - NOT_OF_THE_REPOSITORY
    absent = [
        name
        for name in named
        if not (ROOT / name).is_file()
        and not (ROOT / "components" / name).is_file()
        and not any(path.endswith(f"/{name}") for path in own)
    ]
    assert sorted(absent) == []
