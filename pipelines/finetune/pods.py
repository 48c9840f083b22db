"""What each task's pod is given in a cluster; without effect on a machine, where kfp.local has no
pods.

What exports and evaluates is given what the plan says of the run's own model: outputs of
render_config, which KFP's driver puts in when it makes the pod. There are no limits but the node's:
a step killed for memory helps nobody.
"""

from dataclasses import dataclass

from kfp import dsl, kubernetes
from kfp.dsl.pipeline_channel import PipelineChannel

SECRET = "hagane-s3"  # noqa: S105 - its name
"""Keys of the store and the hub, as docs/cluster.md has it made; a site whose pods have a role of a
cloud needs none."""
STORE_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
HUB_KEYS = ("HF_TOKEN",)
CONFIG_MAP = "hagane"
"""k8s/base/config.yaml."""
CONFIG_KEYS = (
    *(
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_S3",
        "HF_ENDPOINT",
        "HF_HUB_OFFLINE",
    ),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "HAGANE_STORE_LINK"),
)
"""Variables that a step reads; of each object only those keys that are there reach it."""


@dataclass(frozen=True)
class Pod:
    name: str
    """As the UI shows the task."""
    cpus: str | PipelineChannel
    """Cores asked for; a channel is an output of an earlier step."""
    memory: str | PipelineChannel
    reads_hub: bool
    """Whether the step fetches files of the model: only such a step gets the hub's token."""
    hours: int | None
    """Longest time that the pod may run; None for the one that trains, which has deadlines of its
    own and must get SIGTERM first."""
    retries: int = 2
    """New pods by KFP in place of one that is lost. What a step itself knows how to wait for, it
    waits for (shared/patience.py): where a site's Argo retries only what is lost (retryPolicy
    OnError, the default of KFP 2.17), a container that failed has no second try, and elsewhere it
    has one at once."""


RETRY_WINDOW = "31536000s"
"""A year, for ever: Argo counts backoff.maxDuration from the start of the first try, and kills a
later one when it is over, whatever the step's own timeout (workflow/controller/operator.go,
processNodeRetries; kubeflow/pipelines#13452). KFP's default is an hour."""
NO_PAUSE = "0s"
"""Before a retry. Argo waits it out before it looks whether there is a retry at all: after an error
that is final it would be in vain."""


def settle(task: dsl.PipelineTask, pod: Pod, *, cached: bool = False) -> None:
    """The task's pod has all of it, the variables by which it reaches the store, and does not run
    as root.

    kfp-kubernetes 2.17 has no field for the rest of a security context. A server of 2.17 sets it on
    every pod of a run: no privilege escalation, all capabilities dropped, seccomp RuntimeDefault
    (kubeflow/pipelines#12782). Drivers before it pass over runAsNonRoot.
    """
    task.set_display_name(pod.name)
    task.set_cpu_request(pod.cpus)
    task.set_memory_request(pod.memory)
    task.set_caching_options(cached)
    if pod.retries:
        task.set_retry(
            num_retries=pod.retries,
            backoff_duration=NO_PAUSE,
            backoff_factor=2.0,
            backoff_max_duration=RETRY_WINDOW,
        )
    if pod.hours is not None:
        kubernetes.set_timeout(task, pod.hours * 3600)
    kubernetes.set_security_context(task, run_as_non_root=True)
    if pod.reads_hub:
        keys = (*STORE_KEYS, *HUB_KEYS)
    else:
        keys = STORE_KEYS
    kubernetes.use_secret_as_env(
        task, secret_name=SECRET, secret_key_to_env={key: key for key in keys}, optional=True
    )
    kubernetes.use_config_map_as_env(
        task,
        config_map_name=CONFIG_MAP,
        config_map_key_to_env={key: key for key in CONFIG_KEYS},
        optional=True,
    )
