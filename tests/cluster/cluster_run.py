"""Runs on a real cluster: workers in pods, from hagane's images; their launcher in a pod too, or a process of this machine."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml
from kubernetes.client.exceptions import ApiException

from components.shared.job.images import read_images
from components.shared.step import open_run
from components.shared.store.storage import Store, open_store
from pipelines.finetune.compiling import compile_pipeline
from tests.cluster.conftest import TestNamespace, kubectl
from tests.integration.test_pipeline import tiny_spec
from tests.support.command_line import environment, hagane
from tests.support.s3_server import S3Server
from tests.support.tiny_models import write_conversations

CPUS = 0.3
NODE_GIB = 8
EMISSARY = """
import os, signal, subprocess, sys
task = subprocess.Popen(sys.argv[1:], start_new_session=True)
signal.signal(signal.SIGTERM, lambda *_: os.killpg(task.pid, signal.SIGTERM))
sys.exit(task.wait())
"""
"""As Argo starts a task: in a process group of its own, to which it passes signals on."""

LAUNCH = """
import sys
from components.launch_training.__main__ import run_step
run_step(sys.argv[1], train_image=sys.argv[2], kfp_run=sys.argv[3])
"""
KILL = """
import os, pathlib, sys
found = []
for each in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        words = (each / "cmdline").read_bytes().split(b"\\0")
    except (FileNotFoundError, ProcessLookupError):
        continue
    if sys.argv[1].encode() in words and each.name not in ("1", str(os.getpid())):
        found.append(int(each.name))
print(len(found), flush=True)
for pid in found:
    try:
        os.kill(pid, 9)
    except ProcessLookupError:
        pass
os._exit(0)
"""
NOTHING_STAYS_S = 180.0
"""A kubelet that shares two cores with other work takes more than a minute for a pod that was given a second."""


class LocalLauncher:
    """The launcher as a process of this machine, by the kubeconfig: what `hagane run` starts there."""

    def __init__(self, process: "subprocess.Popen[bytes]", printed: Path) -> None:
        self.process, self._printed = process, printed

    @property
    def log(self) -> str:
        return self._printed.read_text(errors="replace")

    @property
    def phases(self) -> list[tuple[str, str]]:
        """Each phase that was told, with its detail."""
        events = [json.loads(line) for line in self.log.splitlines() if line.startswith('{"event":"phase"')]
        return [(event["phase"], event["detail"]) for event in events]

    def wait(self, condition: Callable[[], bool], seconds: float = 240) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, self.log[-6000:]
            time.sleep(0.25)

    def wait_for(self, text: str, seconds: float = 240) -> None:
        def told() -> bool:
            assert text in self.log or self.process.poll() is None, self.log[-6000:]
            return text in self.log

        self.wait(told, seconds)

    def exit_code(self, seconds: float = 300) -> int:
        self.wait(lambda: self.process.poll() is not None, seconds)
        assert self.process.returncode is not None
        return self.process.returncode


class ClusterRun:
    """A tiny run on two pods, its plan finished; the launcher is started as a compiled pipeline's task is."""

    def __init__(
        self, namespace: TestNamespace, claim: dict[str, str], s3: S3Server, folder: Path, *, num_conversations: int = 48, **settings: Any
    ) -> None:
        self.namespace, self.folder = namespace, folder
        self.work = folder / "host-work"
        self.uri = f"{s3.fresh_uri()}/tiny"
        tree = yaml.safe_load(tiny_spec(folder, store=self.uri.rpartition("/")[0], precision="fp32").read_text())
        write_conversations(folder / "train.jsonl", num_conversations, seed=1)
        cluster = {"claims": claim, "cpus": CPUS, "namespace": namespace.name, **settings.pop("cluster", {})}
        training = tree["training"] | settings.pop("training", {})
        hardware = {"num_nodes": 2, "host_memory_gib": NODE_GIB, **settings.pop("hardware", {})}
        tree |= {"backend": "pytorchjob", "hardware": hardware, "cluster": cluster, "training": training} | settings
        self.spec = folder / "spec.yaml"
        self.spec.write_text(yaml.safe_dump(tree))
        for path in folder.rglob("*"):  # the pods' user reads the model; libraries write it for their owner alone
            path.chmod(path.stat().st_mode | (0o755 if path.is_dir() else 0o644))
        for parent in (folder, *folder.parents[:3]):
            parent.chmod(parent.stat().st_mode | 0o055)
        self.step("prepare_dataset", "--spec", str(self.spec))
        self.step("render_config", "--run", self.uri)

    def respecify(self, **settings: Any) -> None:
        """The plan is made again with these sections of the spec in place of its own."""
        self.spec.write_text(yaml.safe_dump(yaml.safe_load(self.spec.read_text()) | settings))
        self.step("prepare_dataset", "--spec", str(self.spec))
        self.step("render_config", "--run", self.uri)

    @property
    def store(self) -> Store:
        return open_store(self.uri)

    def step(self, component: str, *arguments: str) -> None:
        env = environment(self.work) | self.namespace.env
        done = subprocess.run(
            [sys.executable, "-m", f"components.{component}", *arguments], env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    @contextmanager
    def launcher(self, kubeconfig: Path | None = None, *, kfp_run: str = "") -> Iterator[LocalLauncher]:
        """Runs inside the block, at most. `kfp_run`: KFP's id of the run that it is a step of."""
        env = environment(self.work) | self.namespace.env | {"HAGANE_LOG": "json"}
        if kubeconfig is not None:
            env["KUBECONFIG"] = str(kubeconfig)
        printed = self.folder / f"launcher-{len(list(self.folder.glob('launcher-*')))}.log"
        command = [sys.executable, "-W", "ignore", "-c", LAUNCH, self.uri, read_images().of("train"), kfp_run]
        with printed.open("wb") as file:
            process = subprocess.Popen(command, env=env, stdout=file, stderr=subprocess.STDOUT)
        try:
            yield LocalLauncher(process, printed)
        finally:
            process.kill()
            process.wait()

    def wait_until_nothing_is_left(self, selector: str = "training.kubeflow.org/job-name") -> None:
        end = time.monotonic() + NOTHING_STAYS_S
        while self.namespace.jobs() or self.namespace.pods(selector):
            assert time.monotonic() < end, kubectl("-n", self.namespace.name, "get", "pytorchjobs,pods")
            time.sleep(0.5)

    @property
    def losses(self) -> list[tuple[int, float]]:
        """Step and loss, of the finished training."""
        history = json.loads(self.store.read_bytes("checkpoints/history.json"))
        return [(step["step"], step["loss"]) for step in history["steps"]]

    def launch(self, name: str = "launcher", *, spec_digest: str = "") -> None:
        """A pod with the command that the compiled pipeline has for launch_training, as KFP fills it in. `spec_digest`: of the spec that
        it was started for, where that is not the run's."""
        compiled = self.folder / "pipeline.yaml"
        compile_pipeline(compiled)
        pipeline = next(yaml.safe_load_all(compiled.read_text()))
        executor = pipeline["deploymentSpec"]["executors"]["exec-launch-training"]["container"]
        made = pipeline["components"]["comp-launch-training"]["outputDefinitions"]["artifacts"]
        _, spec = open_run(self.uri)
        values = {"run": self.uri, "spec_digest": spec_digest or spec.digest, "plan": "digest"}
        values |= {"train_image": read_images().of("train"), "train_on_gpus": "", "kfp_run": "kfp-run"}
        artifacts = {name: {"name": name, "type": each["artifactType"], "uri": f"/tmp/{name}"} for name, each in made.items()}
        outputs = {
            "parameters": {"Output": {"outputFile": "/tmp/output"}},
            "artifacts": {name: {"artifacts": [each]} for name, each in artifacts.items()},
            "outputFile": "/tmp/executor_output.json",
        }
        handed = json.dumps({"inputs": {"parameterValues": values}, "outputs": outputs})
        arguments = [handed if each == "{{$}}" else each for each in executor["args"]]
        container = {
            "name": "main",
            "image": executor["image"],
            "command": ["python", "-c", EMISSARY, *executor["command"]],
            "args": arguments,
            "env": [{"name": "HAGANE_LOG", "value": "json"}],
            "envFrom": [{"configMapRef": {"name": "hagane"}}, {"secretRef": {"name": "hagane-s3"}}],
            "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "512Mi"}},
            "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
            "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, {"name": "work", "mountPath": "/hagane/work"}],
        }
        pod = {
            "serviceAccountName": "hagane-launcher",
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 30,
            "securityContext": {"runAsNonRoot": True},
            "containers": [container],
            "volumes": [{"name": "tmp", "emptyDir": {}}, {"name": "work", "emptyDir": {}}],
        }
        labels = {"launcher": name}
        metadata = {"name": name, "namespace": self.namespace.name, "labels": labels}
        self.namespace.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod})

    def phase(self, name: str = "launcher") -> str:
        return self.namespace.core.read_namespaced_pod(name, self.namespace.name).status.phase

    def log(self, name: str = "launcher") -> str:
        """Empty before the pod runs and after it is gone."""
        with suppress(ApiException):
            return self.namespace.core.read_namespaced_pod_log(name, self.namespace.name)
        return ""

    def wait(self, condition: Callable[[], bool], seconds: float = 240, launcher: str = "launcher") -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, self.log(launcher)[-6000:]
            time.sleep(0.5)

    def wait_end(self, launcher: str = "launcher", seconds: float = 300) -> str:
        self.wait(lambda: self.phase(launcher) in ("Succeeded", "Failed"), seconds, launcher)
        return self.phase(launcher)

    def status(self) -> str:
        done = hagane("status", self.spec, work=self.work, env=self.namespace.env)
        assert done.exit_code == 0, done.errors
        return done.output

    def phases(self, launcher: str = "launcher") -> list[str]:
        events = [json.loads(line) for line in self.log(launcher).splitlines() if line.startswith('{"event":"phase"')]
        return [event["phase"] for event in events]


def kill_all(namespace: TestNamespace, pod: str, argument: str) -> None:
    """SIGKILL to every process in the pod that has this word on its command line."""
    command = ["kubectl", "-n", namespace.name, "exec", pod, "--", "python", "-c", KILL, argument]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    # The pod's first process ends with what was killed, and the kernel then ends all others in it: the killer too.
    assert done.returncode in (0, 137), done.stderr
    assert int(done.stdout) > 0
