"""What changes the version of the pipeline, and what does not: each change is made to a copy of the code, which is then compiled."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
COMPONENTS = sorted(path.parent.name for path in (ROOT / "components").glob("*/component.py"))
COMPILE = """
import json, sys, warnings
warnings.simplefilter("ignore")
versions = {}
for tree in sys.argv[1:]:
    for name in [name for name in sys.modules if name.split(".")[0] in ("components", "pipelines")]:
        del sys.modules[name]
    sys.path[0] = tree
    from pipelines.finetune.compiling import compiled_pipeline
    versions[tree.rsplit("/", 1)[1]] = compiled_pipeline().version_name
print(json.dumps(versions))
"""
Edit = Callable[[str], str]


def in_signature(text: str) -> Edit:
    """The first function of the file has this parameter more."""
    return lambda source: re.sub(r"(?m)^(def \w+\(\s*)", rf"\1{text}, ", source, count=1)


def in_pipeline(text: str) -> Edit:
    """The pipeline's function has this parameter more, the last one."""
    return lambda source: re.sub(r"(?ms)^(def finetune\(.*?),?\s*(\):)", rf"\1, {text}\2", source, count=1)


def comments(source: str) -> str:
    """A comment below the imports, one inside each function, one at the end, and a docstring of the module that says more."""
    inside = re.sub(r"(?m)^(    (?:return|plan|claimed|prepared|with) )", r"    # inside\n\1", source)
    assert inside != source
    return inside.replace('"""', '"""Once more: ', 1).replace("\n\n\n", "\n# a comment\n\n\n", 1) + "\n# and one more\n"


def comments_elsewhere(source: str) -> str:
    return source + "\n# nobody compiles this\n"


Edits = dict[str, Edit]
"""File -> what is done to it."""
CHANGES: dict[str, Edits] = {
    **{f"signature of {each}": {f"components/{each}/component.py": in_signature("extra: str")} for each in COMPONENTS},
    f"other type in {COMPONENTS[0]}": {f"components/{COMPONENTS[0]}/component.py": in_signature("extra: int")},
    "a default of the pipeline": {"pipelines/finetune/pipeline.py": in_pipeline("extra: int = 1")},
    "another default of the pipeline": {"pipelines/finetune/pipeline.py": in_pipeline("extra: int = 2")},
    # That every image is in the YAML, whose bytes are the version, test_compiling.py shows.
    **{
        f"image of {each}": {"images/images.yaml": lambda source, each=each: re.sub(rf"(?m)^(  {each}: ).*$", r"\1other", source)}
        for each in ("evaluate", "train")
    },
}
NO_CHANGES: dict[str, Edits] = {
    "nothing": {},
    "comments": dict.fromkeys(("pipelines/finetune/pipeline.py", *(f"components/{each}/component.py" for each in COMPONENTS)), comments),
    "what components do": {f"components/{each}/__main__.py": comments_elsewhere for each in COMPONENTS},
}


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The version of the pipeline after each change, by its name."""
    folder = tmp_path_factory.mktemp("trees")
    for name, edits in (CHANGES | NO_CHANGES).items():
        tree = folder / name
        for part in ("components", "pipelines", "images", "specs"):
            shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__", "models", "data", "plans"))
        for file, edit in edits.items():
            source = (tree / file).read_text(encoding="utf-8")
            edited = _with_argument(tree, edit(source))
            assert edited != source, (name, file)
            (tree / file).write_text(edited, encoding="utf-8")
    command = [sys.executable, "-B", "-c", COMPILE, *(str(folder / name) for name in CHANGES | NO_CHANGES)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _with_argument(tree: Path, source: str) -> str:
    """Where a component has a parameter more, the pipeline gives it."""
    added = re.search(r"^def (\w+)\(\s*extra: (\w+)", source, re.MULTILINE)
    if added:
        pipeline = tree / "pipelines" / "finetune.py"
        value = {"str": '"a"', "int": "1"}[added[2]]
        pipeline.write_text(re.sub(rf"(= {added[1]}\()", rf"\1extra={value}, ", pipeline.read_text()))
    return source


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_signature_default_or_image_is_another_version(change: str, versions: dict[str, str]) -> None:
    assert versions[change] != versions["nothing"]


def test_no_two_changes_are_the_same_version(versions: dict[str, str]) -> None:
    assert len({versions[change] for change in CHANGES}) == len(CHANGES)


@pytest.mark.parametrize("change", NO_CHANGES)
def test_a_comment_or_code_inside_an_image_is_no_other_version(change: str, versions: dict[str, str]) -> None:
    assert versions[change] == versions["nothing"]
