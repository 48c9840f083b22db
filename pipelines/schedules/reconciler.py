"""What has to change of the recurring runs in KFP -> done.

KFP's recurring runs cannot be updated (kubeflow/pipelines#3789), only made, deleted, turned on and
off; one that is deleted can take its workflows with it (#7421). So a changed schedule is replaced,
in this order: what the new one is made from is uploaded; the old one is turned off, then looked at
once more for a run that is active; the new one is made turned off; the old one is deleted; the new
one is turned on. Broken off anywhere, at most one of the two starts runs, and the next apply sees
by the marks what is left to do. Refused anywhere by the server, the old one is turned on again
where it is still there, and reported where nothing starts runs any more.
"""

import time
from collections.abc import Callable

from components.shared.errors import KfpError, KfpUnreachable, RunFailed
from pipelines.kfp_api.active_runs import active_runs
from pipelines.kfp_api.client import KfpClient
from pipelines.kfp_api.requests import recurring_run_of
from pipelines.kfp_api.versions import UploadedVersion
from pipelines.schedules.changes import Change, Owned, digest_of
from pipelines.schedules.file import Wanted, WantedSchedules

ORPHAN = "ORPHAN"
"""How a recurring run is deleted: its finished workflows, and with them their logs, stay as long as
KFP keeps any."""
ORPHANS_SINCE = (2, 16)
"""Version of the server that first reads ORPHAN (kubeflow/pipelines#12574); older ones delete the
workflows."""
POLL_S = 5.0


class Reconciler:
    """Does what `changes` found, one after the other. Everything it does is done again by the next
    apply where it broke off."""

    def __init__(
        self,
        kfp: KfpClient,
        wanted: WantedSchedules,
        *,
        ensure: Callable[[], UploadedVersion],
        version: str,
        tell: Callable[[str], None],
    ) -> None:
        """`ensure` uploads the pipeline's version where it is not there; it is called only when
        something is made from it."""
        self._kfp, self._wanted, self._version, self._tell = kfp, wanted, version, tell
        self._ensure = ensure
        self._made_from: tuple[UploadedVersion, str | None] | None = None

    def apply(self, needed: list[Change], *, wait_s: float) -> None:
        """All of it is done.

        Raises:
            KfpError: the server refused or went away; what is done stays done.
            RunFailed: a run of a schedule that has to go is active, and was so for `wait_s`
                seconds; all others are done.
        """
        blocked = self._done_or_blocked(needed)
        deadline_s = time.monotonic() + wait_s
        while blocked and time.monotonic() < deadline_s:
            time.sleep(min(POLL_S, max(0.0, deadline_s - time.monotonic())))
            blocked = self._done_or_blocked([change for change, _ in blocked], again=True)
        if blocked:
            raise RunFailed(
                *(
                    (
                        f"{change.name}: left as it is, since its run {run} is active; apply again "
                        "when it is over, or set --wait-minutes"
                    )
                    for change, run in blocked
                )
            )

    def _done_or_blocked(
        self, needed: list[Change], *, again: bool = False
    ) -> list[tuple[Change, str]]:
        if any(change.kind in ("replace", "remove", "extra") for change in needed):
            active = self._active_runs()
        else:
            active = {}
        blocked: list[tuple[Change, str]] = []
        for change in needed:
            run = self._do(change, active)
            if run is not None:
                blocked.append((change, run))
                if not again:
                    self._tell(f"waits     {change.name}: run {run} is active")
        return blocked

    def _do(self, change: Change, active: dict[str, str]) -> str | None:
        """The change is made; or, with a run of it active, nothing is changed, and the run's id
        returned."""
        reported = change.kind
        match change.kind:
            case "gone from Git":
                self._tell(f"kept      {change.name}: gone from the file; --prune removes it")
                return None
            case "create":
                assert change.wanted is not None
                self._make(change.wanted, enabled=change.wanted.enabled)
            case "enable" | "disable":
                for each in change.old:
                    self._turn(each.id, each.name, on=change.kind == "enable")
            case "replace" | "remove" | "extra":
                run = self._go(change, active)
                if run is not None:
                    return run
        self._tell(f"{reported + 'd' if reported.endswith('e') else reported:9} {change.name}")
        if change.kind == "enable":
            for line in change.lines:
                self._tell(f"{'':9} {line}")
        return None

    def _go(self, change: Change, active: dict[str, str]) -> str | None:
        """The old ones are deleted, after the new one was made where there is one to be; as
        reported on top of this module."""
        run = _active_of(change, active)
        if run is not None:
            return run
        turned_off: list[Owned] = []
        try:
            if change.kind == "replace":
                # what the server refuses of it, it refuses before anything is turned off
                self._source()
            for each in change.old:
                if each.enabled:
                    turned_off.append(each)
                    self._turn(each.id, each.name, on=False)
            run = (
                _active_of(change, self._active_runs()) if turned_off else None
            )  # it may have started one while we looked
            if run is None:
                self._exchange(change)
                return None
            for each in turned_off:
                self._turn(each.id, each.name, on=True)
            return run
        except KfpError as error:
            raise self._undone(change, turned_off, error) from None

    def _exchange(self, change: Change) -> None:
        """The old ones, which are turned off, are gone; the new one is there where there is one to
        be, and turned on if it is to be."""
        self._warn_of_logs(change)
        if change.kind == "replace" and change.wanted is not None:
            made = self._make(change.wanted, enabled=False)
        else:
            made = None
        for each in change.old:
            self._kfp.ask(
                f"delete recurring run of {each.name}",
                self._kfp.recurring_runs.recurring_run_service_delete_recurring_run,
                each.id,
                propagation_policy=ORPHAN,
            )
        if made is not None and change.wanted is not None and change.wanted.enabled:
            self._turn(made, change.name, on=True)

    def _warn_of_logs(self, change: Change) -> None:
        version = self._kfp.health.version
        if version is not None and version < ORPHANS_SINCE:
            tag = self._kfp.health.tag_name
            self._tell(
                f"warning   {change.name}: KFP {tag} deletes its finished workflows and their logs "
                "with it; 2.16 and newer keep them"
            )

    def _undone(self, change: Change, turned_off: list[Owned], error: KfpError) -> KfpError:
        """The error to tell, after what was turned off is on again: with a line more where nothing
        starts the schedule's runs."""
        untouched = [
            each
            for each in (*change.old, change.kept)
            if each is not None and each not in turned_off
        ]
        is_on = any(each.enabled for each in untouched)
        for each in turned_off:
            try:
                self._turn(each.id, each.name, on=True)
                is_on = True
            except KfpError:  # gone, or refused like the rest: reported below
                continue
        if is_on or change.wanted is None or not change.wanted.enabled:
            return error
        if isinstance(error, KfpUnreachable):
            is_off = "may be"
        else:
            is_off = "is"
        left = (
            f"{change.name}: {is_off} turned off now and starts no runs until `hagane schedules "
            "apply` succeeds"
        )
        reported = type(error)(*error.problems, left)
        reported.exit_code = error.exit_code
        return reported

    def _source(self) -> tuple[UploadedVersion, str | None]:
        """What every recurring run is made from: the pipeline's version and the experiment's id,
        both in KFP."""
        if self._made_from is None:
            self._made_from = self._ensure(), self._kfp.experiment_id(self._wanted.experiment)
        return self._made_from

    def _make(self, wanted: Wanted, *, enabled: bool) -> str:
        uploaded, experiment_id = self._source()
        digest = digest_of(wanted, experiment=self._wanted.experiment, version=self._version)
        mark = (
            f"[hagane-schedule owner={self._wanted.owner} name={wanted.name} "
            f"version={self._version} digest={digest}]"
        )
        request = recurring_run_of(
            uploaded,
            name=wanted.name,
            description=(
                "Kept by `hagane schedules apply` as Git has it; a change made here is lost. "
                f"{mark}"
            ),
            experiment_id=experiment_id,
            parameters=wanted.parameters,
            service_account=wanted.service_account,
            cron=wanted.cron,
            concurrency=wanted.concurrency,
            catch_up=wanted.catch_up,
            enabled=enabled,
        )
        create = self._kfp.recurring_runs.recurring_run_service_create_recurring_run
        return self._kfp.ask(
            f"make recurring run {wanted.name!r}", create, request
        ).recurring_run_id

    def _turn(self, recurring_run_id: str, name: str, *, on: bool) -> None:
        service = self._kfp.recurring_runs
        if on:
            call = service.recurring_run_service_enable_recurring_run
        else:
            call = service.recurring_run_service_disable_recurring_run
        self._kfp.ask(
            f"turn {'on' if on else 'off'} recurring run {name!r}", call, recurring_run_id
        )

    def _active_runs(self) -> dict[str, str]:
        """Recurring run -> a run of it that is not over."""
        return {
            run.recurring_run_id: run.run_id
            for run in active_runs(self._kfp)
            if run.recurring_run_id
        }


def _active_of(change: Change, active: dict[str, str]) -> str | None:
    """An active run of one that is to go, by its id."""
    return next((active[each.id] for each in change.old if each.id in active), None)
