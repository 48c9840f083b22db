"""What a KFP server takes as names, tags and parameters, checked before anything is sent.

Read in kubeflow/pipelines 2.17.0, backend/src/apiserver: lengths in validation/length.go, tags in
model/pipeline_tags.go, the length of a run's name in the column DisplayName, VARCHAR(255). The
server counts bytes, but for a run's name and in tags.
"""

import re
from collections.abc import Mapping

import kfp_server_api

from components.shared.errors import SpecError
from components.shared.spec.values import OBJECT_PATTERN
from pipelines.finetune.parameters import parameter_problems

LONGEST_NAME_BYTES = {"pipeline": 128, "version": 127, "experiment": 128}
LONGEST_RUN_NAME = 255
LONGEST_TAG = 63
MOST_TAGS = 20


def name_problems(what: str, name: str | None, *, where: str) -> list[str]:
    """A line when a pipeline, version, experiment, run or recurring run cannot have this name."""
    if not name:
        return [f"{where}: found an empty name, allowed 1 character or more. Fix: name the {what}"]
    if (
        what == "run" and "{{" in name
    ):  # KFP hands the name to its driver's arguments, in which Argo replaces {{…}}
        return [
            (
                f"{where}: found '{{{{' in {name[:40]!r}, which Argo would take for one of its "
                "variables. Fix: leave it out"
            )
        ]
    if what in LONGEST_NAME_BYTES:
        length, longest, unit = len(name.encode()), LONGEST_NAME_BYTES[what], "bytes"
    else:
        length, longest, unit = len(name), LONGEST_RUN_NAME, "characters"
    if length <= longest:
        return []
    return [
        (
            f"{where}: found a name of {length} {unit}, allowed {longest} in KFP. Fix: shorten "
            f"{name[:40]!r}…"
        )
    ]


def account_problems(account: str | None, *, where: str) -> list[str]:
    """A line when this cannot be the name of a service account; none is KFP's own."""
    if not account or re.fullmatch(OBJECT_PATTERN, account):
        return []
    return [
        (
            f"{where}: found {account[:80]!r}, allowed small letters, digits, hyphens and dots. "
            "Fix: name an account of the cluster"
        )
    ]


def tag_problems(tags: Mapping[str, str], *, where: str) -> list[str]:
    """A line for each tag that the server would refuse."""
    problems = []
    if len(tags) > MOST_TAGS:
        problems.append(
            f"{where}: found {len(tags)} tags, allowed {MOST_TAGS}. Fix: leave some out"
        )
    for key, value in tags.items():
        if not 1 <= len(key) <= LONGEST_TAG or "." in key:
            problems.append(
                f"{where}: found tag key {key!r}, allowed 1 to {LONGEST_TAG} characters and no "
                "dot. Fix: rename it"
            )
        if len(value) > LONGEST_TAG:
            problems.append(
                f"{where}: found {len(value)} characters as tag {key!r}, allowed {LONGEST_TAG}. "
                "Fix: shorten it"
            )
    return problems


def check_sent(sent: object) -> None:
    """The server's rules for names and parameters let this object pass.

    Raises:
        SpecError: they do not; one line each. Nothing was sent.
    """
    problems: list[str] = []
    match sent:
        case kfp_server_api.V2beta1Pipeline():
            problems += name_problems("pipeline", sent.name, where="pipeline")
        case kfp_server_api.V2beta1Experiment():
            problems += name_problems("experiment", sent.display_name, where="experiment")
        case kfp_server_api.V2beta1Run() | kfp_server_api.V2beta1RecurringRun():
            problems += name_problems("run", sent.display_name, where="run name")
            problems += account_problems(sent.service_account, where="service account")
            problems += parameter_problems(
                (sent.runtime_config.parameters if sent.runtime_config else None) or {}
            )
        case _:
            pass
    if problems:
        raise SpecError(*problems)
