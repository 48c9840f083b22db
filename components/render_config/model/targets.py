"""Shapes + what the spec asks -> the names by which PEFT finds the layers that LoRA is put beside,
and how many parameters that makes."""

import difflib
from dataclasses import dataclass

from components.render_config.model.shapes import Architecture, Experts, Linear
from components.shared.errors import ModelError
from components.shared.spec.training import TARGET_WORDS

_OLD_EXPERTS = frozenset({"gate", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3"})
Layer = Linear | Experts


@dataclass(frozen=True)
class Targets:
    modules: tuple[str, ...]
    """peft's `target_modules`, in the model's order: linear layers, by the shortest name that no
    other kind of layer ends with."""
    parameters: tuple[str, ...]
    """peft's `target_parameters`: the 3-D parameters of experts."""
    exclude: tuple[str, ...]
    """Full names, `*` for an index, of layers that end like a target and are none: a vision
    tower's, a router's."""
    linears: tuple[Linear, ...]
    experts: tuple[Experts, ...]

    @property
    def fan_in_fan_out(self) -> bool:
        """GPT-2's Conv1D stores its weight (inputs, outputs)."""
        return any(each.conv1d for each in self.linears)


def lora_targets(asked: str | tuple[str, ...], architecture: Architecture) -> Targets:
    """`auto` and `all`: every linear layer of the blocks and the experts, never the head, never a
    router. `attention`, `mlp`: those of that part. Or layers by name: the last part of their path
    or as many parts as tell them apart.

    Raises:
        ModelError: a name that nothing in the blocks has; tells near misses and all that there are.
    """
    if isinstance(asked, str):
        asked = (asked,)
    everything: tuple[Layer, ...] = (*architecture.linears, *architecture.experts)
    if not asked:
        raise ModelError(
            f"lora.targets: the list is empty; write auto or some of: {_list(everything)}"
        )
    chosen = [(name, [layer for layer in everything if _is_meant(name, layer)]) for name in asked]
    problems = [_unknown(name, everything, architecture) for name, found in chosen if not found]
    if problems:
        raise ModelError(*problems)
    found = {layer for _, layers in chosen for layer in layers}
    linears = tuple(each for each in architecture.linears if each in found)
    experts = tuple(each for each in architecture.experts if each in found)
    rest = [layer.path for layer in everything if layer not in found] + list(architecture.avoid)
    modules = tuple(
        dict.fromkeys(
            _shortest(each.path, rest, with_experts=bool(architecture.experts)) for each in linears
        )
    )
    return Targets(
        modules=modules,
        parameters=tuple(dict.fromkeys(_of_its_module(each.path) for each in experts)),
        exclude=tuple(path for path in rest if any(_ends_with(path, name) for name in modules)),
        linears=linears,
        experts=experts,
    )


def num_lora_parameters(targets: Targets, rank: int, *, dora: bool = False) -> int:
    """Parameters of all A (rank x inputs) and B (outputs x rank) matrices (Hu et al. 2021, section
    4.1), and for DoRA of a length for each output.

    Of experts, PEFT (0.21, ParamWrapper) makes one pair with a rank for each expert.
    """
    plain = sum(
        each.count * (rank * (each.num_inputs + each.num_outputs) + dora * each.num_outputs)
        for each in targets.linears
    )
    return plain + sum(
        each.count * each.num_experts * rank * (each.num_inputs + each.num_outputs)
        for each in targets.experts
    )


def _is_meant(name: str, layer: Layer) -> bool:
    if name in ("auto", "all"):
        return True
    if name == "attention":
        return isinstance(layer, Linear) and layer.role == "attention"
    if name == "mlp":
        return isinstance(layer, Experts) or layer.role == "mlp"
    return _ends_with(layer.path, name)


def _ends_with(path: str, name: str) -> bool:
    """PEFT's rule for a list of names (tuners_utils.py, check_target_module_exists)."""
    return path == name or path.endswith(f".{name}")


def _shortest(path: str, rest: list[str], *, with_experts: bool) -> str:
    """As few last parts of the path as no layer of the rest ends with, never across the index of a
    list.

    At least two where the last is a number, or what transformers 4 called the experts' weights:
    PEFT (0.21, transformers_weight_conversion.py) takes the bare word for those.
    """
    parts = path.rpartition("*.")[2].split(".")
    if parts[-1].isdigit() or (with_experts and parts[-1] in _OLD_EXPERTS):
        fewest = 2
    else:
        fewest = 1
    names = [".".join(parts[-length:]) for length in range(min(fewest, len(parts)), len(parts) + 1)]
    return next(
        (name for name in names if not any(_ends_with(other, name) for other in rest)), names[-1]
    )


def _of_its_module(path: str) -> str:
    """`mlp.experts.gate_up_proj` -> `experts.gate_up_proj`: PEFT matches a parameter by its
    module's name and its own."""
    return ".".join(path.split(".")[-2:])


def _list(layers: tuple[Layer, ...]) -> str:
    return ", ".join(dict.fromkeys(layer.name for layer in layers))


def _unknown(name: str, layers: tuple[Layer, ...], architecture: Architecture) -> str:
    """One line for a name that is not there: what it may have meant, or that it is a layer LoRA
    must leave alone."""
    here = f"is no layer of this {architecture.model_type} model's blocks"
    if any(_ends_with(path, name) for path in architecture.avoid):
        here = (
            "is a layer that LoRA leaves alone: the output head, a router, or one that PEFT cannot "
            "pair with"
        )
    names = list(dict.fromkeys(part for layer in layers for part in (layer.name, layer.path)))
    near = difflib.get_close_matches(name, [*names, *TARGET_WORDS], n=2)
    if near:
        hint = f"did you mean {' or '.join(map(repr, near))}? "
    else:
        hint = ""
    return (
        f"lora.targets: {name!r} {here}; {hint}it has: {_list(layers)}; or write "
        f"{', '.join(TARGET_WORDS)}"
    )
