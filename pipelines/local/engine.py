"""docker or podman, whichever answers on this machine -> its Docker API, for `--runner docker` and for what looks into images."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from components.shared.errors import HaganeError
from components.shared.processes import end_with_parent

ENGINES = ("docker", "podman")
SOCKET_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Engine:
    program: str
    """`docker` or `podman`: the two take the same words for all that is asked of them here."""

    def output(self, *words: str) -> str:
        """What a command printed. Raises CalledProcessError; its stderr goes to ours."""
        return subprocess.run([self.program, *words], stdout=subprocess.PIPE, text=True, check=True).stdout

    def has_image(self, name: str) -> bool:
        return subprocess.run([self.program, "image", "inspect", name], capture_output=True, check=False).returncode == 0


def find_engine() -> Engine:
    """The first that is installed and answers: docker's client alone, without a daemon, does not.

    `$HAGANE_ENGINE` names one and rules the other out.

    Raises:
        HaganeError: none does.
    """
    named = os.environ.get("HAGANE_ENGINE")
    if named and named not in ENGINES:
        raise HaganeError(f"HAGANE_ENGINE: got {named!r}, must be one of {', '.join(ENGINES)}")
    silent: list[str] = []
    for program in (named,) if named else ENGINES:
        if shutil.which(program) is None:
            silent.append(f"{program} is not on PATH")
        elif subprocess.run([program, "info"], capture_output=True, check=False).returncode != 0:
            silent.append(f"`{program} info` fails")
        else:
            return Engine(program)
    raise HaganeError(f"containers: found neither docker nor podman at work ({'; '.join(silent)}); install or start one of them")


@contextmanager
def docker_api(engine: Engine) -> Iterator[str]:
    """The address of the engine's Docker API, as DOCKER_HOST takes it. Podman serves it only while the block lasts.

    Raises:
        HaganeError: podman's service did not come up.
    """
    if engine.program == "docker":
        yield os.environ.get("DOCKER_HOST") or engine.output("context", "inspect", "--format", "{{.Endpoints.docker.Host}}").strip()
        return
    with tempfile.TemporaryDirectory(prefix="hagane-podman-") as folder:
        socket = Path(folder) / "podman.sock"
        service = subprocess.Popen(
            ["podman", "system", "service", "--time=0", f"unix://{socket}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for us: the containers are removed through it
            preexec_fn=end_with_parent,  # noqa: PLW1509 - one prctl call, and this process has no other threads
        )
        try:
            _wait_for_socket(service, socket)
            yield f"unix://{socket}"
        finally:
            service.terminate()
            service.communicate()


def _wait_for_socket(service: subprocess.Popen[str], socket: Path) -> None:
    deadline_s = time.monotonic() + SOCKET_TIMEOUT_S
    while not socket.exists():
        if service.poll() is not None:
            last = service.communicate()[1].strip().splitlines()[-1:] or [f"exit code {service.returncode}"]
            raise HaganeError(f"containers: podman's service ended: {last[0]}; try `podman system service` by hand")
        if time.monotonic() > deadline_s:
            raise HaganeError(
                f"containers: podman's service made no socket in {SOCKET_TIMEOUT_S:.0f} s; try `podman system service` by hand"
            )
        time.sleep(0.05)
