"""What the plan knows of a model: its linear layers, its experts, what each block weighs. The same
whether counted or walked.

Shapes are of weights as `(inputs, outputs)`; counts are over the whole model.
"""

from dataclasses import dataclass
from typing import Any, Literal

Role = Literal["attention", "mlp"]


@dataclass(frozen=True)
class Linear:
    """One kind of linear layer of the blocks."""

    path: str
    """Where it stands in its block, such as `self_attn.q_proj`; a list index is `*`."""
    num_inputs: int
    num_outputs: int
    count: int
    """How many of it the model has, over all blocks."""
    role: Role
    conv1d: bool = False
    """transformers' Conv1D, whose weight is stored (inputs, outputs): LoRA needs
    `fan_in_fan_out`."""

    @property
    def name(self) -> str:
        """The last part of the path, by which people and PEFT call the layer."""
        return self.path.rpartition(".")[2]


@dataclass(frozen=True)
class Experts:
    """One 3-D parameter that holds a matrix for each expert of a mixture-of-experts layer."""

    path: str
    """Such as `mlp.experts.gate_up_proj`."""
    num_experts: int
    num_inputs: int
    num_outputs: int
    """The other side of an expert's matrix; LoRA counts the two alike."""
    count: int
    """How many layers have it."""

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]


@dataclass(frozen=True)
class Attention:
    """Softmax attention of one block; a block of another kind (Mamba, linear attention) is planned
    as if it were this."""

    num_heads: int
    num_key_heads: int
    head_size: int


@dataclass(frozen=True)
class Architecture:
    model_type: str
    num_blocks: int
    hidden_size: int
    vocabulary: int
    attention: Attention
    linears: tuple[Linear, ...]
    experts: tuple[Experts, ...]
    num_active_experts: int
    """Experts that one token passes through; 0 without experts."""
    gated: bool
    """The MLP multiplies two projections (SwiGLU and its kin), which keeps more for the backward
    pass."""
    num_parameters: int
    largest_layer_parameters: int
    """Parameters of the largest single weight, head and embedding included."""
    largest_block_parameters: int
    outside_parameters: int
    """Parameters outside the blocks: embeddings, head, last norm."""
    embedding_size: int
    """Numbers of one token's row of the embeddings."""
    tied: bool
    """Embeddings and head are one weight."""
    head_bias: bool = False
    avoid: tuple[str, ...] = ()
    """Full names of linear layers that LoRA must leave alone: head, routers, what PEFT cannot pair
    with."""
    unreachable: tuple[str, ...] = ()
    """Of these, the layers of the blocks that LoRA would train if PEFT could pair with them."""

    @property
    def block_parameters(self) -> int:
        """Parameters of all blocks."""
        return self.num_parameters - self.outside_parameters

    @property
    def active_parameters(self) -> int:
        """Parameters that one token meets on its way: without the experts that it is not routed
        to."""
        idle = sum(
            (each.num_experts - min(self.num_active_experts, each.num_experts))
            * each.num_inputs
            * each.num_outputs
            * each.count
            for each in self.experts
        )
        return self.num_parameters - idle


def from_json(tree: dict[str, Any]) -> Architecture:
    """The architecture that `python -m components.train.model.walk` printed."""
    tree = dict(tree)
    return Architecture(
        **{
            **tree,
            "attention": Attention(**tree["attention"]),
            "linears": tuple(Linear(**each) for each in tree["linears"]),
            "experts": tuple(Experts(**each) for each in tree["experts"]),
            "avoid": tuple(tree["avoid"]),
            "unreachable": tuple(tree["unreachable"]),
        }
    )
