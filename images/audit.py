"""Known vulnerabilities of everything locked for the images, by pip-audit from PyPI's database:
`python -m images.audit`.

Exit code 1 when there is one, and when a lock could not be audited in whole: where the database
does not answer, or does not know a package, nothing is claimed. With `--accept-not-audited`, for a
machine that cannot reach the database, that is printed and passed over.
"""

import argparse
import json
import subprocess
import sys
import sysconfig
from pathlib import Path

from images.bake import read_bake

REQUIREMENTS = Path(__file__).parents[1] / "requirements"


def audit(lock: Path) -> tuple[list[str], str | None]:
    """One line for each vulnerability of the lock's packages, and why the audit is not whole, if
    so."""
    program = Path(sysconfig.get_path("scripts")) / "pip-audit"
    words = [
        program,
        "--format",
        "json",
        "--progress-spinner",
        "off",
        "--disable-pip",
        "--no-deps",
        "--requirement",
        lock,
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except ValueError:
        return [], (
            done.stderr.strip().splitlines()
            or [f"pip-audit ended with exit code {done.returncode}"]
        )[-1]
    found = [
        (
            f"{package['name']} {package['version']}: {known['id']}, fixed in "
            f"{', '.join(known['fix_versions']) or 'no version yet'}"
        )
        for package in packages
        for known in package.get("vulns", ())
    ]
    skipped = [package["skip_reason"] for package in packages if "skip_reason" in package]
    if not packages:
        return found, "pip-audit read no package"
    return found, f"{len(skipped)} of {len(packages)} packages: {skipped[0]}" if skipped else None


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m images.audit", description=__doc__)
    parser.add_argument(
        "--accept-not-audited",
        action="store_true",
        help="pass over what the database of vulnerabilities says nothing of",
    )
    accepted = parser.parse_args().accept_not_audited
    locks = sorted({target.args["LOCK"] for target in read_bake({}, ["all"])} | {"torch", "kfp"})
    num_vulnerable, not_audited = 0, []
    for name in locks:
        found, why_not_whole = audit(REQUIREMENTS / f"{name}.txt")
        num_vulnerable += len(found)
        for line in found:
            print(f"{name}: {line}")
        if why_not_whole:
            not_audited.append(name)
        print(
            f"{name}: not audited: {why_not_whole}"
            if why_not_whole
            else f"{name}: {len(found)} known vulnerabilities"
        )
    if not_audited and not accepted:
        print(
            f"images.audit: {len(not_audited)} of {len(locks)} lock files are not audited in whole "
            f"({', '.join(not_audited)}). Fix: run it where PyPI's database of vulnerabilities "
            "answers, or pass --accept-not-audited"
        )
    sys.exit(int(num_vulnerable > 0 or (bool(not_audited) and not accepted)))


if __name__ == "__main__":
    main()
