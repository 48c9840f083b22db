"""A run in the stand-in of KFP's server that trains in a real cluster.

The launcher and the exit task are processes of this machine: no KFP is in the cluster. `terminate`
does to them what Argo 4.0 does to pods of a workflow that is terminated: SIGTERM, SIGKILL after the
pod's grace period, then the exit handler, whatever became of the rest.
"""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import yaml

from tests.cluster.cluster_run import ClusterRun, LocalLauncher
from tests.support.command_line import environment
from tests.support.kfp import KfpServer
from tests.support.kfp.runs import add_run

GRACE_S = 30.0
"""terminationGracePeriodSeconds of a pod that names none, as the pipeline's do."""
DONE_BEFORE = ("claim_run", "prepare_dataset", "render_config")
OVERRIDES = {
    "override_run_name": "",
    "override_model": "",
    "override_data": "",
    "override_epochs": 0,
    "override_store": "",
}
CLAIM = """
import json, sys
from components.prepare_dataset.kfp_steps import kfp_claim
spec, overrides = map(json.loads, sys.argv[1:3])
kfp_claim(spec, overrides, kfp_run=sys.argv[3], images="i", skip_if_unchanged=False, notify_when="never")
"""  # noqa: E501
END = """
import json, sys
from components.launch_training.__main__ import kfp_end
spec, overrides = map(json.loads, sys.argv[1:3])
reported = {"notify_when": "never", "state": "RUNNING", "error_message": None}
kfp_end(spec, overrides, kfp_run=sys.argv[3], summary_path=sys.argv[4], **reported)
"""
"""With the state that KFP 2.17 gives to the exit task of a run that was terminated."""


class KfpRun:
    """A run that has come to its training. One run at a time is terminated on a server."""

    def __init__(self, server: KfpServer, run: ClusterRun) -> None:
        self.server, self.run = server, run
        self.spec: dict[str, Any] = yaml.safe_load(run.spec.read_text())
        parameters = {"spec": {"parameterType": "STRUCT"}}
        body = {
            "display_name": run.uri.rpartition("/")[2],
            "pipeline_spec": {"root": {"inputDefinitions": {"parameters": parameters}}},
            "runtime_config": {"parameters": {"spec": self.spec}},
        }
        self.id: str = add_run(server, body)["run_id"]
        self.end_log = ""
        """What the exit task printed."""
        self._launcher: LocalLauncher | None = None
        self._end: threading.Thread | None = None

    @contextmanager
    def training(self) -> Iterator[LocalLauncher]:
        """Inside, the run is claimed and its launcher runs, until the run is terminated."""
        self._task(CLAIM)
        steps: Any = dict.fromkeys(DONE_BEFORE, "SUCCEEDED")
        self.server.advance(self.id, "RUNNING", steps=steps | {"launch_training": "RUNNING"})
        self.server.on_terminate = lambda _: self._terminate()
        with self.run.launcher(kfp_run=self.id) as self._launcher:
            try:
                yield self._launcher
            finally:
                self.server.on_terminate = None
                if self._end is not None:
                    self._end.join()

    def _terminate(self) -> None:
        self._end = threading.Thread(target=self._end_as_argo_does)
        self._end.start()

    def _end_as_argo_does(self) -> None:
        assert self._launcher is not None
        process = self._launcher.process
        process.terminate()
        try:
            process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
        done = self._task(END, str(self.run.folder / "summary.md"), may_fail=True)
        self.end_log = done.stdout + done.stderr
        ended: Any = {"launch_training": "FAILED"}
        ended["end_run"] = "FAILED" if done.returncode else "SUCCEEDED"
        self.server.advance(self.id, "FAILED", steps=ended)

    def _task(
        self, code: str, *more: str, may_fail: bool = False
    ) -> "subprocess.CompletedProcess[str]":
        env = environment(self.run.work) | self.run.namespace.env
        command = [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            code,
            json.dumps(self.spec),
            json.dumps(OVERRIDES),
            self.id,
        ]
        done = subprocess.run(
            [*command, *more], env=env, capture_output=True, text=True, check=False
        )
        assert may_fail or done.returncode == 0, done.stdout + done.stderr
        return done
