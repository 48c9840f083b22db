"""Training whose parameters stand on a device of their own: what is read from files is marked as
the host's, and stays so.

The mark goes from a tensor to all that is made of it, but for `Tensor.to(device)`, which moves it
to the parameters. AdamW's kernel then refuses, in CUDA's words, a state that is not where its
parameter is. Nothing here needs a GPU, and no number changes.
"""

from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_map_only

from components.train import __main__ as trainer

REFUSAL = (
    "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!"
)
FUSED_STEP = "_fused_adamw_"
ARGUMENTS = ("params", "grads", "exp_avgs", "exp_avg_sqs", "max_exp_avg_sqs", "state_steps")
"""Of the fused step, in order (torch 2.13, native_functions.yaml)."""


class HostTensor(torch.Tensor):
    """A tensor that lies in the memory of the host."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") == FUSED_STEP:
            refuse_host_tensors(dict(zip(ARGUMENTS, args, strict=False)) | kwargs)
        made: Any = super().__torch_function__(func, types, args, kwargs)
        return (
            made.as_subclass(torch.Tensor)
            if func is torch.Tensor.to and names_a_device(args, kwargs)
            else made
        )


def names_a_device(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    return any(isinstance(each, (torch.device, str)) for each in (*args, kwargs.get("device")))


def refuse_host_tensors(arguments: dict[str, Any]) -> None:
    for name, value in arguments.items():
        if any(isinstance(each, HostTensor) for each in tree_flatten(value)[0]):
            raise RuntimeError(
                f"{REFUSAL} (when checking argument for argument {name} in method "
                "wrapper_CUDA___fused_adamw_)"
            )


def on_the_host(tensor: torch.Tensor) -> torch.Tensor:
    is_plain = type(tensor) is torch.Tensor and not tensor.requires_grad
    return tensor.as_subclass(HostTensor) if is_plain else tensor


def main() -> None:
    """components.train, with what it reads marked."""
    usual = torch.load
    torch.load = lambda *args, **kwargs: tree_map_only(
        torch.Tensor, on_the_host, usual(*args, **kwargs)
    )
    trainer.main()
