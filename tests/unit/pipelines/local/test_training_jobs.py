"""What is refused before a container is started; real ones are started in tests/images."""

from pathlib import Path

import docker
import pytest

from components.shared.job.training_job import TrainingJob
from pipelines.local.containers import ContainerSettings
from pipelines.local.training_jobs import NOT_STARTED, _run_job

SETTINGS = ContainerSettings("s3://b/demo", "7:0", {}, (), "bridge", Path("/"), 10)
JOB = TrainingJob(image="other:1", run="s3://b/demo", num_processes=1, environment={})


@pytest.mark.parametrize(
    ("asked", "told"),
    [(JOB.model_dump_json(), "asked for image 'other:1', images.yaml says 'train:1'"), ("{", "Invalid JSON")],
    ids=["another image", "no JSON"],
)
def test_a_job_that_is_not_what_launch_training_asks_for_is_refused_and_told(asked: str, told: str, tmp_path: Path) -> None:
    file = tmp_path / "a1.json"
    file.write_text(asked)
    nobody = docker.DockerClient(base_url="tcp://127.0.0.1:1", version="1.41")
    _run_job(nobody, file, SETTINGS, "train:1")
    assert told in (tmp_path / "a1.log").read_text()
    assert (tmp_path / "a1.exit_code").read_text() == str(NOT_STARTED)
