"""Whatever a file holds that a person or the store hands in: it is read, or refused in few lines, soon, and never by a traceback."""

import json
import os
import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.shared.errors import HaganeError
from components.shared.printable import MOST_PROBLEMS
from components.shared.spec.file import load_spec, spec_from_parameter, spec_yaml
from components.shared.step import open_run
from components.shared.store.manifest import FileEntry, Manifest, fetch_folder
from components.shared.store.storage import open_store
from pipelines.kfp_api.connection import Asked, find_connection
from pipelines.schedules.file import load_schedules
from tests.support.hostile_text import damaged, damaged_json, damaged_override

BASE: dict[str, Any] = {
    "name": "fuzzed",
    "store": "s3://bucket/runs",
    "backend": "pytorchjob",
    "model": {"source": "org/name", "revision": "main"},
    "data": {"train": "s3://bucket/train.jsonl", "row_tokens": 256, "too_long": "drop"},
}
SECTIONS: dict[str, Any] = {
    "training": {"epochs": 2, "global_batch": 8, "micro_batch": "auto", "lr_peak": 2e-4, "drop_last": True, "seed": 1},
    "lora": {"rank": 4, "alpha": 8, "dropout": 0.1, "targets": ["q_proj", "v_proj"]},
    "zero": {"stage": 2, "offload_optimizer": "none"},
    "hardware": {"num_nodes": 2, "gpu": "a100-80gb", "host_memory_gib": 64},
    "checkpoints": {"every_minutes": 5, "keep": {"last": 2, "best": 1}, "on_failure": "stop"},
    "cluster": {"claims": {"models": "/models"}, "labels": {"team": "a"}, "user": "bob", "patch": {"spec": {"a": 1}}, "secrets": ["s"]},
    "evaluation": {"questions": ["What is 2 + 2?"], "rows": "auto", "must_improve": False},
}
SLOWEST_S = 5.0
"""For one document, of a core; the slowest of 10,000 took 0.11."""
CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]")


@pytest.fixture(scope="session")
def num_cases(request: pytest.FixtureRequest) -> int:
    return int(str(request.config.getoption("--hostile-cases")))


def base_spec(chance: random.Random) -> dict[str, Any]:
    """A small spec with one or two of the sections, so that reading it takes a millisecond."""
    names = chance.sample(list(SECTIONS), chance.randint(1, 2))
    return {**BASE, **{name: SECTIONS[name] for name in names}}


def refused(read: Callable[[], object], document: object) -> bool:
    """Whether reading it was refused; fails for a traceback, for a line that is not fit for a terminal, and for a long time."""
    start, error = time.process_time(), None
    try:
        read()
    except HaganeError as caught:
        error = caught
    except BaseException as caught:
        pytest.fail(f"{type(caught).__name__}: {str(caught)[:300]} for {str(document)[:2000]!r}")
    took_s = time.process_time() - start
    assert took_s < SLOWEST_S, f"took {took_s:.1f} s of a core: {str(document)[:2000]!r}"
    if error is None:
        return False
    assert error.exit_code == 2
    assert 1 <= len(error.lines) <= MOST_PROBLEMS + 1
    assert all(len(line) < 1500 and not CONTROLS.search(line) for line in error.lines), (error.lines, document)
    return True


def test_a_damaged_spec_is_refused_in_few_lines(num_cases: int, tmp_path: Path) -> None:
    path, num_refused = tmp_path / "spec.yaml", 0
    for seed in range(num_cases):
        chance = random.Random(seed)
        text = damaged(base_spec(chance), chance)
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        num_refused += refused(lambda: load_spec(path), text)
    assert 0.5 * num_cases < num_refused < num_cases, "the generator must damage most specs, and not all"


def test_a_nested_value_of_many_letters_is_cut_in_a_message(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    for train in ({"a": ["x"] * 1000}, [{"path": ["x"] * 1000}], [{"p" * 2000: "\x1b"}]):
        path.write_text(json.dumps({**BASE, "data": {"train": train}}))
        with pytest.raises(HaganeError) as caught:
            load_spec(path)
        assert all(len(line) < 400 and not CONTROLS.search(line) for line in caught.value.lines), caught.value.lines


def test_a_damaged_override_is_refused_in_few_lines(num_cases: int, tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text("name: a\nstore: s\nmodel: {source: m}\ndata: {train: t}\n")
    for seed in range(num_cases // 4):
        chance = random.Random(seed)
        overrides = [damaged_override({**BASE, **SECTIONS}, chance) for _ in range(chance.randint(1, 3))]
        refused(lambda given=overrides: load_spec(path, given), overrides)


def test_a_damaged_parameter_of_kfp_is_refused_in_few_lines(num_cases: int) -> None:
    for seed in range(num_cases // 4):
        chance = random.Random(seed)
        text = damaged_json(base_spec(chance), chance)
        try:
            tree = json.loads(text.decode("utf-8", "surrogatepass"))
        except (ValueError, RecursionError):
            continue
        if isinstance(tree, dict):
            refused(lambda given=tree: spec_from_parameter(given), text)


def test_a_damaged_file_of_schedules_is_refused_in_few_lines(num_cases: int, tmp_path: Path) -> None:
    (tmp_path / "weekly.yaml").write_text(json.dumps(BASE))
    schedule = {"name": "weekly", "cron": "0 3 * * 1", "time_zone": "Asia/Tokyo", "spec": "weekly.yaml", "overrides": {"lora.rank": 8}}
    tree = {"experiment": "e", "owner": "o", "server_time_zone": "UTC", "schedules": [schedule]}
    path = tmp_path / "schedules.yaml"
    for seed in range(num_cases // 10):
        text = damaged(tree, random.Random(seed))
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        refused(lambda: load_schedules(path), text)


def test_a_damaged_file_of_contexts_is_refused_in_few_lines(num_cases: int, tmp_path: Path) -> None:
    tree = {"current": "lab", "contexts": {"lab": {"endpoint": "https://kfp/pipeline", "token_env": "T", "ui": "https://kfp"}}}
    path = tmp_path / "kfp.yaml"
    path.touch(mode=0o600)
    for seed in range(num_cases // 10):
        text = damaged(tree, random.Random(seed))
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        refused(lambda: find_connection(Asked(), {"HAGANE_KFP_CONFIG": str(path), "T": "t"}), text)


def test_a_damaged_spec_in_the_store_is_refused_in_few_lines(num_cases: int, tmp_path: Path) -> None:
    for seed in range(num_cases // 10):
        chance = random.Random(seed)
        text = damaged(base_spec(chance), chance)
        (tmp_path / "spec.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
        refused(lambda: open_run(str(tmp_path)), text)


def test_a_spec_that_another_version_wrote_is_named_so(tmp_path: Path) -> None:
    spec = spec_from_parameter(BASE)
    (tmp_path / "spec.yaml").write_text(spec_yaml(spec) + "later: {field: 1}\n")
    with pytest.raises(HaganeError, match=r"spec\.yaml: is no spec of this version of hagane") as caught:
        open_run(str(tmp_path))
    assert "later: unknown key" in caught.value.problems[1]


def test_a_damaged_manifest_writes_nothing_outside(num_cases: int, tmp_path: Path) -> None:
    store, local = tmp_path / "store", tmp_path / "deep" / "local"
    entries = (FileEntry(name="a/b.txt", num_bytes=2, sha256="0" * 64),)
    tree = Manifest(folder="plan", made_by="render_config", inputs={"spec": "1"}, facts={"rows": 1}, files=entries).model_dump(mode="json")
    (store / "plan").mkdir(parents=True)
    (tmp_path / "etc").write_text("of the machine")
    for seed in range(num_cases // 10):
        content = damaged_json(tree, random.Random(seed))
        (store / "plan" / "manifest.json").write_bytes(content)
        refused(lambda: fetch_folder(open_store(str(store)), "plan", local), content)
    assert {path.name for path in tmp_path.iterdir()} <= {"store", "deep", "etc"}


@pytest.mark.parametrize("name", ["../out", "/etc/out", "a/../../out", "a\x00b", "a\nb", "", ".", "a//b", "x" * 5000])
def test_a_manifest_that_names_what_no_key_is_gets_one_line(name: str, tmp_path: Path) -> None:
    entry = FileEntry(name=name, num_bytes=0, sha256="0" * 64)
    manifest = Manifest(folder="plan", made_by="x", files=(entry,))
    (tmp_path / "plan").mkdir()
    (tmp_path / "plan" / "manifest.json").write_bytes(manifest.to_bytes())
    with pytest.raises(HaganeError) as caught:
        fetch_folder(open_store(str(tmp_path)), "plan", tmp_path / "local")
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: &a [1]\nb: *a\n" + "c: [" + "*a," * 11_000 + "]", "has more than 20,000 values"),
        ("a: " + "[" * 51 + "]" * 51, ":1: is nested deeper than 50 levels"),
        ("a: &a {k: *a}", ":1: an alias holds itself"),
        ("a: 1\nb: !!python/name:os.system x", ":2: tag '!!python/name:os.system' is not allowed"),
        ("a: 1\nb: " + "9" * 41, ":2: a number of 41 digits, allowed are 40"),
        ("a: 1\nb: a\x00b", ":2: not YAML: the character 0x0000 is not allowed in it"),
        ("a: " + "x" * 300_000, "has more than 262,144 bytes"),
    ],
)
def test_what_is_beyond_a_limit_is_named_with_its_line(text: str, line: str, tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(text)
    with pytest.raises(HaganeError) as caught:
        load_spec(path)
    assert len(caught.value.problems) == 1
    assert line in caught.value.problems[0]


def test_an_alias_within_the_limits_is_read_and_not_shared(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text("name: a\nstore: s\nmodel: {source: m}\ndata: {train: t}\ncluster: {labels: &l {a: b}, node_selector: *l}\n")
    spec = load_spec(path, ["cluster.labels.a=c"])
    assert (spec.cluster.labels, spec.cluster.node_selector) == ({"a": "c"}, {"a": "b"})


def test_a_date_is_text(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text("name: a\nstore: s\nmodel: {source: m, revision: 2024-02-30}\ndata: {train: t}\n")
    assert load_spec(path).model.revision == "2024-02-30"


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "spec.yaml")
    with pytest.raises(HaganeError, match="is no file"):
        load_spec(tmp_path / "spec.yaml")


def test_a_thousand_unknown_keys_are_fifty_lines_and_a_count(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text("name: a\nstore: s\nmodel: {source: m}\ndata: {train: t}\n" + "".join(f"key{n}: 1\n" for n in range(1000)))
    with pytest.raises(HaganeError) as caught:
        load_spec(path)
    assert len(caught.value.lines) == 51
    assert caught.value.lines[-1] == "and 950 more problems"
