"""The step of the release that signs, with programs in the place of curl and cosign: the workflow
itself runs on GitHub alone."""

import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
SIGN = "Sign each digest and attest its contents"
COSIGN = '#!/bin/sh\necho "$@" >> signed\n'
CURL = f"""#!/bin/sh
printf '%s' '{COSIGN}' > cosign
echo "0 cosign-linux-amd64" > sums
"""
# Reads what it is given: a program that ends before its pipe is empty makes the step end with 141.
SHA256SUM = "#!/bin/sh\ncat > /dev/null\n"


def signed(folder: Path, names: str) -> tuple[int, list[str]]:
    """Exit code of the step, and what cosign was asked. `names`: a script instead of
    images.names."""
    workflow = yaml.safe_load((ROOT / ".github/workflows/release.yaml").read_text())
    (step,) = [each for each in workflow["jobs"]["release"]["steps"] if each.get("name") == SIGN]
    assert step["shell"] == "bash"
    programs = {"bin/curl": CURL, "bin/sha256sum": SHA256SUM, ".venv/bin/python": names}
    for name, text in programs.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    # As GitHub runs `shell: bash`.
    bash = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
    env = {"PATH": f"{folder}/bin:/usr/bin:/bin"}
    done = subprocess.run(bash, cwd=folder, env=env, capture_output=True, check=False)
    if (folder / "signed").exists():
        return done.returncode, (folder / "signed").read_text().splitlines()
    return done.returncode, []


def test_every_digest_is_signed_and_its_contents_attested(tmp_path: Path) -> None:
    exit_code, asked = signed(tmp_path, "#!/bin/sh\necho a r/a@sha256:1\necho b r/b@sha256:2\n")
    assert exit_code == 0
    assert [line.split()[0] for line in asked] == ["sign", "attest"] * 2
    assert asked[2].endswith("r/b@sha256:2")


@pytest.mark.parametrize("names", ["#!/bin/sh\n", "#!/bin/sh\necho a r/a@sha256:1\nexit 1\n"])
def test_without_a_digest_or_where_the_names_fail_the_release_ends(
    tmp_path: Path, names: str
) -> None:
    exit_code, asked = signed(tmp_path, names)
    assert exit_code != 0
    assert asked == []
