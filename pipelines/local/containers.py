"""What a spec's containers are given on this machine: user, file system, network, environment; and
what stands against it.

The root file system is read-only, no capability is kept; `/tmp` and `/hagane`, a volume that goes
with the container, can be written. Files that the spec names are mounted read-only at their own
paths, so that one spec means the same everywhere.
"""

import codecs
import hashlib
import os
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import docker
import docker.errors
from docker.types import Mount

from components.shared.job.images import Images
from components.shared.machine import user_path
from components.shared.spec.run_spec import RunSpec
from components.shared.store.writer import OWNER_VARIABLE
from pipelines.local.engine import Engine

DEFAULT_UID = 65532
"""`nonroot` of distroless images and the USER of ours; Kubernetes' runAsNonRoot wants a number."""
GROUP = 0
"""OpenShift's: its uids are arbitrary, the group is always this one."""
WORK = "/hagane"
"""HOME of the images; holds HAGANE_WORK and HF_HOME."""
LABEL = "hagane.run"
STOP_S = 10
"""Between SIGTERM and SIGKILL, beside the grace in which training stores a checkpoint."""
HANDED_ON = (
    *(
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
    ),
    *("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_EC2_METADATA_DISABLED"),
    OWNER_VARIABLE,
    *(
        "HF_TOKEN",
        "HF_ENDPOINT",
        "HF_HUB_OFFLINE",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "http_proxy",
        "https_proxy",
        "no_proxy",
    ),
)
FILES_HANDED_ON = ("AWS_CA_BUNDLE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
"""Certificates of a site: a variable that names a file is handed on together with the file."""


@dataclass(frozen=True)
class ContainerSettings:
    """Of all containers of a run, in the words of the Docker API for Python."""

    run_uri: str
    user: str
    environment: dict[str, str]
    read_only_paths: tuple[Path, ...]
    network: str
    folder: Path
    """Where the spec's relative paths begin: the one `hagane` was called in."""
    stop_s: int
    """Between SIGTERM and SIGKILL."""

    def run_arguments(self) -> dict[str, Any]:
        mounts = [
            Mount(WORK, None, type="volume"),
            Mount(f"{WORK}/hub", f"hagane-hub-{self.user.partition(':')[0]}", type="volume"),
        ]
        mounts += [
            Mount(str(_inside(path)), str(_outside(path)), type="bind", read_only=True)
            for path in self.read_only_paths
        ]
        return {
            "user": self.user,
            "read_only": True,
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges"],
            # the containers' own
            "tmpfs": {"/tmp": "mode=1777", str(self.folder): "mode=0755,size=1m"},  # noqa: S108
            "mounts": mounts,
            "working_dir": str(self.folder),
            "network_mode": self.network,
            "environment": self.environment,
            "labels": {LABEL: label_of(self.run_uri)},
        }


def container_settings(spec: RunSpec, *, uid: int) -> ContainerSettings:
    """The settings for this spec, from this process's environment and folder."""
    files = {name: os.environ[name] for name in FILES_HANDED_ON if os.environ.get(name)}
    environment = (
        {name: os.environ[name] for name in HANDED_ON if name in os.environ}
        | files
        | {"HAGANE_LOG": "json"}
    )
    environment["TMPDIR"] = WORK  # a volume; /tmp is in memory
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    # A store of this machine alone, such as the demo's, can be reached only in this machine's own
    # network.
    if urlsplit(endpoint).hostname in ("127.0.0.1", "localhost", "::1"):
        network = "host"
    else:
        network = "bridge"
    paths = tuple(dict.fromkeys(Path(path) for path in [*_files_of(spec), *files.values()]))
    stop_s = spec.checkpoints.grace_seconds + STOP_S
    return ContainerSettings(
        spec.run_uri, f"{uid}:{GROUP}", environment, paths, network, Path.cwd(), stop_s
    )


def container_problems(spec: RunSpec, images: Images, engine: Engine, *, uid: int) -> list[str]:
    """One line for each thing that keeps this spec from running in containers here."""
    problems: list[str] = []
    if "://" not in spec.store:
        problems.append(
            f"store: got folder {spec.store!r}, but containers share no folder with each other; "
            "must be s3://bucket/prefix"
        )
    if uid == 0:
        problems.append(
            "--user: got 0, but nothing here runs as root; must be another uid, or leave it out"
        )
    elif os.getuid() not in (0, uid):
        problems.append(
            f"--user: got {uid}, but what it writes could not be removed by uid {os.getuid()}; "
            "only root may choose another"
        )
    if spec.hardware.names_gpu:
        problems.append(
            "hardware: names a GPU, but --runner docker hands none to its containers; leave "
            "--runner out, or the GPU"
        )
    for path in _files_of(spec):
        if (first := unreadable(user_path(path), uid)) is not None:
            problems.append(
                f"{first}: user {uid} of the containers cannot read it; run `chmod -R a+rX "
                f"{path}`, or set --user"
            )
    for name in sorted({images.of(component) for component in images.components}):
        if not engine.has_image(name) and (why := pull_problem(name, engine)) is not None:
            problems.append(f"image {name}: {why}")
    return problems


def pull_problem(name: str, engine: Engine) -> str | None:
    """Why an image could not be pulled; None when it is here now."""
    if name.startswith("localhost/"):
        return "is not on this machine; run `make images`"
    done = subprocess.run(
        [engine.program, "pull", name], capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        return None
    return f"cannot be pulled: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}"


def unreadable(path: Path, uid: int) -> Path | None:
    """The first file or folder at or below `path` that a container's user may not read; None if
    there is none."""
    for found in (path, *sorted(path.rglob("*"))):
        status = found.stat()
        if status.st_uid == uid:
            shift = 6
        elif status.st_gid == GROUP:
            shift = 3
        else:
            shift = 0
        if found.is_dir():
            wanted = 0o5
        else:
            wanted = 0o4
        if (status.st_mode >> shift) & wanted != wanted:
            return found
    return None


def run_container(
    client: docker.DockerClient,
    image: str,
    command: list[str],
    arguments: dict[str, Any],
    *,
    write: Callable[[str], object],
) -> int:
    """The container ran to its end and is gone; what it printed was written as it came. Returns its
    exit code."""
    container = client.containers.run(image, command, detach=True, **arguments)
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    try:
        for part in container.logs(stream=True, follow=True):
            write(decoder.decode(part))
        return int(container.wait()["StatusCode"])
    finally:
        with suppress(docker.errors.NotFound):
            container.remove(force=True, v=True)


def remove_containers(client: docker.DockerClient, run_uri: str, *, stop_s: int) -> None:
    """No container of this run is left, of this process or of an earlier one that was killed; all
    have the same seconds to end."""
    left = client.containers.list(all=True, filters={"label": f"{LABEL}={label_of(run_uri)}"})
    deadline_s = time.monotonic() + stop_s
    for container in left:
        with suppress(docker.errors.APIError):  # it ended meanwhile
            container.kill("SIGTERM")
    for container in left:
        with suppress(docker.errors.NotFound):
            container.stop(timeout=max(0, round(deadline_s - time.monotonic())))
            container.remove(force=True, v=True)


def default_uid() -> int:
    """One's own, so that files belong to who started the run; never root's."""
    return os.getuid() or DEFAULT_UID


def label_of(run_uri: str) -> str:
    return hashlib.sha256(run_uri.encode()).hexdigest()[:16]


def _files_of(spec: RunSpec) -> list[str]:
    """Every path of the spec that is there: of a hub id, none is."""
    sources = (*spec.data.train_sources, *spec.data.held_out_sources)
    named = [*(source.path for source in sources), spec.data.chat_template, spec.model.source]
    return [path for path in named if user_path(path).exists()]


def _inside(path: Path) -> Path:
    """Where a step in a container looks for it; `~` is another folder there."""
    if path.parts[:1] == ("~",):
        return Path(WORK, *path.parts[1:])
    return path.absolute()


def _outside(path: Path) -> Path:
    return user_path(path).absolute()
