#!/usr/bin/env bash
# Rewrites every lock file from pyproject.toml; pins that still fit are kept. Needs `uv` on PATH.
set -euo pipefail
cd "$(dirname "$0")"
lock() { # FILE EXTRA...
  local file=$1; shift
  uv pip compile ../pyproject.toml --quiet --python-version 3.11 --python-platform linux --generate-hashes \
    --no-annotate --no-header --excludes not-locked.txt --output-file "$file" "${@/#/--extra=}"
}
images=(prepare_dataset render_config launch_training train export_adapter evaluate write_report)
lock dev.txt "${images[@]}" cli laptop dev
lock laptop.txt "${images[@]}" cli laptop
for image in "${images[@]}"; do lock "$image.txt" "$image"; done
