"""One job in a cluster, followed to its end by watching: phases, what its pods print, restarts,
deadlines, and who still looks after it."""

import math
import queue
import time
from collections import defaultdict
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from components.launch_training.backends.local import pass_on
from components.launch_training.backends.pod_log import PodLog, read_log, store_log_so_far
from components.launch_training.backends.restarts import NO_RESTARTS, Restarts, Stalled
from components.launch_training.ending.ownership import Owner, end_job
from components.launch_training.job.deadlines import (
    STALL_CLOCK,
    clock_of,
    group_of,
    overdue,
    uploads_s,
)
from components.launch_training.job.events import (
    job_warnings,
    limit_of,
    newest_message,
    why_no_pods,
)
from components.launch_training.job.phases import (
    IS_SET_UP,
    Ended,
    Phase,
    conditions_of,
    ended_badly,
    has_log,
    is_finished,
    is_over,
    life_of,
    name_of,
    pods_of,
    sentence,
)
from components.launch_training.job.workload import QueueWatch, phase_in_queue, queue_of
from components.launch_training.kubernetes_api.client import Cluster
from components.launch_training.kubernetes_api.watch import Seen
from components.shared.documents.plan import Plan
from components.shared.documents.progress import TrainingProgress
from components.shared.errors import ClusterError, PeerLost, RunFailed, StoreError
from components.shared.events import event_of
from components.shared.job.training_job import LEASE_ANNOTATION
from components.shared.spec.cluster import ClusterSpec
from components.shared.step import Log
from components.shared.store.layout import LOGS, PROGRESS
from components.shared.store.storage import Store

Fields = dict[str, Any]
TICK_S = 1.0
LEASE_S = 30.0
"""How often the job is marked as followed; `reap` deletes those that were not for much longer."""
PROGRESS_S = 5.0
API_PATIENCE_S = 600.0
LOGS_END_S = 20.0
LIMIT_S = 3.0
"""How long the event is waited for that says which limit ended a job: it may be heard of after the
job's end."""


def stamp_of_now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class Follower:
    """One job from now to its end: what its pods print is passed on, its phases are reported, its
    deadlines kept."""

    def __init__(
        self,
        cluster: Cluster,
        name: str,
        plan: Plan,
        spec: ClusterSpec,
        store: Store,
        work: Path,
        log: Log,
        *,
        owner: Owner,
        attached: bool,
        restarts: Restarts = NO_RESTARTS,
    ) -> None:
        """`restarts`: those of earlier jobs of this training, which stalled."""
        self._cluster, self._name, self._plan, self._spec, self._owner = (
            cluster,
            name,
            plan,
            spec,
            owner,
        )
        self._store, self._work, self._log = store, work, log
        self._inbox: queue.Queue[tuple[str, str] | None] = queue.Queue()
        self._only_new = attached
        self._begun = attached
        """Whether training has begun since the pods were last started; of a job found again it is
        not known, and taken for true."""
        self._complete = False
        """Whether all pods were there at once since the job was last let go."""
        self._queue_watch = QueueWatch(cluster.kind, is_new=not attached)
        self._without_pods_since = time.monotonic()
        """Since when a job that is not suspended has no pod."""
        self._seen = Seen()
        self._logs: dict[str, PodLog] = {}
        self._lives: dict[str, list[str]] = defaultdict(list)
        """Of each pod's name, since the job was last let go."""
        self._rounds_before = restarts.rounds
        self._rounds_at_last_step = restarts.at_last_step
        self._set_aside: set[str] = set()
        """Pods that a suspension ended: no loss, and no news any more."""
        self._ended: dict[str, Ended] = {}
        """By life."""
        self._phase = Phase("queued")
        self._since = self._last_step = time.monotonic()
        """The latter: since when training has got no further, by a step or by a checkpoint in the
        store."""
        self._failed_since: float | None = None
        self._last_lease = -math.inf
        self._last_progress = 0.0
        self._progress: Fields = {}

    def follow(self) -> None:
        """The job succeeded. Raises RunFailed when it did not, or was given up; ClusterError when
        its queue will never admit it."""
        self._log.info("phase", phase="queued", detail="", job=self._name)
        seen = self._seen = self._cluster.watch(self._name, self._inbox)
        try:
            self._follow(seen)
        finally:
            seen.over = True

    def _follow(self, seen: Seen) -> None:
        started = time.monotonic()
        while True:
            self._take_lines()
            self._look_at_api(seen, started)
            if seen.asked:
                job = seen.job
                if job is None:
                    # and nothing is deleted: by now another launcher may have made a job of this
                    # name
                    self._end_logs()
                    raise RunFailed(
                        f"training: job {self._name} is gone: someone else deleted it",
                        self._where_logs_are(),
                    )
                if self._cluster.kind.is_suspended(job):
                    self._set_pods_aside(seen.pods)
                    self._look_at_queue(job, seen)
                else:
                    self._take_pods_back(seen.pods)
                pods = self._own_pods(job, seen.pods)
                self._look_at_pods(pods, self._own_pods(job, seen.ended | seen.pods))
                warnings = job_warnings(self._cluster.kind, job, pods, seen.events)
                phase = self._phase_now(job, pods, seen, warnings)
                if phase.name == "failed" and self._may_hear_of_a_limit(job, warnings):
                    continue
                self._tell(phase)
                self._look_at_refusals(job, pods, warnings)
                if phase.name == "succeeded":
                    self._end_logs()
                    return
                if phase.name == "failed":
                    self._end_logs()
                    raise RunFailed(*self._problems(pods, phase.detail))
                self._look_at_deadlines(phase)
                self._look_at_restarts()
                self._renew()

    def _take_lines(self) -> None:
        """What came since the last look; waits up to TICK_S for the first."""
        timeout = TICK_S
        with suppress(queue.Empty):
            while True:
                item = self._inbox.get(timeout=timeout)
                timeout = 0.0001
                if item is not None:
                    self._take_line(*item)

    def _take_line(self, uid: str, line: str) -> None:
        pod, event = self._logs[uid], event_of(line)
        if event is None:
            pod.lines.append(line)
            print(f"[{pod.name}] {line}", flush=True)
            return
        if event["event"] == "failed":
            pod.problems = list(event["problems"])
            return
        if event["event"] in ("progress", "held_out"):
            self._begun = True
        if event["event"] in ("progress", "held_out", "checkpoint", "waiting_for_uploads"):
            self._last_step = time.monotonic()
        if event["event"] == "progress":
            self._rounds_at_last_step = self._rounds
            self._progress = {
                key: event.get(key)
                for key in ("done", "total", "epoch", "loss", "tokens_s", "left_s")
            }
        pass_on(event, self._log)

    def _look_at_api(self, seen: Seen, started: float) -> None:
        if seen.asked:
            silent_since = seen.unheard_since
        else:
            silent_since = started
        if silent_since is not None and time.monotonic() - silent_since > API_PATIENCE_S:
            self._end_logs()
            raise RunFailed(
                f"cluster: the API server has not answered for {API_PATIENCE_S / 60:.0f} minutes; "
                f"job {self._name} is left to itself, the same command finds it again"
            )

    @property
    def _rounds(self) -> int:
        """How often the pods were started anew after a loss."""
        return (
            self._rounds_before + max((len(lives) for lives in self._lives.values()), default=1) - 1
        )

    def _set_pods_aside(self, pods: dict[str, Fields]) -> None:
        """A queue took the job's pods away, or has not let it go yet: the next ones are no
        restart."""
        self._rounds_before = self._rounds
        self._lives.clear()
        self._set_aside |= set(pods)
        self._begun = self._only_new = self._complete = False

    def _take_pods_back(self, pods: dict[str, Fields]) -> None:
        """A job that was let go may be heard of after its new pods, which then were set aside:
        those that stay are its own."""
        self._set_aside -= {
            uid for uid, pod in pods.items() if "deletionTimestamp" not in pod["metadata"]
        }
        self._queue_watch.was_let_go()

    def _look_at_queue(self, job: Fields, seen: Seen) -> None:
        """Raises ClusterError when waiting cannot help; the job is deleted first."""
        queue = queue_of(job)
        if queue is None:
            return
        problem = self._queue_watch.why_never(queue, seen.queueing, now_s=time.monotonic())
        if problem is not None:
            raise ClusterError(problem, self._end_job())

    def _look_at_refusals(self, job: Fields, pods: list[Fields], warnings: list[Fields]) -> None:
        """Raises ClusterError when what the job is made of is refused; the job is deleted first."""
        kind = self._cluster.kind
        if pods or self._lives or kind.is_suspended(job) or is_finished(kind, job):
            self._without_pods_since = time.monotonic()
            return
        problem = why_no_pods(warnings, waited_s=time.monotonic() - self._without_pods_since)
        if problem is not None:
            raise ClusterError(problem, self._end_job())

    def _phase_now(
        self, job: Fields, pods: list[Fields], seen: Seen, warnings: list[Fields]
    ) -> Phase:
        """Where the job stands, with the cluster's own reason while pods are missing or not set
        up."""
        kind = self._cluster.kind
        phase = phase_in_queue(
            kind, job, pods, seen.queueing, begun=self._begun, complete=self._complete
        )
        alive = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
        self._complete |= len(alive) >= kind.num_pods(job)
        if phase.name == "failed":
            limit = limit_of(conditions_of(job)["Failed"], warnings)
            return Phase("failed", f"{phase.detail} ({limit})" if limit else phase.detail)
        if kind.is_suspended(job):
            return phase
        if phase.name in ("queued", "admitted"):
            return Phase(phase.name, newest_message(warnings) or phase.detail)
        if phase.name == "starting" and self._rounds > self._rounds_before:
            return Phase("restarting", phase.detail)
        of_pods = [each for each in warnings if each["involvedObject"].get("kind") == "Pod"]
        if phase.detail.endswith(IS_SET_UP) and of_pods:
            return Phase(phase.name, f"{phase.detail}: {newest_message(of_pods)}")
        return phase

    def _may_hear_of_a_limit(self, job: Fields, warnings: list[Fields]) -> bool:
        """Whether the event that says which limit ended the job may still come: of a TrainJob it is
        its Job's, another object's."""
        if len(self._cluster.kind.makers(self._name)) == 1 or limit_of(
            conditions_of(job)["Failed"], warnings
        ):
            return False
        self._failed_since = self._failed_since or time.monotonic()
        return time.monotonic() - self._failed_since < LIMIT_S

    def _own_pods(self, job: Fields, pods: dict[str, Fields]) -> list[Fields]:
        return [
            pod
            for pod in pods_of(job, list(pods.values()))
            if pod["metadata"]["uid"] not in self._set_aside
        ]

    def _look_at_pods(self, pods: list[Fields], with_those_gone: list[Fields]) -> None:
        """Logs, restarts, and how pods ended, those included that were gone before this look."""
        rounds, kind = self._rounds, self._cluster.kind
        for pod in sorted(pods, key=lambda each: each["metadata"]["creationTimestamp"]):
            uid, name, life = pod["metadata"]["uid"], name_of(kind, pod), life_of(kind, pod)
            if life not in self._lives[name]:
                self._lives[name].append(life)
            if uid not in self._logs and has_log(kind, pod):
                self._begin_log(pod)
        if self._rounds > rounds:
            self._begun = False
            self._only_new = False
            self._log.info("restarted", job=self._name, times=self._rounds)
        for ended in ended_badly(kind, with_those_gone):
            if ended.life not in self._ended:
                self._ended[ended.life] = ended
                self._log.warning(
                    "pod_ended", pod=ended.pod, exit_code=ended.exit_code, reason=ended.reason
                )
                if ended.out_of_memory:
                    self._give_up(sentence(ended, self._plan, []))
                if ended.final and not kind.judges_exit_codes:
                    left = self._end_job()
                    raise RunFailed(*self._problems(pods, ""), left)

    def _begin_log(self, pod: Fields) -> None:
        uid, name, kind = pod["metadata"]["uid"], pod["metadata"]["name"], self._cluster.kind
        file = self._work / LOGS / f"{name}-{uid[:8]}.log"
        only_new = self._only_new

        def ended() -> bool:
            now = self._seen.pods.get(
                uid
            )  # asked by the log's own thread, when nothing else may be followed any more
            return self._seen.over or now is None or is_over(kind, now)

        lines = self._cluster.follow_log(name, ended=ended, only_new=only_new)
        self._logs[uid] = read_log(
            name_of(kind, pod),
            lines,
            file,
            self._store,
            lambda line: self._inbox.put((uid, line)),
            only_new=only_new,
        )

    def _tell(self, phase: Phase) -> None:
        if phase != self._phase:
            if group_of(self._phase) != group_of(phase):
                self._since = self._last_step = time.monotonic()
            self._phase = phase
            self._log.info("phase", phase=phase.name, detail=phase.detail, job=self._name)
            self._last_progress = 0.0
        if time.monotonic() - self._last_progress >= PROGRESS_S:
            self._last_progress = time.monotonic()
            with suppress(StoreError, ValueError):  # it is for people alone
                self._store.write_bytes(PROGRESS, self._progress_of(phase).to_bytes())

    def _progress_of(self, phase: Phase) -> TrainingProgress:
        """Raises ValueError where a pod's line of progress is none of ours."""
        return TrainingProgress(
            job=self._name,
            namespace=self._cluster.namespace,
            phase=phase.name,
            detail=phase.detail,
            restarts=self._rounds,
            at=stamp_of_now(),
            **self._progress,
        )

    @property
    def restarts(self) -> Restarts:
        return Restarts(self._rounds, self._rounds_at_last_step)

    def _look_at_deadlines(self, phase: Phase) -> None:
        """Raises Stalled when training made no step for too long and restarts are left: a hung GPU
        or network of a node raises no error."""
        now = time.monotonic()
        problem = overdue(
            phase,
            self._spec,
            waited_s=now - self._since,
            idle_s=now - self._last_step,
            uploads_s=uploads_s(self._plan),
        )
        if problem is None:
            return
        if (
            clock_of(phase) == STALL_CLOCK
            and self.restarts.and_one_more().too_many(self._spec) is None
        ):
            raise Stalled(problem, self._end_job())
        self._give_up(problem)

    def _look_at_restarts(self) -> None:
        too_many = self.restarts.too_many(self._spec)
        if too_many is not None:
            self._give_up(*self._problems([], f"training: {too_many}"))

    def _renew(self) -> None:
        if time.monotonic() - self._last_lease >= LEASE_S:
            self._last_lease = time.monotonic()
            self._cluster.annotate(self._name, {LEASE_ANNOTATION: stamp_of_now()})

    def _give_up(self, *problems: str) -> NoReturn:
        """Raises RunFailed; the job is deleted first, so that it holds nothing, if it is this run's
        to end."""
        raise RunFailed(*problems, self._end_job())

    def _end_job(self) -> str:
        """The job is deleted, if it is this run's to end; returns what is left, for whoever reads
        why."""
        left = end_job(self._cluster, self._name, self._owner, self._log)
        self._end_logs()
        return f"{left}; {self._where_logs_are()}"

    def _where_logs_are(self) -> str:
        return f"what its pods printed is in {self._store.uri}/{LOGS}/"

    def _end_logs(self) -> None:
        """All that was printed is taken and stored; of pods that have not ended after LOGS_END_S,
        what they printed by then."""
        end = time.monotonic() + LOGS_END_S
        while any(pod.thread.is_alive() for pod in self._logs.values()) and time.monotonic() < end:
            self._take_lines()
        self._take_lines()
        self.store_open_logs()

    def store_open_logs(self) -> None:
        """What pods that are still running have printed is stored; that of the others is
        already."""
        for pod in self._logs.values():
            if pod.thread.is_alive():
                store_log_so_far(pod, self._store)

    def _problems(self, pods: list[Fields], otherwise: str) -> list[str]:
        """What ended the job: what its processes said themselves, else how the first pod to fail
        ended. A lost peer is no cause."""
        ended = list({each.uid: each for each in self._ended.values()}.values())
        uids = {pod["metadata"]["uid"] for pod in pods}
        last = [each for each in ended if each.uid in uids] or ended
        causes = [each for each in last if each.exit_code != PeerLost.exit_code] or last
        said = [
            line
            for each in last
            for line in (self._logs[each.uid].problems if each.uid in self._logs else [])
        ]
        if otherwise:
            more = [
                otherwise
                if otherwise.startswith("training: ")
                else f"training: job {self._name} failed: {otherwise}"
            ]
        else:
            more = []
        if said:
            return [*dict.fromkeys(said), *more]
        if not causes:
            return more or [f"training: job {self._name} failed"]
        if causes[0].uid in self._logs:
            lines = self._logs[causes[0].uid].lines
        else:
            lines = ()
        return [sentence(causes[0], self._plan, list(lines)), *more]
