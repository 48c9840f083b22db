"""Two starts of one name, with different specs or the same: the second comes in the middle of the
first, before one of its calls of the store. `hagane run` starts on two machines, whose processes
cannot see each other."""

import functools
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from components.launch_training.ending.end import end
from components.prepare_dataset.claim import claim
from components.prepare_dataset.kfp_steps import kfp_step as prepare_step
from components.shared.errors import HaganeError
from components.shared.log import set_up_log
from components.shared.spec.file import parse_spec
from components.shared.step import open_run, step_of_run
from components.shared.store.layout import DATASET, PLAN
from components.shared.store.manifest import publish_folder, read_manifest
from components.shared.store.s3_store import S3Store
from components.shared.store.storage import LocalStore, open_store
from components.shared.store.writer import OWNER_VARIABLE, Writer, held_run
from tests.support.tiny_models import make_tokenizer, write_conversations

CALLS = ("read_bytes", "write_bytes", "list", "delete", "delete_own", "touch", "upload", "download")
KINDS = ("kfp", "laptop")
FIRST, SECOND = "otter", "heron"
"""Words that nothing else in a run has."""
LOG = set_up_log("two_starts")


@dataclass
class Numbers:
    """KFP's artifact of numbers, as much of it as a step uses."""

    path: str

    def log_metric(self, name: str, value: float) -> None:
        pass


@dataclass
class Start:
    """One start, up to its plan. Its name is in its spec, its lock and the names that it gives: it
    is found in all that it stores."""

    name: str
    kind: str
    tree: dict[str, Any]
    folder: Path
    refused: list[str] = field(default_factory=list)

    def run(self) -> None:
        try:
            if self.kind == "kfp":
                self._steps()
            else:
                self._as_hagane_run()
        except HaganeError as error:
            self.refused = list(error.problems)
        except SystemExit:
            self.refused = ["a step ended"]

    def _as_hagane_run(self) -> None:
        writer = Writer(
            owner=f"owner-{self.name}",
            host=self.name,
            machine=f"boot of {self.name}",
            pid=7,
            process_started=1,
        )
        with (
            held_run(open_store(parse_spec(self.tree).run_uri), writer, on_loss=lambda: None),
            _owner_is(writer.owner),
        ):
            self._steps()

    def _steps(self) -> None:
        given: dict[str, Any] = {"kfp_run": f"id-{self.name}", "notify_when": "never", "log": LOG}
        try:
            claimed = claim(self.tree, {}, images="i:1", skip_if_unchanged=False, **given)
            self.folder.mkdir(exist_ok=True)
            pages = {
                "manifest_path": str(self.folder / "manifest"),
                "page_path": str(self.folder / "page"),
            }
            prepare_step(
                claimed.run,
                spec_digest=claimed.spec_digest,
                inputs=claimed.inputs,
                metrics=Numbers(str(self.folder / "metrics")),
                **pages,
            )
            self._plan(claimed.run, claimed.spec_digest)
        except (HaganeError, SystemExit):
            end(self.tree, {}, state="FAILED", error_message="", **given)
            raise
        end(self.tree, {}, state="SUCCEEDED", error_message="", **given)

    def _plan(self, run: str, spec_digest: str) -> None:
        """In place of render_config, which needs seconds to build the model: a plan/ of this spec,
        by the same steps in the store."""
        with step_of_run("render_config", run, spec_digest=spec_digest):
            store, spec = open_run(run)
            dataset = read_manifest(store, DATASET)
            assert dataset is not None
            plan = self.folder / "plan"
            plan.mkdir()
            (plan / "plan.json").write_text(f'{{"user": "{spec.cluster.user}"}}')
            inputs = {"dataset": dataset.digest, "spec": spec.digest}
            publish_folder(store, PLAN, plan, made_by="render_config", inputs=inputs, facts={})


@dataclass
class TwoStarts:
    folder: Path
    """Of files of this machine: data, model, work."""
    monkeypatch: pytest.MonkeyPatch

    def __post_init__(self) -> None:
        self.monkeypatch.setenv("HAGANE_WORK", str(self.folder / "work"))
        model = self.folder / "model"
        model.mkdir()
        make_tokenizer(model)
        (model / "config.json").write_text(
            '{"model_type": "llama", "vocab_size": 400, "max_position_embeddings": 512, '
            '"eos_token_id": 3}'
        )
        write_conversations(self.folder / "train.jsonl", 12, seed=1)

    def num_calls(self, kind: str, store: str) -> int:
        """Of the store, by a start that nobody disturbs."""
        with _before_call(0, lambda: None) as calls:
            start = self._start(FIRST, kind, store)
            start.run()
        assert start.refused == []
        return calls[0]

    def at(
        self, call: int, *, first: str, second: str, store: str, same_spec: bool = False
    ) -> tuple[Start, Start]:
        """Both starts, the second one before that call of the first."""
        asked = FIRST if same_spec else SECOND
        starts = self._start(FIRST, first, store), self._start(SECOND, second, store, asked)
        with _before_call(call, starts[1].run):
            starts[0].run()
        return starts

    def _start(self, name: str, kind: str, store: str, asked: str = "") -> Start:
        asked = asked or name
        shutil.rmtree(self.folder / "work", ignore_errors=True)
        shutil.rmtree(self.folder / name, ignore_errors=True)
        tree = {
            "name": "r",
            "store": store,
            "model": {"source": str(self.folder / "model")},
            "data": {
                "train": str(self.folder / "train.jsonl"),
                "held_out_share": 0.1,
                "row_tokens": 256,
            },
            "cluster": {"user": asked},
            "evaluation": {"questions": [asked]},
        }
        return Start(name, kind, tree, self.folder / name)


def check(starts: tuple[Start, Start], store: str) -> str:
    """Who was refused: one of the two, with one line that names the other, and nothing of it is
    stored."""
    refused = [start for start in starts if start.refused]
    assert len(refused) == 1, [start.refused for start in starts]
    (loser,) = refused
    (winner,) = [start for start in starts if start is not loser]
    (line,) = loser.refused
    assert f"is being worked on by {_shown(winner)}" in line or _is_finished(winner, line), line
    run = open_store(f"{store}/r")
    for stored in run.list():
        if stored.key == f"ends/id-{loser.name}.json" and _is_finished(winner, line):
            continue  # its exit task notes beside a finished run that its own end was said
        assert loser.name not in stored.key
        assert loser.name.encode() not in run.read_bytes(stored.key), stored.key
    assert open_run(f"{store}/r")[1].cluster.user == winner.name
    return loser.name


def check_same(starts: tuple[Start, Start], store: str) -> str:
    """Who was refused, of two starts with the same spec: at most one, with one line that names the
    other. The run's plan is there, and nobody works on it any more. Two runs of Kubeflow Pipelines
    work beside each other."""
    refused = [start for start in starts if start.refused]
    for loser in refused:
        (winner,) = [start for start in starts if start is not loser]
        (line,) = loser.refused
        assert f"is being worked on by {_shown(winner)}" in line, line
    assert len(refused) <= (0 if starts[0].kind == starts[1].kind == "kfp" else 1)
    run = open_store(f"{store}/r")
    manifest = read_manifest(run, PLAN)
    assert manifest is not None
    assert b"otter" in run.read_bytes(f"{PLAN}/plan.json")
    assert [stored.key for stored in run.list(".writer-")] == []
    return refused[0].name if refused else "nobody"


def _shown(start: Start) -> str:
    return (
        f"run 'id-{start.name}' of Kubeflow Pipelines"
        if start.kind == "kfp"
        else f"process 7 on '{start.name}'"
    )


def _is_finished(winner: Start, line: str) -> bool:
    """The first had given its lock back: its plan stands for its spec."""
    return (
        "evaluation.questions: got" in line
        and f"but run 'r' was begun with ('{winner.name}',)" in line
    )


@contextmanager
def _before_call(number: int, then: Callable[[], None]) -> Iterator[list[int]]:
    """`then` is done before that call of a store in this thread, counted from 1. Yields the
    count."""
    count, main = [0], threading.get_ident()
    patched = pytest.MonkeyPatch()

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def wrapper(*args: Any, **named: Any) -> Any:
            if threading.get_ident() == main:
                count[0] += 1
                if count[0] == number:
                    with _owner_is(None):
                        then()
            return call(*args, **named)

        return wrapper

    for kind in (LocalStore, S3Store):
        for name in CALLS:
            patched.setattr(kind, name, counted(getattr(kind, name)))
    try:
        yield count
    finally:
        patched.undo()


@contextmanager
def _owner_is(owner: str | None) -> Iterator[None]:
    before = os.environ.pop(OWNER_VARIABLE, None)
    if owner is not None:
        os.environ[OWNER_VARIABLE] = owner
    try:
        yield
    finally:
        os.environ.pop(OWNER_VARIABLE, None)
        if before is not None:
            os.environ[OWNER_VARIABLE] = before
