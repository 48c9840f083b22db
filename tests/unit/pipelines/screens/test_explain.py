"""Settings with their reasons, on a narrow and on a wide terminal."""

import io

import pytest
from rich.console import Console

from pipelines.imports.training_args_keys import RULES
from pipelines.screens.explain import WIDE, Setting, Settings, left_out

LONG_NAME = "train_micro_batch_size_per_gpu"
LONG_REASON = "training.gradient_checkpointing_kwargs " * 4
SETTINGS = Settings(
    "DeepSpeed",
    [
        Setting(LONG_NAME, "4", LONG_REASON.strip()),
        Setting("target_modules", "q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj", "all"),
        Setting("seed", "0", ""),
    ],
)


def shown(width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO(), markup=False, highlight=False)
    console.print(SETTINGS)
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


@pytest.mark.parametrize("width", [40, 80])
def test_a_narrow_terminal_has_each_reason_below_its_setting(width: int) -> None:
    lines = shown(width)
    assert max(map(len, lines)) <= width
    assert f"{LONG_NAME} = 4" in lines
    below = lines[lines.index(f"{LONG_NAME} = 4") + 1]
    assert below.startswith("    training.gradient_checkpointing")
    assert "".join("".join(lines).split()).count("training.gradient_checkpointing_kwargs") == 4
    assert lines[-1] == "seed = 0"


def test_a_wide_terminal_has_them_side_by_side() -> None:
    first = shown(WIDE)[1]
    assert first.split()[:3] == [LONG_NAME, "4", "training.gradient_checkpointing_kwargs"]


def test_arguments_left_out_for_one_reason_stand_together() -> None:
    groups = left_out({"learning_rate": 1e-4})
    names = [name for group in groups.values() for name in group]
    assert sorted(names) == sorted(set(RULES) - {"learning_rate"})
    assert all(groups)
    sizes = [len(group) for group in groups.values()]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 10
