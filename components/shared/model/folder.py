"""A folder in Hugging Face layout -> what is wrong in it, from its small files and the headers of
the large ones.

Nothing of it is executed, and nothing is allocated because a file says so. The format of a
safetensors file is that of github.com/huggingface/safetensors, README: 8 bytes of length, a JSON
header of that length, then the tensors' bytes without a gap.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from components.shared.model.config_fields import contradictions
from components.shared.model.quantization import BITSANDBYTES, bitsandbytes_problem
from components.shared.printable import cut, shown

OWN_CODE_ONLY: Final[dict[str, Any]] = {"trust_remote_code": False, "use_safetensors": True}
"""For transformers' from_pretrained: no code that came with a model, and no question on the
terminal whether to run it; no pickles."""
SIZES = {
    (
        "hidden_size",
        "n_embd",
        "intermediate_size",
        "moe_intermediate_size",
        "n_inner",
        "head_dim",
    ): 2**24,
    ("num_hidden_layers", "n_layer"): 10_000,
    (
        "num_attention_heads",
        "num_key_value_heads",
        "n_head",
        "num_experts",
        "num_local_experts",
        "num_experts_per_tok",
    ): 2**16,
    ("vocab_size",): 2**26,
    ("max_position_embeddings", "n_positions", "sliding_window"): 2**31,
}
"""Fields of config.json that count something -> the most that any may be, a hundred times what the
largest known model has."""
NUMBERS = (
    "rms_norm_eps",
    "layer_norm_eps",
    "layer_norm_epsilon",
    "initializer_range",
    "attention_dropout",
    "rope_theta",
)
ROPE_TYPES = (
    "default",
    "linear",
    "dynamic",
    "yarn",
    "longrope",
    "su",
    "llama3",
    "proportional",
    "mrope",
)
"""transformers 5.23, modeling_rope_utils.py, and two older names that it takes."""
MAY_BE_ZERO = ("num_experts", "num_local_experts", "num_experts_per_tok")
DTYPES = ("float64", "float32", "bfloat16", "float16", "float8_e4m3fn", "float8_e5m2", "auto")
QUANTIZED = ("mxfp4", BITSANDBYTES)
"""Forms of quantized weights that can be trained on: those that transformers turns back into
ordinary ones as it loads them, and those that LoRA is put beside."""
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5", "*.msgpack", "*.gguf")
MOST_HEADER_BYTES = 100_000_000
"""As the safetensors library allows."""
INDEX = "*.safetensors.index.json"


def config_problems(config: Mapping[str, Any]) -> list[str]:
    """One line for each field of config.json that stands for no model, or for code from
    elsewhere."""
    problems = _size_problems(config)
    model_type = config.get("model_type")
    if isinstance(model_type, str) and not re.fullmatch(r"[A-Za-z0-9_.-]{1,80}", model_type):
        problems.append(
            f"model_type: got {shown(model_type)}, must be the name of an architecture, such as "
            "llama"
        )
    dtype = config.get("dtype", config.get("torch_dtype"))
    if dtype is not None and dtype not in DTYPES:
        problems.append(f"dtype: got {shown(dtype)}, allowed: {', '.join(DTYPES)}")
    problems += [
        f"{name}: got {shown(config[name])}, must be a finite number"
        for name in NUMBERS
        if name in config and not _is_finite(config[name])
    ]
    problems += _rope_problems(config)
    text = config.get("text_config")
    if isinstance(text, dict):
        inner = [*_size_problems(text), *_rope_problems(text)]
        problems += [f"text_config.{problem}" for problem in inner]
    layers = config.get("layer_types") or []
    if not isinstance(layers, list) or not all(
        isinstance(each, str) and re.fullmatch(r"[a-z0-9_]{1,80}", each) for each in layers
    ):
        problems.append(
            f"layer_types: got {shown(layers)}, must be a list of names such as full_attention"
        )
    for name in ("_attn_implementation", "attn_implementation"):
        if "/" in str(config.get(name, "")):
            problems.append(
                f"{name}: got {shown(config[name])}, which is code of a hub repository; take the "
                "field out"
            )
    quantized = config.get("quantization_config")
    if isinstance(quantized, dict):
        method = quantized.get("quant_method")
    else:
        method = quantized
    if method == BITSANDBYTES:
        problem = bitsandbytes_problem(config)
        problems += [] if problem is None else [problem]
    elif quantized is not None and method not in QUANTIZED:
        problems.append(
            f"quantization_config: got quant_method {shown(method)}, allowed: "
            f"{', '.join(QUANTIZED)}; name the model's ordinary weights"
        )
    return problems + ([] if problems else contradictions(config))


def weight_problems(folder: Path) -> list[str]:
    """One line for each file of weights that cannot be loaded; none for a folder without any, which
    can still be planned for."""
    files, indexes = sorted(folder.glob("*.safetensors")), sorted(folder.glob(INDEX))
    if not files and not indexes:
        return _only_pickled(folder)
    problems = [
        f"{file.name}: {problem}"
        for file in files
        if (problem := _safetensors_problem(file)) is not None
    ]
    return problems + [
        f"{file.name}: {problem}"
        for file in indexes
        if (problem := _index_problem(folder, file)) is not None
    ]


def _size_problems(config: Mapping[str, Any]) -> list[str]:
    problems: list[str] = []
    for names, most in SIZES.items():
        for name in names:
            problem = _size_problem(name, config.get(name), most)
            if problem is not None:
                problems.append(problem)
    return problems


def _size_problem(name: str, value: Any, most: int) -> str | None:
    if value is None:
        return None
    if name in MAY_BE_ZERO:
        least = 0
    else:
        least = 1
    for number in (
        value if isinstance(value, list) else [value]
    ):  # some models have a size for each block
        if isinstance(number, bool) or not isinstance(number, int) or not least <= number <= most:
            return f"{name}: got {shown(number)}, must be a whole number from {least} to {most}"
    return None


def _is_finite(value: Any) -> bool:
    return value is None or (
        isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < math.inf
    )


def _rope_problems(config: Mapping[str, Any]) -> list[str]:
    for name in ("rope_parameters", "rope_scaling"):
        rope = config.get(name)
        if isinstance(rope, dict):
            kind = rope.get("rope_type", rope.get("type", "default"))
        else:
            kind = None
        if isinstance(kind, str) and kind not in ROPE_TYPES:
            return [f"{name}: got rope_type {shown(kind)}, allowed: {', '.join(ROPE_TYPES)}"]
        if isinstance(rope, dict) and not _is_finite(rope.get("rope_theta")):
            return [f"{name}: got rope_theta {shown(rope['rope_theta'])}, must be a finite number"]
    return []


def _only_pickled(folder: Path) -> list[str]:
    names = sorted({path.name for pattern in PICKLED for path in folder.glob(pattern)})
    if not names:
        return []
    return [
        (
            f"holds weights only as {_some(names)}, which hagane does not open: such files may run "
            "code; convert them to *.safetensors"
        )
    ]


def _safetensors_problem(file: Path) -> str | None:
    if not file.is_file():
        return "is no file; put the weights there"
    num_bytes = file.stat().st_size
    with file.open("rb") as stream:
        header_bytes = int.from_bytes(stream.read(8), "little")
        if num_bytes < 8 or header_bytes > min(MOST_HEADER_BYTES, num_bytes - 8):
            return (
                f"is no whole safetensors file: it has {num_bytes:,} bytes, its header would have "
                f"{header_bytes:,}; download it again"
            )
        header = _json(stream.read(header_bytes))
    if not isinstance(header, dict):
        return "is no safetensors file: its header is no JSON object; download it again"
    try:
        needed = max(
            (
                int(entry["data_offsets"][1])
                for name, entry in header.items()
                if name != "__metadata__"
            ),
            default=0,
        )
    except (KeyError, IndexError, TypeError, ValueError):
        return (
            "is no safetensors file: its header does not say where its tensors are; download it "
            "again"
        )
    found = num_bytes - 8 - header_bytes
    if needed != found:
        return (
            f"is not whole: its header tells of {needed:,} bytes of weights, it has {found:,}; "
            "download it again"
        )
    return None


def _index_problem(folder: Path, file: Path) -> str | None:
    if not file.is_file():
        return "is no file; put the index there"
    index = _json(file.read_bytes())
    if isinstance(index, dict):
        places = index.get("weight_map")
    else:
        places = None
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        return "is no index: it has no weight_map of names; download it again"
    names = sorted(set(places.values()))
    outside = [name for name in names if "/" in name or "\\" in name or name in ("", ".", "..")]
    if outside:
        return f"names files outside of the folder: {_some(outside)}; such an index is not followed"
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        return f"names files that are not there: {_some(absent)}; download them"
    return None


def _json(content: bytes) -> Any:
    """None for what is no JSON."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _some(names: Iterable[str]) -> str:
    """How many and which, with three as examples."""
    names = list(names)
    reported = ", ".join(shown(cut(name)) for name in names[:3])
    if len(names) <= 3:
        return reported
    return f"{reported} and {len(names) - 3} more"
