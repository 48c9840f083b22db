import json
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from components.prepare_dataset.__main__ import check, prepare
from components.prepare_dataset.assemble import LoggedProgress
from components.prepare_dataset.claim import digest_of
from components.prepare_dataset.kfp_steps import kfp_step
from components.prepare_dataset.source import load_source
from components.render_config.__main__ import dataset_facts
from components.render_config.planner import Machine, make_plan
from components.shared.errors import DataError, HaganeError, ModelError, SpecError
from components.shared.log import set_up_log
from components.shared.spec.file import parse_spec, spec_from_parameter
from components.shared.spec.run_spec import RunSpec
from components.shared.store.layout import DATASET, PLAN
from components.shared.store.manifest import Manifest, publish_folder
from components.shared.store.storage import LocalStore, open_store
from tests.support.s3_server import S3Server
from tests.support.tiny_models import CHATML, write_conversations
from tests.unit.prepare_dataset.chat_templates import HISTORY_WITHOUT_REASONING
from tests.unit.prepare_dataset.conftest import Shown
from tests.unit.render_config.test_planner import CONFIG


@pytest.fixture
def spec(tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> RunSpec:
    monkeypatch.setenv("HAGANE_WORK", str(tmp_path / "work"))
    write_conversations(tmp_path / "train.jsonl", 40, seed=1)
    write_conversations(tmp_path / "held_out.jsonl", 8, seed=2)
    data = {
        "train": str(tmp_path / "train.jsonl"),
        "held_out": str(tmp_path / "held_out.jsonl"),
        "row_tokens": 256,
    }
    return parse_spec(
        {
            "name": "r",
            "store": str(tmp_path / "store"),
            "model": {"source": str(model_folder)},
            "data": data,
        }
    )


def _changed(spec: RunSpec, **data: object) -> RunSpec:
    tree = spec.model_dump(mode="json")
    return parse_spec({**tree, "data": {**tree["data"], **data}})


def _prepare(spec: RunSpec) -> Manifest:
    return prepare(spec, set_up_log("prepare_dataset"))


def _rows(spec: RunSpec, name: str) -> list[dict[str, list[int]]]:
    return pq.read_table(Path(spec.run_uri) / DATASET / name).to_pylist()


def _with_records(
    spec: RunSpec, *records: list[tuple[str, str]], template: str = "", **data: object
) -> RunSpec:
    """The spec with a training file of these turns, a tenth of them held out, and this template, if
    any."""
    path = Path(spec.data.train_name)
    turns = [[{"role": role, "content": content} for role, content in record] for record in records]
    path.write_text(
        "".join(json.dumps({"messages": each}) + "\n" for each in turns), encoding="utf-8"
    )
    if template:
        path.with_suffix(".jinja").write_text(template)
        data["chat_template"] = str(path.with_suffix(".jinja"))
    return _changed(spec, held_out=None, held_out_share=0.1, **data)


def _warnings(spec: RunSpec) -> list[str]:
    _prepare(spec)
    return json.loads((Path(spec.run_uri) / DATASET / "quality.json").read_text())["warnings"]


def test_one_question_with_many_answers_warns_that_held_out_loss_flatters(spec: RunSpec) -> None:
    (warning,) = _warnings(
        _with_records(spec, *([("user", "q"), ("assistant", f"answer {n}")] for n in range(40)))
    )
    held_out = warning.split()[0]
    assert warning.startswith(
        f"{held_out} of {held_out} held-out conversations begin with a question that is trained on "
        "too"
    )
    assert "data.held_out_by: prompt" in warning


def test_equal_questions_are_on_one_side_unless_asked_otherwise(spec: RunSpec) -> None:
    records = [[("user", f"q{n % 20}"), ("assistant", f"answer {n}")] for n in range(80)]
    assert not _warnings(_with_records(spec, *records))
    assert _warnings(_with_records(spec, *records, held_out_by="conversation"))


def test_a_template_that_leaves_out_system_turns_is_warned_of_with_their_number(
    spec: RunSpec,
) -> None:
    template = (
        "{% set messages = messages | rejectattr('role', 'equalto', 'system') | list %}" + CHATML
    )
    records = [
        [("system", "Answer in French."), ("user", f"q{n}"), ("assistant", "Oui.")]
        for n in range(6)
    ]
    (warning,) = _warnings(_with_records(spec, *records, template=template))
    assert "leaves out system turns, or words of them, in 6 conversations" in warning


def test_a_template_without_generation_prompt_is_warned_of(spec: RunSpec) -> None:
    template = CHATML.split("{% if add_generation_prompt %}")[0]
    (warning,) = _warnings(
        _with_records(
            spec, *([("user", f"q{n}"), ("assistant", "a")] for n in range(6)), template=template
        )
    )
    assert "does not answer to add_generation_prompt, so in 6 conversations" in warning


def test_what_is_dropped_is_reported_as_a_share_of_the_tokens(spec: RunSpec) -> None:
    records = [
        [("user", f"q{n}"), ("assistant", "42 " * (2000 if n % 20 == 0 else 1))] for n in range(100)
    ]
    (warning,) = _warnings(_with_records(spec, *records, too_long="drop"))
    assert warning.startswith(
        "5 conversations longer than data.row_tokens were left out: 5.0% of all, "
    )
    assert 60 < float(warning.split(", ")[1].split("%")[0]) < 99


def test_system_turns_without_text_are_left_out_and_counted(spec: RunSpec) -> None:
    records = [[("system", ""), ("user", f"q{n}"), ("assistant", "a")] for n in range(6)]
    assert _warnings(_with_records(spec, *records)) == ["6 system turns without text were left out"]


def test_reasoning_that_history_leaves_out_gives_more_samples_than_conversations(
    spec: RunSpec,
) -> None:
    talk = [
        ("user", "q"),
        ("assistant", "<think>\nr\n</think>\n\na"),
        ("user", "s"),
        ("assistant", "<think>\nt\n</think>\n\nb"),
    ]
    asked = _with_records(
        spec,
        *([("user", f"q{n}"), *talk[1:]] for n in range(10)),
        template=HISTORY_WITHOUT_REASONING,
    )
    facts = _prepare(asked).facts
    quality = json.loads((Path(spec.run_uri) / DATASET / "quality.json").read_text())
    assert (
        quality["train"]["samples"]
        == 2 * quality["train"]["conversations"]
        == 2 * int(facts["num_conversations"] or 0)
    )


def test_a_dataset_holds_what_its_manifest_counts(spec: RunSpec) -> None:
    facts = _prepare(spec).facts
    rows, held_out = _rows(spec, "train.parquet"), _rows(spec, "held_out.parquet")
    assert (facts["num_rows"], facts["held_out_rows"]) == (len(rows), len(held_out))
    assert (facts["num_conversations"], facts["held_out_conversations"]) == (40, 8) == tuple(
        sum(len(row["lengths"]) for row in part) for part in (rows, held_out)
    )  # fmt: skip
    assert facts["num_tokens"] == sum(len(row["input_ids"]) for row in rows)
    assert facts["num_trained_tokens"] == sum(
        label != -100 for row in rows for label in row["labels"]
    )
    assert all(sum(row["lengths"]) == len(row["input_ids"]) <= 256 for row in rows)


def _of_type(spec: RunSpec, model_type: str, tmp_path: Path) -> RunSpec:
    """The same spec for a model of another type."""
    folder = shutil.copytree(spec.model.source, tmp_path / model_type)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type, "vocab_size": 400}))
    return parse_spec({**spec.model_dump(mode="json"), "model": {"source": str(folder)}})


def test_a_model_that_would_mix_conversations_gets_one_a_row(spec: RunSpec, tmp_path: Path) -> None:
    facts = _prepare(_of_type(spec, "bloom", tmp_path)).facts
    rows, held_out = _rows(spec, "train.parquet"), _rows(spec, "held_out.parquet")
    assert (
        (facts["packed"], facts["num_rows"], facts["held_out_rows"])
        == (False, 40, 8)
        == (False, len(rows), len(held_out))
    )
    assert all(row["lengths"] == [len(row["input_ids"])] for row in (*rows, *held_out))
    assert facts["longest_conversation"] == max(len(row["input_ids"]) for row in (*rows, *held_out))


def test_packing_can_be_switched_off_and_asks_for_a_new_dataset(spec: RunSpec) -> None:
    packed, apart = (
        _prepare(spec),
        load_source(_changed(spec, packing=False), now=datetime(2026, 1, 1)),
    )
    assert packed.facts["packed"]
    assert not apart.model.packing.packed
    assert apart.inputs["spec"] != packed.inputs["spec"]


@pytest.mark.parametrize("model_type", ["bert", "trocr", "t5"])
def test_a_type_that_cannot_be_trained_is_refused_before_the_run_is_claimed(
    spec: RunSpec, model_type: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=r"model\.source: found"):
        _prepare(_of_type(spec, model_type, tmp_path))
    assert not (tmp_path / "store").exists()


def test_the_folder_is_finished_and_tells_what_it_was_made_from(spec: RunSpec) -> None:
    manifest = _prepare(spec)
    assert [file.name for file in manifest.files] == [
        "held_out.parquet",
        "page.html",
        "prompts.json",
        "quality.json",
        "tokenizer_sample.json",
        "train.parquet",
    ]
    assert set(manifest.inputs) == {"spec", "train", "held_out", "tokenizer", "template"}
    assert manifest.facts["train_sha256"] == manifest.inputs["train"]
    assert manifest.facts["model_revision"] is None


def test_the_same_work_gives_the_same_bytes(spec: RunSpec, tmp_path: Path) -> None:
    elsewhere = spec.model_copy(update={"store": str(tmp_path / "other")})
    assert _prepare(spec) == _prepare(elsewhere)


def test_preparing_again_changes_nothing(spec: RunSpec, capsys: pytest.CaptureFixture[str]) -> None:
    first = _prepare(spec)
    parquet = Path(spec.run_uri) / DATASET / "train.parquet"
    parquet.write_bytes(b"would be written again")
    assert _prepare(spec) == first
    assert parquet.read_bytes() == b"would be written again"
    assert "event=already_done" in capsys.readouterr().out


def test_other_data_is_prepared_anew_as_long_as_no_plan_was_made(spec: RunSpec) -> None:
    first = _prepare(spec)
    write_conversations(Path(spec.data.train_name), 39, seed=1)
    assert _prepare(spec).facts["num_conversations"] == 39 != first.facts["num_conversations"]


def test_a_run_that_another_version_of_hagane_planned_is_refused_as_that(
    spec: RunSpec, tmp_path: Path
) -> None:
    store, first = LocalStore(Path(spec.run_uri)), _prepare(spec)
    older = first.model_copy(update={"inputs": {**first.inputs, "spec": "of an older version"}})
    store.write_bytes(f"{DATASET}/manifest.json", older.to_bytes())
    (tmp_path / "plan").mkdir()
    publish_folder(
        store, PLAN, tmp_path / "plan", made_by="test", inputs={"dataset": older.digest}, facts={}
    )
    with pytest.raises(
        DataError,
        match=(
            r"^run 'r' was prepared and planned by another version of hagane, .*; finish it with "
            r"that version"
        ),
    ):
        _prepare(spec)


def test_data_that_changes_after_planning_is_refused(spec: RunSpec, tmp_path: Path) -> None:
    first = _prepare(spec)
    (tmp_path / "plan").mkdir()
    publish_folder(
        LocalStore(Path(spec.run_uri)),
        PLAN,
        tmp_path / "plan",
        made_by="test",
        inputs={"dataset": first.digest},
        facts={},
    )
    original = Path(spec.data.train_name).read_bytes()
    write_conversations(Path(spec.data.train_name), 39, seed=1)
    with pytest.raises(
        DataError,
        match=(
            r"train.jsonl: changed since run 'r' was prepared and planned; put it back, or set "
            r"another name"
        ),
    ):
        _prepare(spec)
    Path(spec.data.train_name).write_bytes(original)
    assert _prepare(spec) == first


def test_without_a_held_out_file_a_share_of_train_is_kept_from_training(spec: RunSpec) -> None:
    shared = _changed(spec, held_out=None, held_out_share=0.2)
    facts = _prepare(shared).facts
    assert (facts["num_conversations"] or 0) + (facts["held_out_conversations"] or 0) == 40  # pyright: ignore[reportOperatorIssue]
    assert facts["held_out_sha256"] is None
    trained = {tuple(row["input_ids"]) for row in _rows(shared, "train.parquet")}
    assert not trained & {tuple(row["input_ids"]) for row in _rows(shared, "held_out.parquet")}


def test_a_held_out_share_of_0_trains_on_everything_and_says_what_is_lost(spec: RunSpec) -> None:
    everything = _changed(spec, held_out=None, held_out_share=0)
    facts = _prepare(everything).facts
    assert (
        facts["num_conversations"],
        facts["held_out_conversations"],
        facts["held_out_rows"],
    ) == (40, 0, 0)
    assert pq.read_table(Path(everything.run_uri) / DATASET / "held_out.parquet").num_rows == 0
    page = (Path(everything.run_uri) / DATASET / "page.html").read_text()
    assert "nothing is held out: no held-out loss is measured" in page
    assert "The training set" in page
    assert check(everything) == []


def test_the_best_checkpoint_is_not_asked_for_where_nothing_is_held_out(spec: RunSpec) -> None:
    tree = _changed(spec, held_out=None, held_out_share=0).model_dump(mode="json")
    with pytest.raises(
        SpecError, match=r"checkpoints.keep.best: got 2, but data.held_out_share is 0"
    ):
        spec_from_parameter({**tree, "checkpoints": {"keep": {"best": 2}}})


BAD = [
    '{"messages": [{"role": "user", "content": "q"}]}',
    '{"messages": [{"role": "user", "content": "q"}]}',
    '{"messages": ',
    '{"messages": [{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}]}',
]
REFUSES_TWO_ANSWERS = CHATML.replace(
    "{% for message in messages %}",
    "{% for message in messages %}{% if loop.previtem and loop.previtem.role == message.role %}"
    "{{ raise_exception('alternate') }}{% endif %}",
)


def _with_bad_records(spec: RunSpec, **data: object) -> RunSpec:
    path = Path(spec.data.train_name)
    path.write_text(path.read_text() + "\n".join(BAD) + "\n")
    path.with_suffix(".jinja").write_text(REFUSES_TWO_ANSWERS)
    return _changed(spec, chat_template=str(path.with_suffix(".jinja")), **data)


def test_bad_records_stop_the_run_unless_they_may_be_skipped(spec: RunSpec) -> None:
    with pytest.raises(DataError) as raised:
        _prepare(_with_bad_records(spec))
    assert (
        len(raised.value.problems) == 2
    )  # what the template refuses is seen once the records are read


def test_skipped_records_are_counted_and_shown_with_their_reasons(spec: RunSpec) -> None:
    lenient = _with_bad_records(spec, on_bad_record="skip")
    assert check(lenient) == []
    facts = _prepare(lenient).facts
    assert (facts["skipped"], facts["num_conversations"]) == (4, 40)
    quality = json.loads((Path(lenient.run_uri) / DATASET / "quality.json").read_text())
    count, *reasons = quality["warnings"][:4]
    assert count == "4 bad records were skipped (data.on_bad_record)"
    name = spec.data.train_name
    assert reasons[0].startswith(
        f"skipped: {name}:41: messages: no assistant turn, so nothing to learn"
    )
    assert reasons[0].endswith(f"(the same in 1 other, next {name}:42)")
    assert reasons[1].startswith(f"skipped: {name}:43: not JSON")
    assert "alternate" in reasons[2]


def test_more_bad_records_than_the_limit_stop_the_run_in_check_and_prepare(spec: RunSpec) -> None:
    strict = _with_bad_records(spec, on_bad_record="skip", max_bad_records=3)
    with pytest.raises(DataError) as raised:
        _prepare(strict)
    assert raised.value.problems[0].startswith(
        "data.max_bad_records: 4 of 52 records are bad, allowed to skip: 3. Fix: correct them"
    )
    assert check(strict) == list(raised.value.problems)


REFUSED = [("user", "q"), ("assistant", "a"), ("assistant", "b")]
TOO_LONG = [("user", "q"), ("assistant", "とても長い。" * 100)]


@pytest.mark.parametrize("records", [[REFUSED], [TOO_LONG], [REFUSED, TOO_LONG]])
def test_a_run_whose_held_out_records_are_all_left_out_is_refused(
    spec: RunSpec, records: list[list[tuple[str, str]]]
) -> None:
    """Nothing could be measured, and the run would say so after training."""
    turns = [
        {"messages": [{"role": role, "content": content} for role, content in each]}
        for each in records
    ]
    Path(spec.data.held_out_name or "").write_text(
        "".join(json.dumps(each) + "\n" for each in turns)
    )
    template = Path(spec.data.train_name).with_suffix(".jinja")
    template.write_text(REFUSES_TWO_ANSWERS)
    lenient = _changed(spec, chat_template=str(template), on_bad_record="skip", too_long="drop")
    with pytest.raises(DataError, match=r"^data.held_out: every (record|conversation) is "):
        _prepare(lenient)
    (line,) = check(lenient)
    assert line.startswith(
        "data.held_out: every record is bad, refused by the template or longer than a row"
    )


def test_a_held_out_share_of_records_that_are_left_out_is_refused(spec: RunSpec) -> None:
    talks = [[("user", f"q{number}"), ("assistant", "a")] for number in range(8)]
    held_out = load_source(_with_records(spec, *talks), now=datetime.now()).records.held_out
    questions = {each.messages[0].content for each in held_out}
    longer = [
        [talk[0], ("assistant", "とても長い。" * 100)] if talk[0][1] in questions else talk
        for talk in talks
    ]
    dropping = _with_records(spec, *longer, too_long="drop")
    assert check(dropping)[0].startswith("data.held_out_share: 0.1 of data.train was set aside")
    with pytest.raises(DataError):
        _prepare(dropping)


def test_a_file_that_cannot_be_read_to_its_end_is_never_skipped(
    spec: RunSpec, tmp_path: Path
) -> None:
    (tmp_path / "cut.json").write_text('[{"instruction": "q", "output": "a"}, {"instruction": "q')
    with pytest.raises(DataError, match=r"cut.json:1: the JSON list cannot be read on"):
        _prepare(_changed(spec, train=str(tmp_path / "cut.json"), on_bad_record="skip"))
    (tmp_path / "bad.jsonl").write_text("x\ny\n")
    with pytest.raises(DataError, match=r"bad.jsonl: every record is bad, none is left"):
        _prepare(_changed(spec, train=str(tmp_path / "bad.jsonl"), on_bad_record="skip"))


def test_a_list_of_sources_is_one_training_set_and_repeats_only_what_is_trained_on(
    spec: RunSpec, tmp_path: Path
) -> None:
    (tmp_path / "alpaca.json").write_text(
        json.dumps([{"instruction": f"q{n}", "output": f"a{n}"} for n in range(5)])
    )
    sources = [
        spec.data.train_name,
        {"path": str(tmp_path / "alpaca.json"), "format": "alpaca", "repeat": 3},
    ]
    mixed = _changed(spec, train=sources)
    facts = _prepare(mixed).facts
    assert facts["num_conversations"] == 45
    assert sum(len(row["lengths"]) for row in _rows(mixed, "train.parquet")) == 40 + 3 * 5
    quality = (Path(mixed.run_uri) / DATASET / "quality.json").read_text()
    assert "stand more than once" not in quality
    assert "alpaca.json: 15 records in an epoch, 5 were read" in quality


def test_what_is_wrong_with_a_list_of_sources_is_one_line(spec: RunSpec) -> None:
    tree = spec.model_dump(mode="json")
    for train, reported in (
        ([{"path": "a", "formt": "x"}], "source 1: formt: got 'x'"),
        (
            [{"path": "a", "weight": 1}, "b"],
            "source 2: has no weight, others have one; give each source a weight, or none",
        ),
        ([{"path": "a", "repeat": 0}], "source 1: repeat: got 0"),
        ([], "got [], must be a path, or a list"),
        (3, "got 3"),
    ):
        with pytest.raises(SpecError) as raised:
            spec_from_parameter({**tree, "data": {"train": train}})
        (problem,) = raised.value.problems
        assert problem.startswith("spec: data.train: ")
        assert reported in problem


@pytest.mark.parametrize("field", ["repeat", "weight"])
def test_held_out_sources_are_measured_once_and_have_no_weight(spec: RunSpec, field: str) -> None:
    tree = spec.model_dump(mode="json")
    sources = [spec.data.held_out_name, {"path": "a", field: 2}]
    with pytest.raises(SpecError) as raised:
        spec_from_parameter(
            {
                **tree,
                "data": {**tree["data"], "held_out": sources[1:] if field == "weight" else sources},
            }
        )
    number = 1 if field == "weight" else 2
    (problem,) = raised.value.problems
    assert f"data.held_out: source {number}: {field}: not for held-out sources" in problem
    assert len(_changed(spec, held_out=sources[:1]).data.held_out_sources) == 1


def test_198_conversations_of_batch_1_in_5_epochs_are_990_steps(spec: RunSpec) -> None:
    write_conversations(Path(spec.data.train_name), 198, seed=1)
    tree = _changed(spec, packing=False).model_dump(mode="json")
    one_a_row = parse_spec(
        {**tree, "training": {"global_batch": 1, "epochs": 5}, "hardware": {"host_memory_gib": 8}}
    )
    facts = dataset_facts(_prepare(one_a_row))
    assert facts.num_rows == 198
    assert make_plan(one_a_row, facts, CONFIG, machine=Machine()).steps.total_steps == 990


def test_automatic_rows_hold_the_longest_conversation(spec: RunSpec) -> None:
    facts = _prepare(_changed(spec, row_tokens="auto")).facts
    assert (facts["row_tokens"], facts["dropped"]) == (512, 0)  # all positions of the model
    unpacked = _changed(spec, row_tokens="auto", packing=False)
    shorter = _prepare(unpacked.model_copy(update={"name": "unpacked"})).facts
    assert shorter["row_tokens"] == -(-int(shorter["longest_conversation"] or 0) // 64) * 64
    assert check(unpacked) == []


def test_automatic_rows_are_as_long_as_what_the_mixture_takes(
    spec: RunSpec, tmp_path: Path
) -> None:
    short = "".join(json.dumps({"prompt": f"q{n}", "completion": "a"}) + "\n" for n in range(8))
    (tmp_path / "short.jsonl").write_text(short)
    (tmp_path / "held_out.jsonl").write_text(short)
    sources = [
        {"path": str(tmp_path / "short.jsonl")},
        {"path": spec.data.train_name, "repeat": 1e-9},
    ]
    mixed = _changed(spec, train=sources, row_tokens="auto", packing=False)
    facts = _prepare(mixed).facts
    assert (facts["num_conversations"], facts["row_tokens"]) == (8, 64)


def test_a_long_text_is_cut_and_not_dropped_for_automatic_rows(
    spec: RunSpec, tmp_path: Path
) -> None:
    sentence = "12 plus 7 is 19. 港の色は青です。"
    texts = [*({"text": f"text {n} {sentence * 8}"} for n in range(600)), {"text": sentence * 40}]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(each) + "\n" for each in texts))
    long = _changed(
        spec, train=str(tmp_path / "texts.jsonl"), row_tokens="auto", too_long="drop", packing=False
    )
    facts = _prepare(long).facts
    assert (facts["dropped"], facts["row_tokens"]) == (0, 448)


def test_automatic_rows_are_refused_where_the_model_knows_too_few_positions(spec: RunSpec) -> None:
    long = _with_records(
        spec,
        *([("user", f"q{n}"), ("assistant", "word " * 400)] for n in range(10)),
        row_tokens="auto",
    )
    with pytest.raises(
        DataError,
        match=(
            r"data.row_tokens: auto makes rows of at most 512 tokens, .* and 10 of 10 "
            r"conversations have more"
        ),
    ):
        _prepare(long)
    assert check(long)


def test_conversations_too_long_for_a_row_are_refused_with_both_ways_out(spec: RunSpec) -> None:
    with pytest.raises(DataError) as raised:
        _prepare(_changed(spec, row_tokens=70))
    (line,) = raised.value.problems
    longest = int(line.split("at least ")[1].split(",")[0])
    assert line.endswith(f"; set data.row_tokens to at least {longest}, or data.too_long: drop")
    assert _prepare(_changed(spec, row_tokens=longest)).facts["dropped"] == 0
    with pytest.raises(DataError):
        _prepare(_changed(spec, row_tokens=longest - 1))


def test_conversations_too_long_for_a_row_are_dropped_and_counted_on_demand(
    spec: RunSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = _prepare(_changed(spec, row_tokens=70, too_long="drop")).facts
    kept = facts["num_conversations"], facts["held_out_conversations"]
    assert isinstance(facts["dropped"], int)
    assert facts["dropped"] > 0
    assert facts["dropped"] == 48 - sum(count for count in kept if isinstance(count, int))
    assert "longer than data.row_tokens were left out" in capsys.readouterr().out


def test_dropping_everything_is_refused(spec: RunSpec) -> None:
    with pytest.raises(
        DataError,
        match=r"data.train: every conversation is longer than data.row_tokens 16, none is left",
    ):
        _prepare(_changed(spec, row_tokens=16, too_long="drop"))


def test_problems_of_data_and_model_come_together_and_claim_nothing(
    spec: RunSpec, tmp_path: Path
) -> None:
    Path(spec.data.train_name).write_text('{"messages": 3}\n')
    broken = spec.model_copy(
        update={"model": spec.model.model_copy(update={"source": "./nowhere"})}
    )
    with pytest.raises(HaganeError) as raised:
        _prepare(broken)
    assert [problem.split(": ")[1] for problem in raised.value.problems] == [
        "messages",
        "no folder './nowhere'; make it, or name a hub id such as org/name",
    ]
    assert not (tmp_path / "store").exists()


def test_a_config_alone_is_said_in_one_line_with_what_can_be_planned_from_it(
    spec: RunSpec, model_folder: Path, tmp_path: Path
) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(model_folder / "config.json", alone)
    model = spec.model.model_copy(update={"source": str(alone)})
    (line,) = check(spec.model_copy(update={"model": model}))
    assert line.startswith(
        f"model.source: {alone} has config.json, but no tokenizer and no weights"
    )
    assert "Fix: hagane plan SPEC --rows COUNT" in line
    shutil.copy(model_folder / "tokenizer.json", alone)
    lines = check(spec.model_copy(update={"model": model}))
    assert any("tokenizer_config.json: no such file" in each for each in lines)


def test_a_model_without_template_prepares_with_the_plain_one(
    spec: RunSpec, model_folder: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    base.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (base / name).write_bytes((model_folder / name).read_bytes())
    (base / "tokenizer_config.json").write_text(
        '{"bos_token": "<|bos|>", "eos_token": "<|im_end|>"}'
    )
    of_base = spec.model_copy(update={"model": spec.model.model_copy(update={"source": str(base)})})
    with pytest.raises(ModelError, match=r"specs/templates/plain.jinja"):
        _prepare(of_base)
    _prepare(_changed(of_base, chat_template="specs/templates/plain.jinja"))
    example = json.loads((Path(spec.run_uri) / DATASET / "quality.json").read_text())["examples"][0]
    assert example[0]["text"].startswith("<|bos|>The answer is short.\n\nUser: ")


def test_checking_tells_every_problem_and_writes_nothing(spec: RunSpec, tmp_path: Path) -> None:
    assert check(spec) == []
    with Path(spec.data.train_name).open("a") as stream:
        stream.write("{}\n[]\n")
    assert len(check(_changed(spec, chat_template="nope.jinja"))) == 3
    assert not (tmp_path / "store").exists()


def test_checking_renders_every_conversation(spec: RunSpec) -> None:
    records = [[("user", f"q{n}"), ("assistant", "a" * 30)] for n in range(600)]
    records[300] = [("user", "q"), ("user", "twice"), ("assistant", "a")]
    alternating = (
        "{% if messages[1:] and messages[1].role == 'user' %}{{ raise_exception('roles must "
        "alternate') }}{% endif %}"
    )
    (line,) = check(_with_records(spec, *records, template=alternating + CHATML))
    assert "train.jsonl:301: " in line
    assert "roles must alternate" in line


def test_checking_finds_a_long_conversation_among_the_last(spec: RunSpec) -> None:
    talk = {
        "messages": [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "とても長い。" * 100},
        ]
    }
    with Path(spec.data.train_name).open("a") as stream:
        stream.write(json.dumps(talk) + "\n")
    (line,) = check(spec)
    assert "conversations looked at have more than 256 tokens, the longest" in line
    assert "train.jsonl:41" in line


def test_kfp_gets_the_manifest_the_page_the_numbers_and_the_digest(
    spec: RunSpec, tmp_path: Path, shown: Shown
) -> None:
    inputs = digest_of(_prepare(spec).inputs)
    paths = {"manifest_path": str(tmp_path / "m"), "page_path": str(tmp_path / "p")}
    digest = kfp_step(spec.run_uri, spec_digest=spec.digest, inputs=inputs, metrics=shown, **paths)
    assert digest == Manifest.model_validate_json((tmp_path / "m").read_bytes()).digest
    assert (tmp_path / "p").read_bytes() == (
        Path(spec.run_uri) / DATASET / "page.html"
    ).read_bytes()
    assert shown.numbers["num_conversations"] == 40
    assert json.loads(Path(shown.path).read_text()) == shown.numbers


def test_data_and_template_may_be_objects_of_a_store_and_are_reported_by_their_uri(
    spec: RunSpec, s3_env: S3Server
) -> None:
    store = open_store(s3_env.fresh_uri())
    store.upload(Path(spec.data.train_name), "in/train.jsonl")
    store.upload(Path("specs/templates/plain.jinja"), "plain.jinja")
    uris = {"train": f"{store.uri}/in/train.jsonl", "chat_template": f"{store.uri}/plain.jinja"}
    local = _prepare(_changed(spec, chat_template="specs/templates/plain.jinja"))
    remote = _prepare(_changed(spec, **uris))
    assert {name: remote.inputs[name] for name in ("train", "template")} == {
        name: local.inputs[name] for name in ("train", "template")
    }
    store.write_bytes("bad.jsonl", b'{"messages": 3}\n')
    reported = check(
        _changed(spec, train=f"{store.uri}/bad.jsonl", chat_template=f"{store.uri}/none.jinja")
    )
    assert reported[0].startswith(f"{store.uri}/bad.jsonl:1: messages: found a number")
    assert reported[1].startswith(f"{store.uri}/none.jinja: no such object")


def test_the_command_checks_a_spec_file_with_overrides_and_exits_2_on_problems(
    spec: RunSpec, tmp_path: Path
) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(yaml.safe_dump(spec.model_dump(mode="json")))
    command = [sys.executable, "-m", "components.prepare_dataset", "--spec", str(file), "--check"]
    good = subprocess.run(command, capture_output=True, text=True, check=False)
    bad = subprocess.run(
        [*command, "--set", "data.train=nope.jsonl"], capture_output=True, text=True, check=False
    )
    assert (good.returncode, bad.returncode) == (0, 2)
    assert "event=checked" in good.stdout
    assert "nope.jsonl: no such file" in bad.stdout


def test_progress_is_reported_at_most_once_a_second_and_at_the_end() -> None:
    reported: list[tuple[int, float]] = []
    seconds = iter([0.0, 0.4, 1.2, 1.5, 3.0, 3.1])
    progress = LoggedProgress(
        lambda event, **fields: reported.append((fields["done"], fields["left_s"])),
        clock=lambda: next(seconds),
    )
    for done in (10, 20, 30, 40, 50):
        progress(done, 50)
    assert reported == [(20, 1.8), (40, 0.8), (50, 0.0)]
