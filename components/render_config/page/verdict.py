"""A plan -> what fits where and how long it takes, in one sentence."""

from components.render_config.choose.zero_options import gib
from components.shared.documents.plan import HardwarePlan, MemoryPlan, Plan, TimePlan
from components.shared.figures import plural, time_range


def verdict(plan: Plan) -> str:
    if plan.method == "lora":
        what = "LoRA"
    else:
        what = "Full training"
    name = plan.model.source.rstrip("/").rsplit("/", 1)[-1]
    size = model_size(plan.model.num_parameters)
    return (
        f"{what} of {name} ({size}) fits {_devices(plan.hardware)} with {plan.zero.name}, "
        f"micro-batch {plan.steps.micro_batch}: {_fill(plan.memory)}; "
        f"{plural(plan.steps.total_steps, 'step')}{_time(plan.time)}"
    )


def model_size(num_parameters: int) -> str:
    """`6.74B`, `135M` as names of models say it; below a million the number."""
    if num_parameters >= 1e9:
        return f"{num_parameters / 1e9:.2f}B"
    if num_parameters >= 1e6:
        return f"{num_parameters / 1e6:.0f}M"
    return f"{num_parameters:,} parameters"


def _time(time: TimePlan | None) -> str:
    """Empty where nothing is known of the time."""
    if time is None:
        return ""
    return f", in about {_hours(time)}{_price(time)}"


def _devices(hardware: HardwarePlan) -> str:
    count = hardware.num_nodes * hardware.processes_per_node
    if hardware.gpu is not None:
        return f"{count} x {hardware.gpu}"
    return f"{count} CPU process" + ("es" if count != 1 else "")


def _fill(memory: MemoryPlan) -> str:
    """What is used of GPU and host, and of how much where that is known."""
    of_host = gib(memory.host_bytes)
    if memory.host_limit is not None:
        of_host += f" of {gib(memory.host_limit)}"
    fill = f"{of_host} of host memory per node"
    if memory.gpu_limit is not None:
        fill = f"{gib(memory.gpu_bytes)} of {gib(memory.gpu_limit)} per GPU, {fill}"
    return fill


def _hours(time: TimePlan) -> str:
    return time_range(time.hours * 3600, time.hours_low * 3600, time.hours_high * 3600)


def _price(time: TimePlan) -> str:
    if time.price is None:
        return ""
    return f", for about {time.price_with_currency}"
