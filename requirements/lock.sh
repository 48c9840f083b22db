#!/usr/bin/env bash
# Rewrites every lock file from pyproject.toml; pins that still fit are kept. Needs `uv` on PATH.
set -euo pipefail
cd "$(dirname "$0")"
compile() { uv pip compile --quiet --python-version 3.11 --python-platform linux --generate-hashes --no-annotate --no-header "$@"; }
lock() { # FILE GROUP...
  local file=$1; shift
  compile --group ../pyproject.toml:base --excludes not-locked.txt --output-file "$file" "${@/#/--group=../pyproject.toml:}"
}
image() { # NAME GROUP... - with the versions that the tests ran with
  local name=$1; shift
  compile --group ../pyproject.toml:base --excludes not-locked.txt --constraint dev.txt --output-file "$name.txt" \
    "${@/#/--group=../pyproject.toml:}"
}
components=(prepare_dataset render_config launch_training train export_adapter evaluate write_report)
lock dev.txt "${components[@]}" cli laptop dev
lock laptop.txt "${components[@]}" cli laptop
image prepare prepare_dataset
image render render_config write_report cli
image launch launch_training
image train train
image export export_adapter evaluate
# What a KFP task starts with, for images that need nothing else of kfp: the package alone, at the version of `hagane compile`.
grep -o '"kfp==[^"]*"' ../pyproject.toml | tr -d '"' | compile - --no-deps --output-file kfp.txt
# What installs the locks, and what builds the packages that come as source. pip takes hashes for a build from 25.3 on, by
# PIP_BUILD_CONSTRAINT; an older one, such as a base image's, installs this one first.
echo "pip==26.3" | compile - --no-deps --output-file pip.txt
printf '%s\n' setuptools==80.9.0 wheel==0.45.1 | compile - --no-deps --output-file build.txt
# The CUDA build of torch and its libraries. What it shares with training is in train.txt.
shared=(filelock fsspec jinja2 markupsafe mpmath networkx setuptools sympy typing-extensions)
grep -o "^torch==[^ ]*" torch.txt | compile - --output-file torch-cuda.txt "${shared[@]/#/--no-emit-package=}"
