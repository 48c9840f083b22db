"""What LoRA trains of embeddings and head, what that takes, and what does not go together."""

from typing import Any

import pytest

from components.render_config.choose.also_trained import choose_also_trained, with_new_tokens
from components.render_config.cost.hardware import Machine
from components.render_config.dataset_facts import NO_DATASET, DatasetFacts
from components.render_config.model.architectures import architecture_of
from components.render_config.planner import check_spec, make_plan
from components.shared.documents.plan import Plan
from components.shared.errors import HaganeError
from components.shared.spec.file import spec_from_parameter
from tests.unit.render_config.choose.test_output_layer import LLAMA_8B

SIZE = 128_256 * 4096
DATASET = DatasetFacts(digest="d", num_rows=100, num_tokens=400_000, model_revision=None)


def spec_of(**sections: Any) -> Any:
    tree = {
        "name": "t",
        "store": "s3://b/r",
        "model": {"source": "m"},
        "data": {"train": "s3://b/d", **sections.pop("data", {})},
        "hardware": {"gpu": "h100-80gb"},
    }
    return spec_from_parameter(tree | sections)


def planned(config: dict[str, Any] = LLAMA_8B, **sections: Any) -> Plan:
    return make_plan(spec_of(**sections), DATASET, config, machine=Machine())


def refused(config: dict[str, Any] = LLAMA_8B, **sections: Any) -> list[str]:
    with pytest.raises(HaganeError) as caught:
        check_spec(spec_of(**sections), config, Machine())
    return list(caught.value.problems)


def test_by_default_nothing_of_the_vocabulary_is_trained() -> None:
    plan = planned()
    assert plan.lora is not None
    assert not plan.lora.changes_vocabulary
    assert plan.model.num_embeddings == 128_256


def test_whole_layers_are_counted_as_trained_and_not_held_twice() -> None:
    plain, both = planned(), planned(lora={"also_train": ["head", "embeddings"]})
    assert both.lora is not None
    assert both.lora.also_train == ("embeddings", "head")
    assert both.num_trainable - plain.num_trainable == 2 * SIZE
    assert both.model.num_parameters == plain.model.num_parameters
    assert _bytes_of(both, "weights") == _bytes_of(plain, "weights")
    assert _bytes_of(both, "optimizer state") - _bytes_of(plain, "optimizer state") == 16 * SIZE
    assert both.checkpoints.bytes_each - plain.checkpoints.bytes_each > 12 * 2 * SIZE
    assert "lora.also_train" in both.reasons


def test_of_new_tokens_the_rows_of_both_layers_are_trained() -> None:
    plain, rows = planned(), planned(data={"new_tokens": ["<a>", "<b>", "<c>"]})
    assert rows.lora is not None
    assert (rows.lora.new_rows, rows.lora.also_train) == (3, ())
    assert rows.num_trainable - plain.num_trainable == 2 * 3 * 4096
    assert rows.model.num_embeddings == 128_259
    assert rows.model.num_parameters - plain.model.num_parameters == 2 * 3 * 4096


def test_tied_layers_are_counted_once() -> None:
    tied = {**LLAMA_8B, "tie_word_embeddings": True}
    plain, rows = planned(tied), planned(tied, data={"new_tokens": ["<a>"]})
    assert rows.num_trainable - plain.num_trainable == 4096
    both = planned(tied, lora={"also_train": ["embeddings", "head"]})
    assert both.num_trainable - plain.num_trainable == SIZE


def test_rows_to_spare_are_used_before_the_model_grows() -> None:
    """The dataset knows the tokenizer's ids; config.json says only how many rows there are."""
    spec = spec_of(data={"new_tokens": ["<a>"]})
    facts = DatasetFacts("d", 1, 1, None, num_embeddings=128_256)
    assert with_new_tokens(spec, LLAMA_8B, facts)["vocab_size"] == 128_256
    assert with_new_tokens(spec, LLAMA_8B, NO_DATASET)["vocab_size"] == 128_257
    speaks = {"text_config": {"vocab_size": 10}}
    assert with_new_tokens(spec, speaks, NO_DATASET) == {"text_config": {"vocab_size": 11}}


def test_a_trained_head_pays_for_its_gradient_in_the_loss() -> None:
    training = {"output_layer": "trained_tokens"}
    head = planned(lora={"also_train": ["head"]}, training=training)
    (term,) = [each for each in head.memory.gpu if each.name == "loss or backward pass"]
    assert f"+ 6 B x {128_256:,} x 4,096" in term.formula


def test_one_of_two_tied_layers_is_refused() -> None:
    (line,) = refused({**LLAMA_8B, "tie_word_embeddings": True}, lora={"also_train": ["head"]})
    assert line == (
        "lora.also_train: found ['head'], but embeddings and head of this llama model are one "
        "weight. Fix: write [embeddings, head]"
    )


def test_new_tokens_with_one_layer_are_refused() -> None:
    (line,) = refused(data={"new_tokens": ["<a>"]}, lora={"also_train": ["embeddings"]})
    assert "data.new_tokens need rows of both layers" in line


def test_a_head_with_a_bias_is_refused() -> None:
    architecture = architecture_of(LLAMA_8B)
    biased = type(architecture)(**{**vars(architecture), "head_bias": True})
    for sections in ({"lora": {"also_train": ["head"]}}, {"data": {"new_tokens": ["<a>"]}}):
        with pytest.raises(HaganeError, match="has a bias, which an adapter cannot hold"):
            choose_also_trained(spec_of(**sections), biased)
    assert choose_also_trained(spec_of(lora={"also_train": ["embeddings"]}), biased).value.whole


@pytest.mark.parametrize(
    ("sections", "line"),
    [
        (
            {"lora": {"also_train": ["head"]}, "training": {"method": "full"}},
            "lora.also_train: got ['head'], but training.method is full",
        ),
        ({"lora": {"also_train": []}}, "must be auto, or a list of one or both of"),
        ({"lora": {"also_train": ["lm_head"]}}, "must be auto, or a list of one or both of"),
        ({"data": {"new_tokens": ["a", "b", "a"]}}, "'a' is there twice; remove one"),
        ({"data": {"new_tokens": [" a"]}}, "without white space at its ends"),
        ({"data": {"new_tokens": "<a>"}}, "must be a list of texts"),
    ],
)
def test_what_no_model_allows_is_said_by_the_spec(sections: dict[str, Any], line: str) -> None:
    with pytest.raises(HaganeError) as caught:
        spec_of(**sections)
    assert line in str(caught.value)


def _bytes_of(plan: Plan, name: str) -> int:
    return sum(each.num_bytes for each in plan.memory.gpu if each.name == name)
