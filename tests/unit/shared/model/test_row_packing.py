import pytest

from components.render_config.model.families import FAMILIES
from components.shared.errors import ModelError
from components.shared.model.registry import model_families
from components.shared.model.row_packing import known_types, row_packing


def test_auto_packs_only_where_conversations_of_a_row_are_kept_apart() -> None:
    assert row_packing("auto", {"model_type": "llama"}).packed
    alone = row_packing("auto", {"model_type": "bloom"})
    assert (alone.packed, alone.reason) == (
        False,
        "in a bloom model conversations of a row would see each other (docs/packing.md)",
    )


def test_attention_of_each_conversation_by_itself_keeps_them_apart_where_a_mask_does_not() -> None:
    config = {"model_type": "gpt_oss"}
    assert row_packing("auto", config, "conversations") == row_packing("auto", config)
    assert row_packing("auto", config).reason == "attention computes each conversation of a row by itself (docs/packing.md)"
    assert row_packing(True, config).packed
    assert not row_packing(False, config).packed
    with pytest.raises(ModelError, match=r"would see each other without training\.attention: conversations"):
        row_packing(True, config, "eager")


def test_false_is_one_conversation_a_row_in_every_model() -> None:
    found = [row_packing(False, {"model_type": model_type}) for model_type in ("llama", "bloom", "zamba")]
    assert [(each.packed, each.reason) for each in found] == [(False, "data.packing is false")] * 3


@pytest.mark.parametrize("model_type", ["bloom", "zamba"])
def test_packing_that_mixes_conversations_or_may_is_refused(model_type: str) -> None:
    with pytest.raises(ModelError, match=r"data\.packing: found true, but .*Fix: remove data\.packing"):
        row_packing(True, {"model_type": model_type})


@pytest.mark.parametrize(
    ("model_type", "why"),
    [
        ("bert", "its tokens see the future"),
        ("trocr", "its loss is not that of the next token"),
        ("git", "training it on text fails"),
        ("t5", "cannot load as a causal language model"),
    ],
)
def test_a_type_that_cannot_be_trained_right_is_refused_with_the_reason(model_type: str, why: str) -> None:
    for asked in ("auto", True, False):
        with pytest.raises(ModelError, match=f"model.source: found .*{model_type}.*{why}"):
            row_packing(asked, {"model_type": model_type})


def test_an_encoder_that_is_a_decoder_has_one_conversation_a_row() -> None:
    config = {"model_type": "bert", "is_decoder": True}
    assert not row_packing("auto", config).packed
    with pytest.raises(ModelError, match=r"data\.packing: found true"):
        row_packing(True, config)


@pytest.mark.parametrize("fields", [{"use_bidirectional_attention": True}, {"text_config": {"use_bidirectional_attention": "all"}}])
def test_a_causal_type_made_to_see_the_future_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="whose tokens see the future"):
        row_packing("auto", {"model_type": "gemma3_text", **fields})
    assert row_packing("auto", {"model_type": "gemma4", "text_config": {"use_bidirectional_attention": "vision"}}).packed


def test_every_type_stands_once_in_the_table() -> None:
    known = known_types()
    groups = (known.packed, known.one_conversation, frozenset(known.refused), known.not_measured)
    assert sum(map(len, groups)) == len(frozenset().union(*groups)) > 180
    assert known.decoders < known.refused.keys()
    assert known.conversations <= known.packed | known.one_conversation


def test_every_counted_and_every_listed_type_can_be_trained() -> None:
    listed = {family.model_type for family in model_families() if not family.remote}
    assert FAMILIES.keys() | listed <= known_types().packed | known_types().one_conversation
