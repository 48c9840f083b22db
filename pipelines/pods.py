"""What each task's pod is given in a cluster; without effect on a machine, where kfp.local has no pods.

What exports and evaluates is given what the plan says of the run's own model: outputs of render_config, which KFP's driver puts in when
it makes the pod. There are no limits but the node's: a step killed for memory helps nobody.
"""

from dataclasses import dataclass

from kfp import dsl, kubernetes
from kfp.dsl.pipeline_channel import PipelineChannel

SECRET = "hagane-s3"  # noqa: S105 - its name
"""Keys of the store, as docs/cluster.md has it made; a site whose pods have a role of a cloud needs none."""
SECRET_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN")
CONFIG_MAP = "hagane"
"""k8s/base/config.yaml."""
CONFIG_KEYS = (
    *("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "HF_ENDPOINT", "HF_HUB_OFFLINE"),
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
    hours: int | None
    """Longest time that the pod may run; None for the one that trains, which has deadlines of its own and must be told SIGTERM first."""
    retries: int = 2
    """After half a minute, then one: for a store or a hub that does not answer. The last error counts. Argo retries a container that
    failed, not a pod whose node is lost."""


def settle(task: dsl.PipelineTask, pod: Pod, *, cached: bool = False) -> None:
    """The task's pod has all of it, and the variables by which it reaches the store."""
    task.set_display_name(pod.name)
    task.set_cpu_request(pod.cpus)
    task.set_memory_request(pod.memory)
    task.set_caching_options(cached)
    if pod.retries:
        task.set_retry(num_retries=pod.retries, backoff_duration="30s", backoff_factor=2.0, backoff_max_duration="300s")
    if pod.hours is not None:
        kubernetes.set_timeout(task, pod.hours * 3600)
    kubernetes.use_secret_as_env(task, secret_name=SECRET, secret_key_to_env={key: key for key in SECRET_KEYS}, optional=True)
    kubernetes.use_config_map_as_env(
        task, config_map_name=CONFIG_MAP, config_map_key_to_env={key: key for key in CONFIG_KEYS}, optional=True
    )
