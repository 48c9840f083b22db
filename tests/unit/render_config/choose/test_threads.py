import os

import pytest

from components.launch_training.backends.local import worker_settings
from components.render_config.planner import Machine, make_plan
from components.render_config.render.pytorchjob import pytorchjob
from components.shared.documents.plan import Plan
from components.shared.spec.results import CheckpointSpec
from tests.unit.render_config.test_planner import CONFIG, DATASET, spec_with


def planned(num_cores: int, **fields: object) -> Plan:
    hardware = {"processes_per_node": 2}
    return make_plan(
        spec_with(hardware=hardware, **fields),
        DATASET,
        CONFIG,
        machine=Machine(num_cores=num_cores),
    )


def test_the_cores_of_this_machine_are_shared_out_among_its_processes() -> None:
    plan = planned(12)
    assert plan.threads_per_process == 6
    reason = plan.reasons["threads_per_process"]
    assert reason.startswith("12 cores of this machine / 2 processes: OMP_NUM_THREADS; ")
    assert "soon sleeps (GOMP_SPINCOUNT 2000)" in reason
    assert planned(1).threads_per_process == 1


@pytest.mark.parametrize(("cpus", "threads"), [(16.0, 8), (1.0, 1), (None, None)])
def test_a_pods_processes_share_the_cores_it_asks_for(
    cpus: float | None, threads: int | None
) -> None:
    spec = spec_with(
        hardware={"processes_per_node": 2}, backend="pytorchjob", cluster={"cpus": cpus}
    )
    plan = make_plan(spec, DATASET, CONFIG, machine=Machine(num_cores=99))
    (container,) = pytorchjob(spec, plan)["spec"]["pytorchReplicaSpecs"]["Master"]["template"][
        "spec"
    ]["containers"]
    environment = {each["name"]: each.get("value") for each in container["env"]}
    assert environment["GOMP_SPINCOUNT"] == "2000"
    assert environment.get("OMP_NUM_THREADS") == (None if threads is None else str(threads))
    assert plan.threads_per_process == threads


def test_the_launcher_obeys_but_for_cores_that_are_not_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert worker_settings(planned(4), CheckpointSpec())["OMP_NUM_THREADS"] == "2"
    assert worker_settings(planned(4), CheckpointSpec())["GOMP_SPINCOUNT"] == "2000"
    assert worker_settings(planned(64), CheckpointSpec())["OMP_NUM_THREADS"] == "4"
