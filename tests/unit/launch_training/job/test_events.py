"""What the cluster says against a job's pods -> whether waiting can help; no cluster is needed for that."""

import pytest

from components.launch_training.job.events import REFUSED_S, why_no_pods

OF_JOBSET = "TrainJob resources reconciliation failed: "
CALLING = 'Internal error occurred: failed calling webhook "mjobset.kb.io": failed to call webhook: Post "https://jobset-webhook:443": '
PASSING = (
    'jobs.batch "j-node-0" is forbidden: exceeded quota: q, requested: count/jobs.batch=1, used: count/jobs.batch=4, limited: 4',
    CALLING + "dial tcp 10.96.3.7:443: connect: connection refused",
    CALLING + 'no endpoints available for service "jobset-webhook"',
    CALLING + "context deadline exceeded",
    'Get "https://10.96.0.1:443/apis": net/http: TLS handshake timeout',
    "Timeout: request did not complete within requested timeout - context deadline exceeded",
    "the server was unable to return a response in the time allotted, but may still be processing the request",
    'Operation cannot be fulfilled on jobsets.jobset.x-k8s.io "j": the object has been modified; please apply your changes to the latest '
    "version and try again",
    "the server has received too many requests and has asked us to try again later: Too Many Requests",
    "etcdserver: leader changed",
)
FINAL = (
    'admission webhook "vjobset.kb.io" denied the request: JobSet.jobset.x-k8s.io "j" is invalid: spec: Invalid value: 1',
    'Job.batch "j" is invalid: spec.template.spec.activeDeadlineSeconds: Invalid value: -1: must be greater than 0',
    'no matches for kind "JobSet" in version "jobset.x-k8s.io/v1alpha2"',
)


def given_up(reason: str, message: str) -> bool:
    return why_no_pods([{"reason": reason, "message": message}], waited_s=REFUSED_S + 1) is not None


@pytest.mark.parametrize("reason", ["TrainJobResourcesCreationFailed", "JobCreationFailed", "FailedCreate", "FailedCreatePod"])
@pytest.mark.parametrize("message", PASSING)
def test_a_refusal_that_passes_is_waited_for_whatever_was_refused(reason: str, message: str) -> None:
    assert not given_up(reason, f"{OF_JOBSET}{message}")


@pytest.mark.parametrize("reason", ["TrainJobResourcesCreationFailed", "JobCreationFailed"])
@pytest.mark.parametrize("message", FINAL)
def test_a_refusal_that_comes_again_ends_the_job(reason: str, message: str) -> None:
    assert given_up(reason, f"{OF_JOBSET}{message}")
