import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf.json_format import MessageToDict

from components.shared.job.images import IN_THE_REPOSITORY, read_images
from components.shared.kfp_face import image
from components.shared.spec.file import load_spec
from components.shared.spec.overrides import OVERRIDES, asked_spec
from images.push import write_digests
from pipelines.finetune.pipeline import finetune
from pipelines.finetune.steps import STEPS, TASKS
from pipelines.local.program import own_nothing
from tests.support.command_line import hagane

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
GOLDEN = Path(__file__).parents[3] / "golden" / "finetune.yaml"


def test_compiling_twice_gives_the_same_bytes_and_those_in_git(tmp_path: Path) -> None:
    from pipelines.finetune.compiling import compile_pipeline

    compile_pipeline(tmp_path / "a.yaml")
    compile_pipeline(tmp_path / "b.yaml")
    assert (
        (tmp_path / "a.yaml").read_bytes()
        == (tmp_path / "b.yaml").read_bytes()
        == GOLDEN.read_bytes()
    )


@pytest.fixture(scope="module")
def documents() -> tuple[dict[str, Any], dict[str, Any]]:
    """The pipeline, and what it asks of the platform."""
    pipeline, platform = yaml.safe_load_all(GOLDEN.read_text())
    return pipeline, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


Documents = tuple[dict[str, Any], dict[str, Any]]


def test_every_task_runs_in_its_components_image_and_installs_nothing(documents: Documents) -> None:
    executors = documents[0]["deploymentSpec"]["executors"]
    assert {name.removeprefix("exec-").replace("-", "_") for name in executors} == set(TASKS)
    components = {step: step for step in STEPS} | {
        "claim_run": "prepare_dataset",
        "end_run": "launch_training",
    }
    for task, component in components.items():
        container = executors[f"exec-{task.replace('_', '-')}"]["container"]
        assert container["image"] == image(component)
        assert "pip install" not in " ".join(container["command"])
        assert set(container["resources"]) >= {"resourceCpuRequest", "resourceMemoryRequest"}
        assert not any("Limit" in name for name in container["resources"])


def test_pods_that_load_the_model_ask_for_what_the_plan_says(documents: Documents) -> None:
    executors, outputs = (
        documents[0]["deploymentSpec"]["executors"],
        documents[0]["components"]["comp-render-config"]["outputDefinitions"],
    )
    for step, memory in (("export-adapter", "export_memory"), ("evaluate", "evaluate_memory")):
        asked = executors[f"exec-{step}"]["container"]["resources"]
        assert (
            asked["resourceMemoryRequest"]
            == f"{{{{$.inputs.parameters['pipelinechannel--render-config-{memory}']}}}}"
        )
        assert {memory, "cpus"} < set(outputs["parameters"])


def test_no_step_has_an_artifact_for_kfp_to_download_before_it_starts(documents: Documents) -> None:
    inputs = [component["inputDefinitions"] for component in documents[0]["components"].values()]
    assert all(
        "artifacts" not in each for each in (*inputs, documents[0]["root"]["inputDefinitions"])
    )
    assert all(each["parameters"] for each in inputs)


def test_only_what_the_claim_makes_safe_is_cached_and_only_training_has_no_deadline(
    documents: Documents,
) -> None:
    pipeline, executors = documents
    tasks = {
        **pipeline["components"]["comp-exit-handler-1"]["dag"]["tasks"],
        "end-run": pipeline["root"]["dag"]["tasks"]["end-run"],
    }
    assert {name for name, task in tasks.items() if task["cachingOptions"]} == {
        "prepare-dataset",
        "render-config",
    }
    assert {name for name in tasks if "activeDeadlineSeconds" not in executors[f"exec-{name}"]} == {
        "launch-training"
    }
    assert "retryPolicy" not in tasks.pop("end-run")
    assert {name: task["retryPolicy"]["maxRetryCount"] for name, task in tasks.items()} == {
        **dict.fromkeys(tasks, 2),
        "launch-training": 1,
    }
    # a retried pod is not killed by a window, and an error that is final does not wait for nothing
    for task in tasks.values():
        assert (
            task["retryPolicy"]["backoffMaxDuration"],
            task["retryPolicy"]["backoffDuration"],
        ) == ("31536000s", "0s")
    for name in ("prepare-dataset", "render-config"):
        assert "seen" in tasks[name]["inputs"]["parameters"]


def test_every_pod_gets_the_stores_keys_and_address_where_they_are(documents: Documents) -> None:
    for name, pod in documents[1].items():
        secrets = {secret["secretName"]: secret for secret in pod["secretAsEnv"]}
        (config,) = pod["configMapAsEnv"]
        assert set(secrets) == (
            {"hagane-s3", "hagane-notify"} if name == "exec-end-run" else {"hagane-s3"}
        )
        assert {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} <= {
            key["envVar"] for key in secrets["hagane-s3"]["keyToEnv"]
        }
        assert config["configMapName"] == "hagane"
        assert "AWS_ENDPOINT_URL" in {key["envVar"] for key in config["keyToEnv"]}
        assert all(each["optional"] for each in (*pod["secretAsEnv"], config))


STORE, HUB = "AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN", "HF_TOKEN"
LEAST = {
    "claim_run": f"{STORE} {HUB}",
    "prepare_dataset": f"{STORE} {HUB}",
    "render_config": f"{STORE} {HUB}",
    "launch_training": STORE,
    "export_adapter": f"{STORE} {HUB}",
    "evaluate": f"{STORE} {HUB}",
    "write_report": STORE,
    "end_run": f"{STORE} HAGANE_NOTIFY_URL",
}
"""Step -> entries of secrets in its environment. The hub's token is only where files of the model
are fetched."""


def test_each_step_gets_the_secrets_it_needs_and_does_not_run_as_root(documents: Documents) -> None:
    table = {
        name.removeprefix("exec-").replace("-", "_"): pod for name, pod in documents[1].items()
    }
    for step, pod in table.items():
        print(f"{step:16} {' '.join(_secret_entries(pod)):90} {pod['securityContext']}")
    assert {step: " ".join(_secret_entries(pod)) for step, pod in table.items()} == LEAST
    assert all(pod["securityContext"] == {"runAsNonRoot": True} for pod in table.values())
    assert not any("secretAsVolume" in pod for pod in table.values())


def _secret_entries(pod: dict[str, Any]) -> list[str]:
    return [key["envVar"] for secret in pod["secretAsEnv"] for key in secret["keyToEnv"]]


def test_the_form_is_filled_with_a_spec_that_is_one_and_the_rest_leaves_it_as_it_is(
    documents: Documents,
) -> None:
    parameters = documents[0]["root"]["inputDefinitions"]["parameters"]
    given = {name: parameter["defaultValue"] for name, parameter in parameters.items()}
    overrides = {name: given[name] for name in OVERRIDES}
    spec = asked_spec(given["spec"], overrides, kfp_run="")
    assert spec == load_spec(Path("specs/from-the-ui.yaml"))
    assert (spec.backend, spec.store) == ("pytorchjob", "s3://hagane/runs")
    assert given.keys() == {"spec", *OVERRIDES, "skip_if_unchanged", "notify_when"}


def test_every_image_of_the_yaml_is_one_of_images_yaml_the_trainers_too() -> None:
    tree = next(yaml.safe_load_all(GOLDEN.read_text()))
    named = {
        executor["container"]["image"] for executor in tree["deploymentSpec"]["executors"].values()
    }
    launch = tree["components"]["comp-exit-handler-1"]["dag"]["tasks"]["launch-training"]["inputs"][
        "parameters"
    ]
    trainers = [
        launch[name]["runtimeValue"]["constant"] for name in ("train_image", "train_on_gpus")
    ]
    images = read_images(IN_THE_REPOSITORY)
    assert trainers == [images.of("train"), images.training(on_gpus=True)]
    assert named | set(trainers) == set(images.names())


def test_a_job_in_a_cluster_belongs_to_kfps_run_and_to_nobody_on_a_laptop(
    documents: Documents,
) -> None:
    given = documents[0]["components"]["comp-exit-handler-1"]["dag"]["tasks"]["launch-training"][
        "inputs"
    ]["parameters"]["kfp_run"]
    assert given == {"runtimeValue": {"constant": "{{$.pipeline_job_uuid}}"}}
    pipeline = copy.deepcopy(finetune.pipeline_spec)  # pyright: ignore[reportFunctionMemberAccess] - @dsl.pipeline makes it a component
    own_nothing(pipeline)
    launch = pipeline.components["comp-exit-handler-1"].dag.tasks["launch-training"]
    assert MessageToDict(launch.inputs.parameters["kfp_run"]) == {"runtimeValue": {"constant": ""}}


@pytest.mark.parametrize(
    "change", ["tag: 0.1.1", "  train: train-cuda"], ids=["a tag", "the trainer's image alone"]
)
def test_a_changed_image_name_changes_the_version_of_the_pipeline(
    change: str, tmp_path: Path
) -> None:
    key = change.partition(":")[0]
    changed = re.sub(rf"(?m)^{key}: .*$", change, IN_THE_REPOSITORY.read_text())
    (tmp_path / "images.yaml").write_text(changed)
    usual = hagane("compile", tmp_path / "a.yaml", work=tmp_path)
    other = hagane(
        "compile",
        tmp_path / "b.yaml",
        work=tmp_path,
        env={"HAGANE_IMAGES": str(tmp_path / "images.yaml")},
    )
    versions = [done.output.split()[-1] for done in (usual, other)]
    assert all(re.fullmatch("[0-9a-f]{12}", version) for version in versions)
    assert versions[0] != versions[1]
    assert change.partition(": ")[2] in (tmp_path / "b.yaml").read_text()


def test_a_schedule_is_refused_images_that_may_move(tmp_path: Path) -> None:
    done = hagane("compile", tmp_path / "a.yaml", "--pinned", work=tmp_path)
    assert done.exit_code == 2
    assert len(done.errors) == len(read_images(IN_THE_REPOSITORY).all())
    assert all("is a tag, which can be moved" in line for line in done.errors)
    assert not (tmp_path / "a.yaml").exists()
    pinned = dict.fromkeys(read_images(IN_THE_REPOSITORY).components.values(), "sha256:" + "1" * 64)
    (tmp_path / "images.yaml").write_text(IN_THE_REPOSITORY.read_text())
    write_digests(tmp_path / "images.yaml", "registry.example.com/hagane", pinned)
    done = hagane(
        "compile",
        tmp_path / "a.yaml",
        "--pinned",
        work=tmp_path,
        env={"HAGANE_IMAGES": str(tmp_path / "images.yaml")},
    )
    assert done.exit_code == 0, done.errors
    assert (tmp_path / "a.yaml").read_text().count(
        "@sha256:" + "1" * 64
    ) == 8 + 1 + 5  # tasks, the trainer, and all for skip_if_unchanged
