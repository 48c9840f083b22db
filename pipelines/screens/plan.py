"""A plan as text for a terminal: what fits, memory, options, time, and every value with its
reason."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from components.shared.documents.plan import AfterPlan, MemoryPlan, Plan, TimePlan
from components.shared.documents.probe import ProbePlan
from components.shared.figures import size_of, time_of, time_range


def plan_screen(plan: Plan) -> RenderableType:
    """Every number a person used to work out by hand, each with its reason."""
    parts: list[RenderableType] = [
        Text(plan.verdict, style="bold"),
        *(Text(f"! {caution}", style="yellow") for caution in plan.cautions),
    ]
    parts += [Text(), _memory_table(plan.memory), Text(), _options_table(plan)]
    if plan.time is not None:
        parts += [Text(), Text(_time_line(plan.time, plan.probe))]
    parts.append(Text(_after_line(plan.after)))
    if plan.probe is not None:
        parts += [Text(), _probe_table(plan.probe), Text(plan.probe.how, style="dim")]
    return Group(*parts, Text(), _values_table(plan))


def _probe_table(probe: ProbePlan) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("probe", no_wrap=True)
    for heading in ("planned", "measured", "difference"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in probe.table:
        table.add_row(*row)
    return table


def _values_table(plan: Plan) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, value, reason in (
        *_model_values(plan),
        *_step_values(plan),
        *_checkpoint_values(plan),
    ):
        why = plan.reasons.get(reason)
        table.add_row(name, Text.assemble(value, ("\n" + why if why else "", "dim")))
    return table


def _model_values(plan: Plan) -> Iterator[tuple[str, str, str]]:
    """Name, value, and the field of the plan whose reason it has."""
    model = plan.model
    size = f"{model.model_type}, {model.num_parameters:,} parameters"
    yield "model", f"{model.source} ({size})", "model.num_parameters"
    yield "trainable parameters", f"{plan.num_trainable:,}", "num_trainable"
    if plan.lora is not None:
        yield "LoRA target modules", ", ".join(plan.lora.target_modules), "lora.target_modules"
        yield "LoRA rank", str(plan.lora.rank), "lora.rank"
        yield "LoRA alpha", f"{plan.lora.alpha:g}", "lora.alpha"
    yield "learning rate", f"{plan.learning_rate:g}", "learning_rate"
    yield "precision", plan.precision, "precision"
    yield "ZeRO", plan.zero.name, "zero"


def _step_values(plan: Plan) -> Iterator[tuple[str, str, str]]:
    steps = plan.steps
    rows = f"{steps.num_rows:,} ({steps.tokens_per_epoch:,} tokens)"
    yield "packed rows" if plan.packed else "rows of one conversation", rows, "steps.num_rows"
    yield "processes", str(steps.num_processes), "steps.num_processes"
    threads = plan.threads_per_process
    yield "threads per process", str(threads or "decided at the start"), "threads_per_process"
    yield "micro-batch size", str(steps.micro_batch), "steps.micro_batch"
    yield "gradient accumulation", str(steps.grad_accum), "steps.grad_accum"
    yield "steps per epoch", f"{steps.steps_per_epoch:,}", "steps.steps_per_epoch"
    yield "total steps", f"{steps.total_steps:,}", "steps.total_steps"
    yield "warm-up steps", str(steps.warmup_steps), "steps.warmup_steps"
    yield "saves at steps", ", ".join(map(str, steps.save_steps)), "steps.save_steps"


def _checkpoint_values(plan: Plan) -> Iterator[tuple[str, str, str]]:
    checkpoints = plan.checkpoints
    yield "size of a checkpoint", size_of(checkpoints.bytes_each), "checkpoints.bytes_each"
    kept = f"{checkpoints.num_kept} ({size_of(checkpoints.bytes_total)})"
    yield "checkpoints kept", kept, "checkpoints.num_kept"
    if checkpoints.saves_on_sigterm:
        saves = "yes"
    else:
        saves = "no"
    yield "checkpoint on SIGTERM", saves, "checkpoints.saves_on_sigterm"


def _time_line(time: TimePlan, probe: ProbePlan | None) -> str:
    if time.price is None:
        price = ""
    else:
        price = f"; price about {time.price_with_currency}"
    in_all = time_range(time.hours * 3600, time.hours_low * 3600, time.hours_high * 3600)
    if probe is None:
        kind = "estimate"
    else:
        kind = "measured"
    return (
        f"{kind}  {time_range(time.seconds_per_step, time.low, time.high)} per step, {in_all} in "
        f"all, {time_of(time.checkpoint_seconds)} to upload a checkpoint{price}"
    )


def _after_line(after: AfterPlan) -> str:
    if after.hours is None:
        took = ""
    else:
        took = f"about {time_of(after.hours * 3600)}, "
    measured = ""
    if after.held_out_rows:
        measured = (
            f", and base and tuned model are measured on {after.held_out_rows:,} held-out rows"
        )
    memory = max(after.export_bytes, after.evaluate_bytes) / 2**30
    return (
        f"then      the export is verified{measured}: {took}{memory:.1f} GiB of host memory, "
        f"{after.cpus} CPU cores"
    )


def _memory_table(memory: MemoryPlan) -> Table:
    """Terms of one GPU, then of the host of one node."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("memory", no_wrap=True)
    table.add_column("GiB", justify="right")
    table.add_column("formula")
    parts = (
        ("GPU", memory.gpu, memory.gpu_bytes, memory.gpu_limit),
        ("host", memory.host, memory.host_bytes, memory.host_limit),
    )
    for where, terms, num_bytes, limit in parts:
        for term in terms:
            table.add_row(
                f"{where}: {term.name}",
                f"{term.num_bytes / 2**30:.2f}",
                Text(term.formula, style="dim"),
            )
        if terms:
            if limit is None:
                of = ""
            else:
                of = f"of {limit / 2**30:.1f} GiB, {memory.margin:.0%} kept free"
            table.add_row(Text(f"{where}: sum", style="bold"), f"{num_bytes / 2**30:.2f}", of)
    return table


def _options_table(plan: Plan) -> Table:
    """Every stage and offload, a bar against the hardware's limit; the plan's own at its
    micro-batch, others at one row."""
    memory, chosen = plan.memory, plan.zero.name
    table = Table(box=None, padding=(0, 2, 0, 0))
    on_gpu = memory.gpu_limit is not None
    if on_gpu:
        limit = memory.gpu_limit
    else:
        limit = memory.host_limit
    sizes = [each.gpu_bytes if on_gpu else each.host_bytes for each in memory.options]
    most = max([*sizes, limit or 0])
    for heading in ("option", "GPU GiB" if on_gpu else "host GiB", "", "cost"):
        table.add_column(heading, no_wrap=heading in ("GPU GiB", "host GiB", ""))
    for each, size in zip(memory.options, sizes, strict=True):
        width, line = round(30 * size / most), round(30 * (limit or 0) / most)
        drawn = "".join(
            "|" if limit and cell == line else "█" if cell < width else " " for cell in range(31)
        )
        name = Text(each.zero.name, style="bold" if each.zero.name == chosen else "")
        if each.zero.name == chosen:
            name.append(f", micro-batch {plan.steps.micro_batch}")
        table.add_row(
            name,
            f"{size / 2**30:.1f}",
            Text(drawn, style="" if each.fits else "red"),
            Text(each.cost, style="dim"),
        )
    return table
