"""`hagane plan --probe-pod` on a real cluster: three steps of the run's own model in one pod."""

import json
from pathlib import Path

import yaml

from tests.cluster.cluster_run import NODE_GIB
from tests.cluster.conftest import TestNamespace
from tests.cluster.test_doctor import Patient
from tests.support.command_line import Finished, hagane
from tests.support.s3_server import S3Server


def probed(patient: Patient, *options: str) -> Finished:
    arguments = ("plan", patient.spec, "--probe-pod", *options)
    return hagane(*arguments, work=patient.folder / "work", env=patient.namespace.env)


def readable(folder: Path) -> None:
    """For the pods' user: libraries write a model for their owner alone."""
    for path in folder.rglob("*"):
        path.chmod(path.stat().st_mode | (0o755 if path.is_dir() else 0o644))
    for parent in (folder, *folder.parents[:3]):
        parent.chmod(parent.stat().st_mode | 0o055)


def test_a_pod_makes_three_steps_of_the_plan_and_nothing_is_left(
    namespace: TestNamespace, claim: dict[str, str], s3: S3Server, tmp_path: Path
) -> None:
    patient = Patient(namespace, s3, tmp_path)
    tree = yaml.safe_load(patient.spec.read_text())
    cluster = tree["cluster"] | {"claims": claim, "cpus": 1}
    patient.spec.write_text(yaml.safe_dump(tree | {"cluster": cluster}))
    readable(tmp_path)
    done = probed(patient, "--json")
    assert done.exit_code == 0, done.errors
    probe = json.loads(done.output)["probe"]
    print(json.dumps(probe["steps"], indent=1))
    steps = probe["steps"]
    assert (len(steps["step_seconds"]), steps["rows"]) == (3, "random")
    assert probe["seconds_per_step"]["measured"] > 0
    assert 0 < steps["peak_host_bytes"] < NODE_GIB * 2**30
    patient.wait_until_nothing_is_left()


def test_a_model_that_no_pod_sees_is_refused_by_the_pod_and_nothing_is_left(
    namespace: TestNamespace, s3: S3Server, tmp_path: Path
) -> None:
    patient = Patient(namespace, s3, tmp_path)
    done = probed(patient)
    errors = [line for line in done.errors if line.startswith("error: ")]
    assert (done.exit_code, len(errors)) == (2, 1), done.errors
    assert "model.source" in errors[0]
    patient.wait_until_nothing_is_left()
