"""`hagane doctor --gpu` on a real cluster, whose node has no GPU: a job of the run's own shape, on CPUs."""

from pathlib import Path

import pytest

from tests.cluster.conftest import TestNamespace
from tests.cluster.test_doctor import Patient, failures, states
from tests.s3_server import S3Server

ON_CPUS = ("torch", "number format", "attention", "small training", "save", "resume on fewer", "all-reduce in the node")
OF_GPUS = ("driver", "GPUs", "GPU memory", "kernels in the wheel", "pinned memory")


@pytest.fixture
def patient(namespace: TestNamespace, s3: S3Server, tmp_path: Path) -> Patient:
    return Patient(namespace, s3, tmp_path)


def test_a_node_is_checked_by_a_job_of_the_runs_shape_and_nothing_is_left(patient: Patient) -> None:
    two_processes = ("hardware.processes_per_node=2", "training.global_batch=4")
    a_whole_core = "cluster.cpus=1"  # with the tenth of one that other tests ask for, a busy machine leaves it none
    settings = [word for each in (*two_processes, a_whole_core) for word in ("--set", each)]
    done = patient.doctor("--gpu", *settings)
    print(done.output, *done.errors, sep="\n")
    assert failures(done) == [], done.output
    found = states(done)
    assert {name: found.get(name) for name in ON_CPUS} == dict.fromkeys(ON_CPUS, "ok")
    assert {name: found.get(name) for name in OF_GPUS} == dict.fromkeys(OF_GPUS, "skipped")
    assert "2 processes -> 1 from step 4" in " ".join(done.output.split())
    patient.wait_until_nothing_is_left()
