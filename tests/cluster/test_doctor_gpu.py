"""`hagane doctor --gpu` on a real cluster without GPUs: what the checks in the pods of its job say."""

import re
from pathlib import Path

import yaml

from tests.cluster.conftest import TestNamespace
from tests.cluster.test_doctor import Patient
from tests.support.s3_server import S3Server


def test_the_checks_run_in_a_job_of_the_runs_shape_and_nothing_is_left(namespace: TestNamespace, s3: S3Server, tmp_path: Path) -> None:
    patient = Patient(namespace, s3, tmp_path)
    tree = yaml.safe_load(patient.spec.read_text())
    patient.spec.write_text(yaml.safe_dump(tree | {"cluster": tree["cluster"] | {"cpus": 2}}))
    done = patient.doctor("--gpu")
    print(done.output)
    for check in ("small training", "save", "three timed steps", "resume on fewer"):
        assert re.search(rf"^ *{check} +(ok|warning) ", done.output, re.MULTILINE), done.output + "\n".join(done.errors)
    assert "2 processes -> 1 from step 4" in done.output
    patient.wait_until_nothing_is_left()
