"""At each step boundary: whether all processes save, stop or go on."""

import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

import torch.distributed as dist
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from components.shared.documents.plan import Plan
from components.shared.errors import Preempted, RunFailed
from components.shared.spec.results import CheckpointSpec
from components.shared.step import Log
from components.train.agreement import Agreement
from components.train.checkpoints.saving import CheckpointSaver
from components.train.loop.finite import StepFault, fault_line, step_fault_text


class Sigterm:
    """Remembers that SIGTERM came, from now on. The kernel ends the process should it still be
    there when the grace is over."""

    def __init__(self, grace_seconds: int) -> None:
        self.received = False
        self._grace_seconds = grace_seconds
        signal.signal(signal.SIGTERM, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if not self.received:
            self.received = True
            signal.alarm(max(1, self._grace_seconds))


class StepBoundary(TrainerCallback):
    """Saves between epochs when SIGTERM came or enough minutes went by; tells a save that failed,
    and stops if the spec says so.

    Raises, in all processes at once:
        Preempted: after SIGTERM, when the checkpoint is in the store.
        RunFailed: a step's loss or gradient is not finite; or a save failed and
            `checkpoints.on_failure` is stop.
    """

    def __init__(
        self,
        saver: CheckpointSaver,
        plan: Plan,
        spec: CheckpointSpec,
        *,
        sigterm: Sigterm | None,
        agreement: Agreement,
        log: Log,
        fault: Callable[[], StepFault | None],
        last_good: Callable[[], str | None],
    ) -> None:
        """`fault` is what this process found wrong with the last step, `last_good` names the newest
        committed checkpoint."""
        self._saver = saver
        self._fault = fault
        self._last_good = last_good
        self._plan = plan
        self._spec = spec
        self._sigterm = sigterm
        self._agreement = agreement
        self._log = log
        self._last_save = time.monotonic()
        self._saved_step = 0
        self._leaving = False

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._tell_held(state)
        received = self._sigterm is not None and self._sigterm.received
        fault, has_problem = self._fault(), self._saver.problem is not None
        flags = self._agreement.anywhere(
            received, self._is_due(args), has_problem, fault is not None
        )
        self._leaving, due, failed, faulty = flags
        if faulty:
            self._stop_for(fault, state)
        if failed:
            self._tell_failure()
        if (self._leaving or due) and state.global_step not in self._plan.steps.save_steps:
            control.should_save = True

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._last_save, self._saved_step = time.monotonic(), state.global_step
        if self._leaving:
            self.finish(state)
            raise Preempted(f"training: stopped by SIGTERM after step {state.global_step}")

    def finish(self, state: TrainerState) -> None:
        """All uploads have ended, well or not. Raises RunFailed as the class says, if the last of
        them failed."""
        self._saver.finish(self._log if state.is_world_process_zero else None)
        self._tell_held(state)
        if self._agreement.anywhere(self._saver.problem is not None) == (True,):
            self._tell_failure()

    def _stop_for(self, fault: StepFault | None, state: TrainerState) -> NoReturn:
        faults = self._agreement.of_all(fault)
        self.stop(
            step_fault_text(state.global_step, [each for each in faults if each is not None]), state
        )

    def stop(self, what: str, state: TrainerState) -> NoReturn:
        """Raises RunFailed, in all processes with the same line, when what was saved before is in
        the store. All must call this."""
        self._saver.finish(self._log if state.is_world_process_zero else None)
        # every upload has finished: the checkpoint is committed, or is none
        self._agreement.wait_for_all()
        if state.is_world_process_zero:
            line = fault_line(what, self._last_good())
        else:
            line = ""
        raise RunFailed(self._agreement.from_first(line))

    def _is_due(self, args: TrainingArguments) -> bool:
        minutes = self._spec.every_minutes
        return (
            minutes is not None
            and args.process_index == 0
            and time.monotonic() - self._last_save >= 60 * minutes
        )

    def _tell_failure(self) -> None:
        problem = self._saver.problem
        if self._spec.on_failure == "stop":
            # Others say nothing: the one that failed knows why.
            raise RunFailed(*([problem] if problem else []))
        if problem is not None:
            self._log.warning("checkpoint_failed", process_rank=dist.get_rank(), problem=problem)
            self._saver.forget_problem()

    def _tell_held(self, state: TrainerState) -> None:
        if self._saved_step:
            held_s = self._saver.take_held_s()
            state.log_history.append({"save_s": round(held_s, 4), "step": self._saved_step})
            if state.is_world_process_zero:
                self._log.info("training_held", step=self._saved_step, seconds=round(held_s, 4))
            self._saved_step = 0
