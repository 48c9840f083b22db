import shutil
from pathlib import Path

import pytest

from components.shared.errors import SpecError
from components.shared.spec.training import TrainingSpec
from pipelines.schedules.file import load_schedules

UI_SPEC = Path(__file__).parents[4] / "specs" / "from-the-ui.yaml"


def problems(folder: Path, text: str) -> tuple[str, ...]:
    shutil.copy(UI_SPEC, folder / "spec.yaml")
    (folder / "schedules.yaml").write_text(text)
    with pytest.raises(SpecError) as reported:
        load_schedules(folder / "schedules.yaml")
    return tuple(line.replace(f"{folder}/", "") for line in reported.value.problems)


def test_every_wrong_field_is_reported_with_its_line(tmp_path: Path) -> None:
    assert problems(
        tmp_path,
        """\
schedules:
  - name: Weekly
    cron: "0 25 * * *"
    spec: spec.yaml
    concurency: 2
  - name: nightly
    cron: "0 3 * * *"
    time_zone: Asia/Tokio
    spec: spec.yaml
    concurrency: 11
    notify: sometimes
  - cron: "* * *"
    enabled: "yes"
    enabled: true
owner: Me
""",
    ) == (
        "schedules.yaml:14: schedules.2.enabled: given twice, first in line 13",
        "schedules.yaml:15: owner: got 'Me', must be small letters, digits, hyphens and dots",
        "schedules.yaml:2: schedules.0.name: got 'Weekly', must be 1 to 41 small letters, digits "
        "and hyphens, the first a letter, the last no hyphen",
        "schedules.yaml:3: schedules.0.cron: hour: got '25', must be within 0 to 23",
        "schedules.yaml:5: schedules.0.concurency: unknown key; did you mean 'concurrency'? "
        "allowed: name, cron, time_zone, spec, overrides, enabled, concurrency, catch_up, "
        "service_account, notify, skip_if_unchanged",
        (
            "schedules.yaml:8: schedules.1.time_zone: got 'Asia/Tokio', must be a name of the "
            "IANA data base, such as Asia/Tokyo or UTC"
        ),
        "schedules.yaml:10: schedules.1.concurrency: got 11, must be at most 10",
        (
            "schedules.yaml:11: schedules.1.notify: got 'sometimes', allowed: 'never', 'failure' "
            "or 'always'"
        ),
        "schedules.yaml:12: schedules.2.name: missing; this field has no default",
        (
            "schedules.yaml:12: schedules.2.cron: got '* * *', must be 5 fields (minute hour day "
            "month weekday) or 6 (seconds first)"
        ),
        "schedules.yaml:12: schedules.2.spec: missing; this field has no default",
    )


def test_specs_are_checked_with_their_overrides_as_they_are_when_submitted(tmp_path: Path) -> None:
    (tmp_path / "local.yaml").write_text(
        "name: r\nstore: runs\nmodel: {source: org/m}\ndata: {train: train.jsonl}\n"
    )
    assert problems(
        tmp_path,
        """\
schedules:
  - {name: a, cron: "0 3 * * *", spec: spec.yaml, overrides: {training.epochs: 0, training.epoch: 3}}
  - {name: b, cron: "0 3 * * *", spec: none.yaml}
  - {name: c, cron: "0 3 * * *", spec: local.yaml}
  - {name: c, cron: "0 3 * * *", spec: spec.yaml}
  - {name: d, cron: "0 3 1 * *", spec: spec.yaml, time_zone: Asia/Tokyo}
""",  # noqa: E501
    ) == (
        "schedules.yaml:4: schedules.2.name: 'c' is given twice",
        "schedules.yaml:5: schedules.3.name: 'c' is given twice",
        "schedules.yaml:2: a: --set training.epochs=0: training.epochs: got 0, must be at least 1",
        (
            "schedules.yaml:2: a: --set training.epoch=3: training.epoch: unknown key; did you "
            "mean 'epochs'? allowed: "
        )
        + ", ".join(TrainingSpec.model_fields),
        (
            "schedules.yaml:3: b: none.yaml: no such file; here are: local.yaml, schedules.yaml, "
            "spec.yaml"
        ),
        "schedules.yaml:4: c: backend: got 'local', but the steps' images hold no trainer; must "
        "be pytorchjob or trainjob (--set backend=pytorchjob)",
        (
            "schedules.yaml:4: c: store: got folder 'runs', but pods of a cluster share no "
            "folder; must be s3://bucket/prefix"
        ),
        "schedules.yaml:4: c: data.train: 'train.jsonl' is a file of this machine, which no pod "
        "sees; put it into the store and name it s3://…",
        "schedules.yaml:6: d: time_zone: got '0 0 3 1 * *', which no single cron expression says "
        "in the server's zone 'UTC'; write it in that zone",
    )


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "- a\n",
            "schedules.yaml: found list, must be a mapping of fields; see docs/from-the-ui.md",
        ),
        ("a: [\n", "schedules.yaml:2: not YAML: "),
    ],
)
def test_what_is_no_file_of_schedules_is_reported(text: str, line: str, tmp_path: Path) -> None:
    (reported,) = problems(tmp_path, text)
    assert reported.startswith(line)


def test_what_kfp_or_argo_would_not_take_as_it_is_is_refused_with_its_line(tmp_path: Path) -> None:
    name, account, braces = problems(
        tmp_path,
        f"""\
experiment: {"e" * 129}
schedules:
  - name: a
    cron: "0 3 * * *"
    spec: spec.yaml
    service_account: My Account
    overrides: {{evaluation.questions: ["Who is {{{{user}}}}?"]}}
""",
    )
    assert name.startswith(
        "schedules.yaml:1: experiment: found a name of 129 bytes, allowed 128 in KFP"
    )
    assert account.startswith(
        "schedules.yaml:6: a: service_account: found 'My Account', allowed small letters"
    )
    assert braces.startswith(
        "schedules.yaml:5: a: evaluation.questions.0: found 'Who is {{user}}?', allowed text "
        "without '{{'"
    )
