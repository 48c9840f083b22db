"""`python -m tests.support.field_lists`: the published API packages of the training operator, Trainer and KServe -> tests/data/fields/*.json,
what fields each version of a kind of object has.

Types of Kubernetes itself are leaves: tests/support/schemas.py has them checked as a pod's. The packages are fetched by pip into a folder of
their own and imported there, each in a process for itself, so that nothing of them is installed.
"""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

FIELDS = Path(__file__).parent / "data" / "fields"
VERSIONS = {
    "kubeflow-training": ("1.9.0", "1.9.4"),
    "kubeflow-trainer-api": ("2.2.0", "2.2.1", "2.3.0"),
    "kserve": ("0.21.0",),
}
"""Package -> versions that docs/cluster.md and docs/result.md name: the oldest and newest of each."""
ROOTS = {
    "kubeflow-training": {"PyTorchJob": "KubeflowOrgV1PyTorchJob"},
    "kubeflow-trainer-api": {
        "TrainJob": "TrainerV1alpha1TrainJob",
        "TrainingRuntime": "TrainerV1alpha1TrainingRuntime",
    },
    "kserve": {"InferenceService": "V1beta1InferenceService"},
}
PACKAGE_OF = {kind: package for package, roots in ROOTS.items() for kind in roots}
KUBERNETES = "kubernetes"
"""Type of a field that the package takes from Kubernetes' own API."""
READER = """
import ast, importlib, json, pathlib, re, sys

folder, roots = sys.argv[1], json.loads(sys.argv[2])
types = {}


def swagger(name):  # kubeflow-training: classes of openapi-generator for Python's first clients
    shown = getattr(importlib.import_module("kubeflow.training.models"), name)
    return {shown.attribute_map[key]: kind for key, kind in shown.openapi_types.items()}


def pydantic(name):
    shown = getattr(importlib.import_module("kubeflow_trainer_api.models"), name)
    return {field.alias or key: str(shown.__annotations__[key]) for key, field in shown.model_fields.items()}


def source(name):  # kserve: as the first, read without importing what its servers need
    for path in pathlib.Path(folder, "kserve", "models").glob("v1beta1_*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and node.name == name:
                values = {each.targets[0].id: each.value for each in node.body if isinstance(each, ast.Assign)}
                shown = {key: ast.literal_eval(values[key]) for key in ("attribute_map", "openapi_types")}
                return {shown["attribute_map"][key]: kind for key, kind in shown["openapi_types"].items()}


def reader():
    if pathlib.Path(folder, "kserve").exists():
        return source
    return swagger if pathlib.Path(folder, "kubeflow", "training").exists() else pydantic


read = reader()
SCALARS = {"str": "string", "StrictStr": "string", "int": "integer", "StrictInt": "integer", "bool": "boolean", "StrictBool": "boolean"}


def collect(name):
    fields = read(name)
    if name in types or fields is None:
        return
    types[name] = {}
    for field, annotation in sorted(fields.items()):
        inner = [each for each in re.findall(r"[A-Za-z0-9]+", annotation) if each not in ("Optional", "List", "Dict", "list", "dict")]
        kind = inner[-1]
        many = "[]" if re.search(r"\\b[Ll]ist\\b", annotation) else "{}" if re.search(r"\\b[Dd]ict\\b", annotation) else ""
        own = kind.startswith(("KubeflowOrg", "Trainer", "Jobset", "IoXK8sJobset", "V1beta1"))
        types[name][field] = many + (kind if own else SCALARS.get(kind, "any" if kind in ("object", "Any") else "kubernetes"))
        if own:
            collect(kind)  # of a type that the package names and does not have, any field is taken


for root in roots:
    collect(root)
print(json.dumps(types, sort_keys=True, indent=1))
"""


def main() -> None:
    for package, versions in VERSIONS.items():
        for version in versions:
            with TemporaryDirectory() as folder:
                text = fields_text(package, version, folder)
            (FIELDS / f"{package}-{version}.json").write_text(text, encoding="utf-8")


def fields_text(package: str, version: str, folder: str) -> str:
    """Type -> its fields, each with its type, of all that the package's roots lead to."""
    fetch = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", folder]
    subprocess.run([*fetch, f"{package}=={version}"], check=True)
    roots = json.dumps(sorted(ROOTS[package].values()))
    command = [sys.executable, "-W", "ignore", "-c", READER, folder, roots]
    env = {**os.environ, "PYTHONPATH": folder}
    return subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout


@cache
def fields_of(package: str, version: str) -> dict[str, dict[str, str]]:
    return json.loads((FIELDS / f"{package}-{version}.json").read_text(encoding="utf-8"))


def unknown_fields(manifest: dict[str, Any], version: str) -> list[str]:
    """A line for each field that this version of the manifest's kind does not have, or has as another type."""
    package = PACKAGE_OF[manifest["kind"]]
    types = fields_of(package, version)
    return _unknown(manifest, ROOTS[package][manifest["kind"]], types, "")


def _unknown(value: Any, kind: str, types: dict[str, dict[str, str]], where: str) -> list[str]:
    if kind.startswith("[]"):
        each_of = value if isinstance(value, list) else []
        wrong = [] if isinstance(value, list) else [f"{where}: must be a list"]
        return wrong + [line for number, each in enumerate(each_of) for line in _unknown(each, kind[2:], types, f"{where}.{number}")]
    if kind.startswith("{}"):
        return [line for key, each in value.items() for line in _unknown(each, kind[2:], types, f"{where}.{key}")]
    if kind in ("string", "integer", "boolean"):
        expected = {"string": str, "integer": int, "boolean": bool}[kind]
        fits = isinstance(value, expected) and (kind == "boolean" or not isinstance(value, bool))
        return [] if fits else [f"{where}: {value!r} is not of type {kind}"]
    if kind not in types:
        return []
    found: list[str] = []
    for key, each in value.items():
        place = f"{where}.{key}" if where else key
        if key not in types[kind]:
            found.append(f"{place}: no such field")
        else:
            found += _unknown(each, types[kind][key], types, place)
    return found


if __name__ == "__main__":
    main()
