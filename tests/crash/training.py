"""A tiny run up to its plan, and its training processes, started without torchrun so that a test
can kill the one it means."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from components.shared.store.storage import LocalStore
from components.train import __main__ as trainer
from tests.crash.killing import NOWHERE, Child, Point, start
from tests.support.command_line import environment, write_spec
from tests.support.free_port import free_port
from tests.support.tiny_models import write_conversations

MAKE_MODEL = (
    "import sys; from pathlib import Path; from tests.support.tiny_models import make_model; "
    "make_model(Path(sys.argv[1]))"
)
NEW_TOKENS = {"new_tokens": ["The number after", "次の数は何ですか"]}
"""`data` of a spec: texts of its conversations."""
WHOLE_LAYERS = {"also_train": ["embeddings", "head"]}
"""`lora` of a spec."""


@dataclass(frozen=True)
class TinyRun:
    """One run in a local store of its own; `folder` holds its data and model, `work` this start's
    scratch files."""

    folder: Path
    store: Path
    work: Path
    spec: dict[str, Any]

    @property
    def uri(self) -> str:
        return f"{self.store}/tiny"

    @property
    def num_processes(self) -> int:
        return self.spec["hardware"]["processes_per_node"]

    def history(self) -> Any:
        history = json.loads(LocalStore(Path(self.uri)).read_bytes("checkpoints/history.json"))
        return {"steps": history["steps"], "epochs": history["epochs"]}

    def with_settings(self, **sections: Any) -> "TinyRun":
        return replace(
            self,
            spec={
                **self.spec,
                **{name: {**self.spec.get(name, {}), **value} for name, value in sections.items()},
            },
        )

    def copy(self, name: str) -> "TinyRun":
        """What is in this run's store, in a store of its own."""
        store = self.folder / name / "store"
        shutil.copytree(self.store, store)
        claim = store / "tiny" / "spec.yaml"
        claim.write_text(claim.read_text().replace(str(self.store), str(store)))
        return replace(self, store=store, work=self.folder / name / "work")

    def plan(self) -> None:
        """dataset/ and plan/ are finished, as this spec says."""
        spec = self.store.with_name("spec.yaml")
        spec.parent.mkdir(parents=True, exist_ok=True)
        spec.write_text(yaml.safe_dump({**self.spec, "store": str(self.store)}))
        for command in (
            ["components.prepare_dataset", "--spec", str(spec)],
            ["components.render_config", "--run", self.uri],
        ):
            done = subprocess.run(
                [sys.executable, "-m", *command],
                env=environment(self.work),
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stdout

    def forget(self, *names: str) -> None:
        """These are no longer in checkpoints/, as if training had been killed before."""
        for name in names:
            path = Path(self.uri, "checkpoints", name)
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def begin(
        self,
        context: Any,
        *,
        killed_rank: int = 0,
        point: Point = NOWHERE,
        points_file: Path | None = None,
        program: Callable[[], None] = trainer.main,
    ) -> list[Any]:
        """All training processes, started; one dies at `point`."""
        port = free_port()
        processes = []
        for rank in range(self.num_processes):
            env = {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(self.num_processes),
                "LOCAL_WORLD_SIZE": str(self.num_processes),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "HAGANE_WORK": str(self.work),
                "HAGANE_LOG": "json",
                "OMP_NUM_THREADS": "1",
                "TORCH_CPP_LOG_LEVEL": "ERROR",
            }
            log = self.store.with_name(f"log-{rank}")
            child = Child(program, (), env, ("train", self.uri), log=log, within=str(self.work))
            its_own = rank == killed_rank
            processes.append(
                start(
                    context,
                    child,
                    point if its_own else NOWHERE,
                    points_file=points_file if its_own else None,
                )
            )
        return processes

    def train(self, context: Any, **how: Any) -> list[int | None]:
        """Exit codes of all training processes. When one ends badly the others are killed, as
        torchrun does."""
        processes = self.begin(context, **how)
        while any(process.is_alive() for process in processes):
            if any(process.exitcode not in (None, 0, 143) for process in processes):
                for process in processes:
                    process.kill()
            for process in processes:
                process.join(0.05)
        return [process.exitcode for process in processes]


def tiny_run(
    folder: Path,
    *,
    method: str,
    num_processes: int,
    epochs: int = 2,
    num_conversations: int = 48,
    **settings: Any,
) -> TinyRun:
    """A run of global batch 6, with dropout unless `settings` say otherwise; 52 conversations make
    12 rows, two steps an epoch."""
    folder.mkdir(parents=True, exist_ok=True)
    made = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MAKE_MODEL, str(folder / "model")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    spec = {
        "name": "tiny",
        "store": "unused",
        "model": {"source": str(folder / "model")},
        "data": {
            "train": str(write_conversations(folder / "train.jsonl", num_conversations, seed=1)),
            "held_out": str(write_conversations(folder / "held_out.jsonl", 8, seed=2)),
            "row_tokens": 256,
        },
        "training": {
            "method": method,
            "epochs": epochs,
            "global_batch": 6,
            "micro_batch": 1,
            "lr_peak": 0.005,
            "seed": 3,
            "weight_decay": 0.1,
        },
        "lora": {"rank": 4, "dropout": 0.1},
        "zero": {"stage": 3, "offload_optimizer": "cpu", "offload_parameters": "cpu"},
        "hardware": {"processes_per_node": num_processes},
    }
    write_spec(folder / "spec.yaml", spec)
    return TinyRun(
        folder, folder / "first" / "store", folder / "first" / "work", spec
    ).with_settings(**settings)
