"""The uploader is killed before every write it makes, to disk or network; what readers then see,
and what a restart makes of it."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from components.shared.documents.checkpoint import CheckpointFacts
from components.shared.spec.file import parse_spec, spec_yaml
from components.shared.spec.results import KeepSpec
from components.shared.store.checkpoints import committed_checkpoints, fetch_checkpoint
from components.shared.store.layout import SPEC
from components.shared.store.storage import Store, open_store
from components.train.checkpoints import commit, uploader
from components.train.checkpoints.commit import Part
from pipelines.checkpoints.orphans import find_orphans, remove_orphans
from tests.crash.conftest import KILLED
from tests.crash.killing import NOWHERE, Child, Point, count_points, server, start
from tests.support.s3_server import S3Server

pytestmark = pytest.mark.slow
# As a run of two processes writes them, in small; the full model's shards take two parts of a
# multipart upload (at least 5 MiB each).
SIZES = {
    "lora": {
        0: {
            "adapter_model.safetensors": 40_000,
            "global_step2/zero_pp_rank_0_mp_rank_00_optim_states.pt": 60_000,
            "global_step2/zero_pp_rank_0_mp_rank_00_model_states.pt": 20_000,
            "latest": 12,
            "trainer_state.json": 900,
        },
        1: {
            "global_step2/zero_pp_rank_1_mp_rank_00_optim_states.pt": 60_000,
            "rng_state_1.pth": 14_000,
        },
    },
    "full": {
        0: {
            "global_step2/zero_pp_rank_0_mp_rank_00_optim_states.pt": 6 * 2**20,
            "latest": 12,
            "scheduler.pt": 1_000,
        },
        1: {
            "global_step2/zero_pp_rank_1_mp_rank_00_optim_states.pt": 6 * 2**20,
            "rng_state_1.pth": 14_000,
        },
    },
}
PART_BYTES = 5 * 2**20


@dataclass
class Scene:
    """Two processes' files of two epochs on the disk, and a run in a store of its own."""

    folder: Path
    store: Store
    method: str
    environment: dict[str, str]

    @property
    def uri(self) -> str:
        return self.store.uri

    def fresh(self, name: str) -> "Scene":
        """The same files, a run where nothing was ever stored; checkpoints but the newest are
        removed when it is committed."""
        scene = Scene(self.folder, self.store.at(name), self.method, self.environment)
        spec = {
            "name": "r",
            "store": "s",
            "model": {"source": "m"},
            "data": {"train": "d"},
            "checkpoints": {"keep": {"last": 1}},
        }
        scene.store.write_bytes(SPEC, spec_yaml(parse_spec(spec)).encode())
        return scene

    def part(self, process_rank: int, epoch: int, attempt: str) -> Part:
        """Its files are links to the scene's, since an uploader removes what it has stored."""
        kept, root = (
            self.folder / f"epoch-{epoch}",
            self.folder / "links" / f"{epoch}-{process_rank}-{attempt}",
        )
        shutil.rmtree(root, ignore_errors=True)
        names = tuple(SIZES[self.method][process_rank])
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).hardlink_to(kept / name)
        return Part(
            facts=CheckpointFacts(
                epoch=epoch,
                step=10 * epoch,
                num_processes=2,
                zero_stage=3,
                loss=1.0,
                held_out_loss=2.0,
                steps_per_epoch=10,
                micro_batch=1,
            ),
            attempt=attempt,
            process_rank=process_rank,
            training="t",
            root=str(root),
            names=names,
        )

    def store_now(self, part: Part) -> None:
        """Stored in this process, as the uploader does it."""
        if uploader.patiently(self.store, part).committed:
            commit.prune(self.store, KeepSpec(last=1))

    def store_before(self, killed_rank: int) -> None:
        """Epoch 1 is committed; if the last process is to be killed, all others' parts of epoch 2
        are stored."""
        for part in [
            self.part(0, 1, "a1"),
            self.part(1, 1, "a1"),
            *([self.part(0, 2, "a1")] if killed_rank == 1 else []),
        ]:
            self.store_now(part)

    def upload(
        self,
        process_rank: int,
        epoch: int,
        attempt: str,
        *,
        call: Callable[..., object] | None = None,
    ) -> Child:
        """The uploader of one process with one part to store."""
        stdin = self.folder / f"part-{process_rank}-{epoch}-{attempt}.json"
        stdin.write_text(self.part(process_rank, epoch, attempt).model_dump_json() + "\n")
        within = "" if self.uri.startswith("s3://") else self.uri
        return Child(
            call or main,
            (),
            self.environment,
            ("uploader", self.uri),
            stdin,
            self.folder / "log",
            within,
        )

    def read_problems(self, *, least_epoch: int) -> list[str]:
        """What a reader of the newest committed checkpoint would get wrong."""
        committed = committed_checkpoints(self.store)
        newest = committed[-1].epoch if committed else 0
        problems = (
            []
            if newest and newest >= least_epoch
            else [f"epoch {least_epoch} is lost: committed are {committed}"]
        )
        for checkpoint in committed:
            local = self.folder / "read"
            shutil.rmtree(local, ignore_errors=True)
            try:
                fetch_checkpoint(self.store, checkpoint, local)
            except Exception as error:  # whatever a reader meets is a finding
                problems.append(f"{checkpoint.folder}: {error}")
                continue
            kept = self.folder / f"epoch-{checkpoint.epoch}"
            names = {name for part in SIZES[self.method].values() for name in part}
            wrong = [
                name
                for name in names
                if not (local / name).is_file()
                or (local / name).read_bytes() != (kept / name).read_bytes()
            ]
            problems += [f"{checkpoint.folder}/{name}: is not what was saved" for name in wrong]
        return problems


def main() -> None:
    """The uploader with parts of 5 MiB, the least that S3 allows, so that small files take
    several."""
    small_parts()
    uploader.main()


def manifest_first() -> None:
    """A wrong uploader, as one might be written: it commits as soon as all part lists are there,
    and then uploads the files."""
    small_parts()
    right = commit.store_part

    def wrong(store: Store, part: Part) -> Any:
        entries = tuple(
            commit.file_entry(Path(part.root, name), f"{part.attempt}/{name}")
            for name in part.names
        )
        part_list = commit.PartList(files=entries)
        store.write_bytes(
            commit._part_key(part, part.process_rank), part_list.model_dump_json().encode()
        )
        lists = [
            key
            for rank in range(2)
            if (key := commit._part_key(part, rank))
            in {found.key for found in store.list(part.folder)}
        ]
        if len(lists) == 2:
            files = tuple(
                e
                for key in lists
                for e in commit.PartList.model_validate_json(store.read_bytes(key)).files
            )
            store.write_bytes(
                f"{part.folder}/manifest.json", commit._manifest(part, files).to_bytes()
            )
        return right(store, part)

    uploader.store_part = wrong
    uploader.main()


def small_parts() -> None:
    from components.shared.store import s3_store

    s3_store.TRANSFER.multipart_threshold = s3_store.TRANSFER.multipart_chunksize = PART_BYTES


@pytest.fixture(scope="module")
def forks() -> Any:
    return server(__name__, "components.shared.store.s3_store")


@pytest.fixture(params=["lora", "full"])
def method(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=["local", "s3"])
def scene(request: pytest.FixtureRequest, tmp_path: Path, method: str) -> Scene:
    small_parts()
    s3: S3Server | None = request.getfixturevalue("s3_env") if request.param == "s3" else None
    for epoch in (1, 2):
        for number, (name, num_bytes) in enumerate(
            (n, b) for part in SIZES[method].values() for n, b in part.items()
        ):
            path = tmp_path / f"epoch-{epoch}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(
                (f"{epoch}/{number}/{method} " * (num_bytes // 5)).encode()[:num_bytes]
            )
    store = open_store(s3.fresh_uri() if s3 else str(tmp_path / "store"))
    return Scene(tmp_path, store, method, {} if s3 is None else s3.env)


def run(context: Any, child: Child, point: Point = NOWHERE) -> int:
    process = start(context, child, point)
    process.join(60)
    assert process.exitcode is not None, "an uploader hangs"
    return process.exitcode


def kill_at(
    context: Any, scene: Scene, nth: int, *, killed_rank: int, call: Callable[..., object] = main
) -> tuple[bool, list[str]]:
    """Epoch 1 is committed and the other process's part of epoch 2 is stored; then this process's
    uploader is killed at its n-th point. Returns whether it was, and what readers got wrong then,
    or after the restart that follows."""
    scene.store_before(killed_rank)
    killed = run(context, scene.upload(killed_rank, 2, "a1", call=call), Point(nth)) == -9
    problems = [f"after the kill: {problem}" for problem in scene.read_problems(least_epoch=1)]
    for rank in (0, 1):
        scene.store_now(scene.part(rank, 2, "a2"))
    problems += [f"after the restart: {problem}" for problem in scene.read_problems(least_epoch=2)]
    return killed, problems


@pytest.mark.parametrize("killed_rank", [0, 1])
def test_an_uploader_killed_at_any_point_loses_nothing_and_misleads_no_one(
    forks: Any, scene: Scene, killed_rank: int, record_property: Callable[[str, object], None]
) -> None:
    points = points_of(forks, scene, killed_rank)
    findings: dict[str, list[str]] = {}
    num_killed = 0
    for nth in range(1, len(points) + 1):
        killed, problems = kill_at(forks, scene.fresh(f"k{nth}"), nth, killed_rank=killed_rank)
        num_killed += killed
        if problems:
            findings[f"{nth} {points[nth - 1]}"] = problems
    record_property(KILLED, (scene.method, num_killed))
    assert findings == {}
    # urllib3 sends a header and its body in one piece or in two, so that another run may have a few
    # points less.
    assert num_killed >= max(10, len(points) - 4)


def points_of(forks: Any, scene: Scene, killed_rank: int) -> list[str]:
    counted = scene.fresh("counted")
    counted.store_before(killed_rank)
    points = count_points(forks, counted.upload(killed_rank, 2, "a1"), scene.folder / "points")
    assert counted.read_problems(least_epoch=1 + killed_rank) == []
    return points


@pytest.mark.parametrize("scene", ["s3"], indirect=True)
def test_this_suite_notices_a_manifest_that_is_written_first(forks: Any, scene: Scene) -> None:
    findings = [
        problem
        for nth in range(4, 12)
        for problem in kill_at(
            forks, scene.fresh(f"m{nth}"), nth, killed_rank=1, call=manifest_first
        )[1]
    ]
    assert any("is not there, though its manifest names it" in problem for problem in findings), (
        findings
    )


@pytest.mark.parametrize("scene", ["s3"], indirect=True)
def test_gc_after_a_kill_removes_all_that_is_left_and_nothing_that_is_committed(
    forks: Any, scene: Scene
) -> None:
    points = points_of(forks, scene, 1)
    for nth in range(2, len(points), 3):
        run_scene = scene.fresh(f"g{nth}")
        kill_at(forks, run_scene, nth, killed_rank=1)
        orphans = find_orphans(
            run_scene.store, older_than=timedelta(0), now=datetime.now(UTC) + timedelta(minutes=1)
        )
        removed = list(remove_orphans(run_scene.store, orphans))
        assert run_scene.read_problems(least_epoch=2) == []
        committed = committed_checkpoints(run_scene.store)
        named = {
            f"{checkpoint.folder}/{entry.name}"
            for checkpoint in committed
            for entry in checkpoint.manifest.files
        }
        left = {found.key for found in run_scene.store.list("checkpoints/")} - named
        assert {key.rsplit("/", 1)[-1] for key in left} == {
            "manifest.json",
            "part-00000.json",
            "part-00001.json",
        }
        assert list(run_scene.store.unfinished("checkpoints/")) == []
        assert not any("manifest.json" in key for key in removed)
