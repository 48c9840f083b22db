"""A pod -> what of it Kubernetes' Pod Security Standard `restricted` forbids.

https://kubernetes.io/docs/concepts/security/pod-security-standards/, the fields of Baseline and Restricted for Linux as of v1.34. A
program, because the Kubernetes at hand for tests has no Pod Security admission (it came with 1.22).
"""

from collections.abc import Iterator
from typing import Any

Fields = dict[str, Any]
VOLUMES = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"),
}
SYSCTLS = {
    *("kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start", "net.ipv4.tcp_syncookies"),
    *("net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports", "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout"),
    *("net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes"),
}
SELINUX_TYPES = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}


def restricted_problems(pod: Fields) -> list[str]:
    """One line for each field of a pod's spec that the standard forbids, or misses."""
    return [*_of_the_pod(pod), *(line for container in _containers(pod) for line in _of_a_container(pod, container))]


def _of_the_pod(pod: Fields) -> Iterator[str]:
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(name):
            yield f"{name}: true"
    for volume in pod.get("volumes", []):
        for kind in volume.keys() - {"name"} - VOLUMES:
            yield f"volume {volume['name']}: {kind}"
    context = pod.get("securityContext", {})
    for sysctl in context.get("sysctls", []):
        if sysctl["name"] not in SYSCTLS:
            yield f"sysctl {sysctl['name']}"
    yield from _of_a_context("pod", context)


def _of_a_container(pod: Fields, container: Fields) -> Iterator[str]:
    name, context, of_pod = container["name"], container.get("securityContext", {}), pod.get("securityContext", {})
    yield from _of_a_context(name, context)
    if context.get("privileged"):
        yield f"{name}: privileged"
    if context.get("allowPrivilegeEscalation") is not False:
        yield f"{name}: allowPrivilegeEscalation is not false"
    capabilities = context.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", []):
        yield f"{name}: capabilities: ALL is not dropped"
    if set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield f"{name}: capabilities: added {capabilities['add']}"
    if context.get("procMount", "Default") != "Default":
        yield f"{name}: procMount"
    if any(port.get("hostPort") for port in container.get("ports", [])):
        yield f"{name}: hostPort"
    if context.get("runAsNonRoot", of_pod.get("runAsNonRoot")) is not True:
        yield f"{name}: runAsNonRoot is not true"
    if context.get("seccompProfile", of_pod.get("seccompProfile", {})).get("type") not in ("RuntimeDefault", "Localhost"):
        yield f"{name}: seccompProfile is not RuntimeDefault"


def _of_a_context(name: str, context: Fields) -> Iterator[str]:
    if context.get("runAsUser") == 0:
        yield f"{name}: runAsUser 0"
    if context.get("windowsOptions", {}).get("hostProcess"):
        yield f"{name}: hostProcess"
    linux = context.get("seLinuxOptions", {})
    if linux.get("type", "") not in SELINUX_TYPES or linux.get("user") or linux.get("role"):
        yield f"{name}: seLinuxOptions"
    if context.get("appArmorProfile", {}).get("type") == "Unconfined":
        yield f"{name}: appArmorProfile Unconfined"


def _containers(pod: Fields) -> list[Fields]:
    return [container for kind in ("initContainers", "containers", "ephemeralContainers") for container in pod.get(kind, [])]
