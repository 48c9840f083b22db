"""`hardware` and `zero` of the spec: what trains, and how the model is divided over it."""

from typing import Literal, Self

from pydantic import Field, model_validator

from components.shared.documents.fields import FrozenModel, Number


def auto_zero(value: object) -> object:
    """`zero: auto` stands for a section without fields."""
    if value == "auto":
        return {}
    return value


class ZeroSpec(FrozenModel):
    """`zero: auto` leaves all three open: the plan takes the first that fits the hardware, in the
    order in which they slow training."""

    stage: Literal["auto", 0, 1, 2, 3] = "auto"
    """DeepSpeed ZeRO stage: what is divided among processes. 0 nothing, 1 optimizer state, 2 also
    gradients, 3 also parameters. fp16 needs 1 or higher."""
    offload_optimizer: Literal["auto", "none", "cpu"] = "auto"
    """Where optimizer state lives: `cpu` is host memory, and the step is computed there. Needs
    stage 1 or higher."""
    offload_parameters: Literal["auto", "none", "cpu"] = "auto"
    """Where parameters live between uses. `cpu` needs stage 3, and the optimizer's state there
    too."""

    @model_validator(mode="after")
    def _offload_has_its_stage(self) -> Self:
        if self.offload_parameters == "cpu" and self.stage not in ("auto", 3):
            raise ValueError(
                f"offload_parameters 'cpu' needs stage 3, found {self.stage}; set "
                "offload_parameters: none"
            )
        if self.offload_parameters == "cpu" and self.offload_optimizer == "none":
            raise ValueError(
                "offload_parameters 'cpu' needs offload_optimizer 'cpu', found 'none'; set both or "
                "neither"
            )
        if self.offload_optimizer == "cpu" and self.stage == 0:
            raise ValueError(
                "offload_optimizer 'cpu' needs stage 1, 2 or 3, found 0; set offload_optimizer: "
                "none"
            )
        return self


class HardwareSpec(FrozenModel):
    """What the plan may count on. What is left out is taken from the named GPU or, where training
    is local, from the machine that plans.

    Of a cluster's nodes only the spec can tell: a GPU, its memory, or `host_memory_gib` must be
    stated."""

    num_nodes: int = Field(default=1, ge=1, le=1024)
    """Machines, or pods, that train together."""
    processes_per_node: int = Field(default=1, ge=1, le=64)
    """Training processes on each: one per GPU, or on a CPU one per group of cores."""
    gpu: str | None = None
    """The GPU by name, such as `a100-80gb`: its memory and speed. Without it, and without
    `gpu_memory_gib`, training is on the CPU."""
    gpu_memory_gib: Number | None = Field(default=None, ge=0.001, le=1e9)
    """Memory of one GPU in GiB, where the name does not say it, or less of it is to be used."""
    tflops: Number | None = Field(default=None, ge=0.001, le=1e9)
    """Dense bf16 TFLOP/s of one GPU by its data sheet, for a GPU that the plan does not know by
    name; needs `gpu_memory_gib`."""
    network_gbit_s: Number | None = Field(default=None, ge=0.001, le=1e9)
    """What one node sends to others, in Gbit/s: all its network cards together. Without it, 100."""
    host_memory_gib: Number | None = Field(default=None, ge=0.001, le=1e9)
    """Memory of one node in GiB that the run may use. Without it nothing is offloaded from GPUs,
    and a cluster's CPUs do not train."""
    memory_margin: Number = Field(default=0.1, ge=0, lt=0.9)
    """Share of GPU and host memory that the plan leaves free, for what no formula sees."""
    price_per_gpu_hour: Number | None = Field(default=None, ge=0, le=1e9)
    """Price of one GPU for an hour: the plan then says what the training costs."""
    currency: str | None = Field(default=None, pattern=r"^[A-Z]{3}$")
    """Currency of `price_per_gpu_hour`, such as `USD` or `JPY` (ISO 4217)."""

    @property
    def names_gpu(self) -> bool:
        """Whether training is on GPUs: on a machine or in a cluster, no plan is made for one that
        the spec does not tell of."""
        return self.gpu is not None or self.gpu_memory_gib is not None
