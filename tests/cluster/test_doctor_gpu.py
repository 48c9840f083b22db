"""`hagane doctor --gpu` on a real cluster without GPUs: what the checks in the pods of its job say."""

from pathlib import Path

import yaml

from tests.cluster.conftest import TestNamespace
from tests.cluster.test_doctor import Patient
from tests.s3_server import S3Server


def test_the_checks_run_in_a_job_of_the_runs_shape_and_nothing_is_left(namespace: TestNamespace, s3: S3Server, tmp_path: Path) -> None:
    patient = Patient(namespace, s3, tmp_path)
    tree = yaml.safe_load(patient.spec.read_text())
    patient.spec.write_text(yaml.safe_dump(tree | {"cluster": tree["cluster"] | {"cpus": 2}}))
    done = patient.doctor("--gpu")
    states = {line[2:30].strip(): line[30:].split()[0] for line in done.output.splitlines() if line[30:].split()}
    print(done.output)
    assert {name: states.get(name) for name in ("small training", "save", "resume on fewer")} == {
        "small training": "ok",
        "save": "ok",
        "resume on fewer": "ok",
    }, done.output + "\n".join(done.errors)
    patient.wait_until_nothing_is_left()
