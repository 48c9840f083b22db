"""Known vulnerabilities of everything locked for the images, by pip-audit from PyPI's database: `python -m images.audit`.

Exit code 1 when there is one. Where the database does not answer, or does not know a package, nothing is claimed: that
lock is told as not audited, with the reason.
"""

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

from images.bake import read_bake

REQUIREMENTS = Path(__file__).parents[1] / "requirements"


def audit(lock: Path) -> tuple[list[str], str | None]:
    """One line for each vulnerability of the lock's packages, and why the audit is not whole, if so."""
    program = Path(sysconfig.get_path("scripts")) / "pip-audit"
    words = [program, "--format", "json", "--progress-spinner", "off", "--disable-pip", "--no-deps", "--requirement", lock]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except ValueError:
        return [], (done.stderr.strip().splitlines() or [f"pip-audit ended with exit code {done.returncode}"])[-1]
    found = [
        f"{package['name']} {package['version']}: {known['id']}, mended in {', '.join(known['fix_versions']) or 'no version yet'}"
        for package in packages
        for known in package.get("vulns", ())
    ]
    skipped = [package["skip_reason"] for package in packages if "skip_reason" in package]
    return found, f"{len(skipped)} of {len(packages)} packages: {skipped[0]}" if skipped else None


def main() -> None:
    locks = sorted({target.args["LOCK"] for target in read_bake({}, ["all"])} | {"torch", "kfp"})
    vulnerable = False
    for name in locks:
        found, why_not_whole = audit(REQUIREMENTS / f"{name}.txt")
        for line in found:
            print(f"{name}: {line}")
        print(f"{name}: not audited: {why_not_whole}" if why_not_whole else f"{name}: {len(found)} known vulnerabilities")
        vulnerable |= bool(found)
    sys.exit(int(vulnerable))


if __name__ == "__main__":
    main()
