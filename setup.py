"""Copies the files that the code reads outside its packages into the wheel, for `own_file` of
components/shared/own_files.py. Everything else about the package is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
PACKED = (
    "images/images.yaml",
    "specs/from-the-ui.yaml",
    "specs/templates/*.jinja",
    "docs/how-to/*.md",
    "k8s/**/*.yaml",
)


class BuildWithOwnFiles(build_py):
    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / "components" / "shared" / "own_files"
        for pattern in PACKED:
            for source in sorted(ROOT.glob(pattern)):
                copy = target / source.relative_to(ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, copy)


setup(cmdclass={"build_py": BuildWithOwnFiles})
