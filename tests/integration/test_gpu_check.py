"""The check of a machine, run for real on its CPUs: processes that exchange numbers, a small training, its resume on half of them."""

from pathlib import Path

from tests.integration.test_pipeline import tiny_spec
from tests.support.command_line import hagane

RUN = ("torch", "number format", "/dev/shm", "attention", "bmm of width 1", "matrix products", "all-reduce in the node")
TRAINED = ("small training", "save", "three timed steps", "resume on fewer")
LEFT_OUT = ("driver", "GPUs", "GPU memory", "kernels in the wheel", "pinned memory", "all-reduce between nodes")


def test_a_machine_without_a_gpu_passes_its_cpu_parts_and_says_which_it_left_out(tmp_path: Path) -> None:
    done = hagane("doctor", tiny_spec(tmp_path), "--gpu", work=tmp_path / "work")
    rows = [line.split("  ") for line in done.output.splitlines()[1:]]
    states = {row[0].strip(): next(word.strip() for word in row[1:] if word.strip()) for row in rows if row[0].strip()}
    assert done.exit_code == 0, done.output + "\n".join(done.errors)
    assert {name: states[name] for name in LEFT_OUT} == dict.fromkeys(LEFT_OUT, "skipped")
    assert {name for name in (*RUN, *TRAINED) if states[name] not in ("ok", "warning")} == set()
    assert "2 processes -> 1 from step 4" in " ".join(done.output.split())
