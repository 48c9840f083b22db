from pathlib import Path
from typing import Any

import pytest
import structlog
import torch

from components.evaluate.evaluation import HeldOut, evaluate, evenly_spaced, measured_in
from components.evaluate.measure.held_out import PackedRow
from components.evaluate.measure.looking import Models
from components.evaluate.page import answers_page, numbers_of
from components.evaluate.step import gate_or_publish, inputs_of
from components.shared.documents.plan import Precision
from components.shared.documents.results import Evaluation
from components.shared.errors import RunFailed, SpecError
from components.shared.spec.file import parse_spec, spec_from_parameter
from components.shared.spec.run_spec import RunSpec
from components.shared.step import spec_differences
from components.shared.store.manifest import Manifest
from components.shared.store.storage import LocalStore
from tests.support.tiny_models import make_model


def rows(count: int) -> list[PackedRow]:
    return [PackedRow([index], [index], [1]) for index in range(count)]


@pytest.mark.parametrize(
    ("count", "chosen"),
    [(1, [0]), (3, [0, 3, 6]), (4, [0, 2, 5, 7]), (10, list(range(10))), (99, list(range(10)))],
)
def test_a_part_of_the_rows_is_spread_over_all_of_them(count: int, chosen: list[int]) -> None:
    assert [row.input_ids[0] for row in evenly_spaced(rows(10), count)] == chosen


@pytest.mark.parametrize(
    ("precision", "on_gpu", "flags", "expected"),
    [
        ("bf16", True, set(), torch.bfloat16),
        ("fp16", True, set(), torch.float16),
        ("fp32", True, set(), torch.float32),
        ("bf16", False, {"avx2", "amx_bf16"}, torch.bfloat16),
        ("bf16", False, {"avx2"}, torch.float32),
        ("fp16", False, {"avx2", "amx_bf16"}, torch.float32),
        ("fp32", False, {"avx2", "amx_bf16"}, torch.float32),
    ],
)
def test_models_are_measured_as_they_were_trained_where_that_is_fast(
    precision: Precision, on_gpu: bool, flags: set[str], expected: torch.dtype
) -> None:
    assert measured_in(precision, on_gpu=on_gpu, flags=frozenset(flags)) == expected


def test_questions_are_asked_with_the_templates_arguments_of_the_spec(tmp_path: Path) -> None:
    template = "{% if brief %}Short: {% endif %}{{ messages[0]['content'] }}"
    base = make_model(tmp_path / "base", chat_template=template)
    models, row = (
        Models(base, base, torch.float32),
        PackedRow(list(range(3, 13)), list(range(3, 13)), [10]),
    )

    def answered(**template_args: bool) -> str:
        data = {"train": "t.jsonl", "template_args": template_args}
        questions = {"questions": ["What is 12 plus 7?"], "answer_tokens": 8}
        spec = parse_spec(
            {
                "name": "r",
                "store": "s",
                "model": {"source": str(base)},
                "data": data,
                "evaluation": questions,
            }
        )
        return (
            evaluate(models, HeldOut([row], num_all=1), spec, structlog.get_logger())
            .answers[0]
            .base
        )

    assert answered(brief=True) != answered(brief=False) == answered()


def test_without_held_out_data_nothing_is_measured_and_nothing_gates() -> None:
    spec = spec_from_parameter(
        {
            "name": "t",
            "store": "s",
            "model": {"source": "m"},
            "data": {"train": "d", "held_out_share": 0},
        }
    )
    found = Evaluation(
        base=None, tuned=None, answers=(), improved=None, measured_rows=0, held_out_rows=0
    )
    assert spec.gate_rules == ()
    assert numbers_of(found) == {}
    assert "no held-out loss: nothing was held out" in answers_page("s/t", found)


def test_held_out_data_that_was_asked_for_and_is_not_there_is_no_met_gate() -> None:
    spec = spec_from_parameter(
        {"name": "t", "store": "s", "model": {"source": "m"}, "data": {"train": "d"}}
    )
    models = Models(Path("base"), Path("export"), torch.float32)
    with pytest.raises(
        RunFailed,
        match=r"evaluation: no held-out row is left, so nothing shows whether the gate is met",
    ):
        evaluate(models, HeldOut([], num_all=0), spec, structlog.get_logger())


def test_an_evaluation_of_an_earlier_version_without_a_gate_is_refused_in_a_sentence(
    tmp_path: Path,
) -> None:
    spec = spec_from_parameter(
        {"name": "t", "store": "s", "model": {"source": "m"}, "data": {"train": "d"}}
    )
    found = Evaluation(
        base=None, tuned=None, answers=(), improved=None, measured_rows=0, held_out_rows=0
    )
    store = LocalStore(tmp_path)
    store.write_bytes("evaluation/evaluation.json", found.model_dump_json().encode())
    with pytest.raises(
        RunFailed,
        match=r"evaluation: says nothing of the gate; an earlier version of hagane made it",
    ):
        gate_or_publish(store, spec, tmp_path, structlog.get_logger())


@pytest.mark.parametrize(
    "section",
    [{"gate": [{"metric": "loss"}]}, {"evaluation": {"metrics": ["json"]}}],
    ids=["a rule of the gate", "a metric"],
)
def test_what_needs_held_out_data_is_refused_without(section: dict[str, Any]) -> None:
    tree = {
        "name": "t",
        "store": "s",
        "model": {"source": "m"},
        "data": {"train": "d", "held_out_share": 0},
        **section,
    }
    with pytest.raises(SpecError, match=r"data\.held_out_share is 0"):
        spec_from_parameter(tree)


def test_benchmarks_may_change_for_a_run_and_are_then_measured_anew() -> None:
    def spec_of(*tasks: str, **evaluation: Any) -> RunSpec:
        return spec_from_parameter(
            {
                "name": "t",
                "store": "s",
                "model": {"source": "m"},
                "data": {"train": "d"},
                "evaluation": {"lm_eval": {"tasks": tasks}, **evaluation},
            }
        )

    export = Manifest(folder="adapter", made_by="t", inputs={}, files=())
    wrong, right, none = spec_of("arc_eazy"), spec_of("arc_easy"), spec_of()
    assert spec_differences(wrong, right) == spec_differences(wrong, none) == []
    assert spec_differences(right, spec_of("arc_easy", answer_tokens=8)) != []
    found = [inputs_of(export, spec, None) for spec in (wrong, right, none)]
    assert found[0] != found[1]
    assert found[2] == {"adapter": export.digest}
