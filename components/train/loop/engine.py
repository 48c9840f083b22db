"""DeepSpeed's engine, where it differs from plain training: a step too many, a norm forgotten, the
same dropout everywhere."""

import importlib
from collections.abc import Callable
from typing import Any

import torch
from deepspeed.runtime import compiler
from deepspeed.runtime.fp16.unfused_optimizer import FP16_UnfusedOptimizer
from deepspeed.runtime.utils import clip_grad_norm_
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from components.shared.step import Log


def build_without_a_step() -> None:
    """DeepSpeed 0.19's optimizer for bf16 without ZeRO no longer makes a step with zero gradients
    while it is built.

    That step moves Adam's bias correction one step ahead (first updates 0.744, 0.858, 0.916 of
    AdamW's) and decays the weights once. Adam makes its state at the first real step, or takes it
    from a checkpoint. Upstream: deepspeedai/DeepSpeed#5104.
    """
    FP16_UnfusedOptimizer.initialize_optimizer_states = lambda self: None


def leave_muon_uncompiled() -> None:
    """Building an engine no longer imports torch's inductor, which takes longer than all else of
    it.

    DeepSpeed 0.19 imports its Muon optimizer for every engine (zero/utils.py,
    is_zero_supported_optimizer), and that has `torch.compile` make its functions
    (original_muon.py). hagane trains with AdamW: they are never called.
    """
    made = getattr(compiler, "compile", None)
    compiler.compile = lambda: lambda function: function
    try:
        importlib.import_module("deepspeed.runtime.zero.muon.muon_optimizer")
    except ImportError:
        return  # another version of DeepSpeed: its engine imports what it needs
    finally:
        if made is not None:
            compiler.compile = made


def report_gradient_norm(engine: Any) -> None:
    """The engine knows the norm of the gradient in fp32 without ZeRO too, where DeepSpeed 0.19
    clips and forgets it."""

    def clip() -> None:
        parameters, most = engine.module.parameters(), engine.gradient_clipping()
        engine._global_grad_norm = clip_grad_norm_(
            parameters=parameters, max_norm=most, mpu=engine.mpu
        )

    engine.clip_fp32_gradients = clip


class EngineSetup(TrainerCallback):
    """When training begins, the engine reports its gradient norm and each process draws its own
    dropout.

    A resumed process takes its generators' states from the checkpoint instead, right before its
    first step.
    """

    def __init__(self, engine: Callable[[], Any], *, seed: int) -> None:
        self._engine = engine
        self._seed = seed

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        report_gradient_norm(self._engine())
        # Process 0 keeps the stream it has, so that training in one process is the same with and
        # without this.
        if args.process_index:
            torch.manual_seed(self._seed + args.process_index)


class SkippedSteps(TrainerCallback):
    """A warning for each step that fp16 skips since the scaled gradient overflowed: it counts as a
    step, and changes no weight."""

    def __init__(self, engine: Callable[[], Any], log: Log) -> None:
        self._engine = engine
        self._log = log
        self._seen = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._seen = self._engine().skipped_steps

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        skipped = self._engine().skipped_steps
        if skipped > self._seen and state.is_world_process_zero:
            self._log.warning(
                "step_skipped",
                step=state.global_step,
                reason="fp16 gradient overflowed",
                skipped_so_far=skipped,
            )
        self._seen = skipped
