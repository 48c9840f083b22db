"""Files of hagane that lie outside its packages: image names, chat templates, a spec."""

from pathlib import Path

_PACKED = Path(__file__).with_name("own_files")
"""Only in an installed wheel: setup.py copies the files of the repository here."""
_ROOT = Path(__file__).parents[2]


def own_file(name: str) -> Path:
    """A file or folder by its path in the repository, such as `images/images.yaml`: in a checkout
    or an image it lies there, in a wheel inside this package."""
    return (_PACKED if _PACKED.is_dir() else _ROOT) / name
