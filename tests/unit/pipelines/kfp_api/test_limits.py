"""Names, tags and parameters that KFP would refuse, or change, are refused before anything is sent."""

from typing import Any

import kfp_server_api as api
import pytest

from components.shared.errors import SpecError
from pipelines.finetune.parameters import parameter_problems
from pipelines.kfp_api.client import KfpClient
from pipelines.kfp_api.connection import Connection
from pipelines.kfp_api.limits import name_problems, tag_problems
from pipelines.kfp_api.versions import TAGS


def never_called(*_: object, **__: object) -> None:
    raise AssertionError("sent")


def sent(thing: object) -> list[str]:
    """Problems of an object that a client is asked to send to an address where nothing listens."""
    kfp = KfpClient(Connection(endpoint="http://127.0.0.1:9", namespace=None, token=None, ca_file=None, ui=""))
    with pytest.raises(SpecError) as refused:
        kfp.ask("send it", never_called, thing)
    assert refused.value.exit_code == 2
    return list(refused.value.problems)


def test_the_tags_of_a_version_are_ones_that_kfp_takes() -> None:
    assert tag_problems(TAGS, where="version") == []
    (dotted,) = tag_problems({"app.kubernetes.io/managed-by": "hagane"}, where="version v1")
    assert dotted == ("version v1: found tag key 'app.kubernetes.io/managed-by', allowed 1 to 63 characters and no dot. Fix: rename it")
    assert len(tag_problems({"k" * 64: "v", "k": "v" * 64, "": ""}, where="v")) == 3
    assert len(tag_problems({f"k{number}": "" for number in range(21)}, where="v")) == 1


@pytest.mark.parametrize(("what", "longest"), [("pipeline", 128), ("version", 127), ("experiment", 128), ("run", 255)])
def test_a_name_may_be_as_long_as_its_column(what: str, longest: int) -> None:
    assert name_problems(what, "n" * longest, where="name") == []
    (line,) = name_problems(what, "n" * (longest + 1), where="name")
    assert f"allowed {longest} in KFP" in line
    assert len(name_problems(what, "", where="name")) == 1


def test_the_server_counts_bytes_of_an_experiment_and_characters_of_a_run() -> None:
    assert name_problems("experiment", "鋼" * 43, where="name") != []
    assert name_problems("run", "鋼" * 255, where="name") == []


LONG: dict[str, Any] = {"display_name": "n" * 256}


@pytest.mark.parametrize(
    ("thing", "problem"),
    [
        (api.V2beta1Pipeline(name="p" * 129), "pipeline: found a name of 129 bytes"),
        (api.V2beta1Experiment(display_name="é" * 65), "experiment: found a name of 130 bytes"),
        (api.V2beta1Run(**LONG), "run name: found a name of 256 characters"),
        (api.V2beta1RecurringRun(**LONG), "run name: found a name of 256 characters"),
        (api.V2beta1Run(display_name="a", service_account="My Account"), "service account: found 'My Account'"),
    ],
)
def test_every_object_is_checked_before_it_is_sent(thing: object, problem: str) -> None:
    (line,) = sent(thing)
    assert line.startswith(problem)


def test_braces_are_refused_in_every_text_and_key_with_the_fields_name() -> None:
    parameters = {
        "spec": {"evaluation": {"questions": ["fine {one}", "who is {{user}}?"]}, "cluster": {"labels": {"{{x}}": "y"}}},
        "override_run_name": "weekly-{run}",
        "notify_when": "{{=1+1}}",
    }
    lines = parameter_problems(parameters)
    assert [line.partition(": found")[0] for line in lines] == ["spec.evaluation.questions.1", "spec.cluster.labels.{{x}}", "notify_when"]
    assert "allowed text without '{{', which Argo Workflows would replace in a cluster" in lines[0]
    config = api.V2beta1RuntimeConfig(parameters=parameters)
    assert sent(api.V2beta1RecurringRun(display_name="weekly", runtime_config=config)) == lines


def test_a_runs_name_that_argo_would_fill_in_is_refused_before_it_is_sent() -> None:
    (problem,) = name_problems("run", "nightly {{workflow.uid}}", where="run name")
    assert problem.startswith("run name: found '{{' in 'nightly {{workflow.uid}}'")
    assert name_problems("run", "nightly {run}", where="run name") == []
