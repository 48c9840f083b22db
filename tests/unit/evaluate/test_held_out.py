from itertools import chain
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from components.evaluate.held_out import PackedRow, measure, perplexity, row_loss
from tests.small_models import small_model
from tests.tiny_models import make_model

NOT_TRAINED = -100
CONVERSATIONS = [list(range(10, 23)), list(range(300, 307)), list(range(50, 71))]


@pytest.fixture(scope="module", params=["llama", "gpt_neox"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    folder: Path = make_model(tmp_path_factory.mktemp(request.param), architecture=request.param)
    return AutoModelForCausalLM.from_pretrained(folder).eval()


def packed(*conversations: list[int], not_trained: int = 4) -> PackedRow:
    """A row in which the first tokens of each conversation are not trained on."""
    labels = [[NOT_TRAINED] * not_trained + ids[not_trained:] for ids in conversations]
    return PackedRow(list(chain(*conversations)), list(chain(*labels)), [len(ids) for ids in conversations])


def plain_losses(model, conversations: list[list[int]], not_trained: int = 4) -> list[float]:
    """Loss of each trained token, a conversation at a time, nothing packed, from the definition."""
    losses: list[float] = []
    for ids in conversations:
        with torch.no_grad():
            log_probs_TV = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        losses += [-float(log_probs_TV[i - 1, ids[i]]) for i in range(not_trained, len(ids))]
    return losses


def test_packed_loss_equals_that_of_each_conversation_alone(model):
    expected = plain_losses(model, CONVERSATIONS)
    found = measure(model, [packed(*CONVERSATIONS[:2]), packed(CONVERSATIONS[2])], on_row=lambda: None)
    assert found.loss == pytest.approx(sum(expected) / len(expected), abs=1e-5)
    assert found.num_tokens == len(expected)


def test_each_token_weighs_the_same_however_rows_are_cut(model):
    one_row = measure(model, [packed(*CONVERSATIONS)], on_row=lambda: None)
    three_rows = measure(model, [packed(ids) for ids in CONVERSATIONS], on_row=lambda: None)
    assert three_rows.loss == pytest.approx(one_row.loss, abs=1e-5)
    assert three_rows.num_tokens == one_row.num_tokens


def test_first_token_of_a_conversation_is_never_predicted_from_the_one_before(model):
    loss_sum, num_tokens = row_loss(model, packed(*CONVERSATIONS, not_trained=0))
    expected = plain_losses(model, CONVERSATIONS, not_trained=1)
    assert num_tokens == len(expected)
    assert loss_sum == pytest.approx(sum(expected), abs=1e-4)


def test_every_row_is_told(model):
    told: list[None] = []
    measure(model, [packed(ids) for ids in CONVERSATIONS], on_row=lambda: told.append(None))
    assert len(told) == 3


def test_perplexity_is_e_to_the_loss_and_never_overflows():
    assert perplexity(2.0) == pytest.approx(7.389056)
    assert perplexity(1e4) == float("inf")


@pytest.mark.parametrize("model_type", ["gpt_oss", "bloom", "mamba2", "qwen3_next"])
def test_conversations_of_a_row_do_not_see_each_other_in_any_model(model_type: str) -> None:
    model, tokens = small_model(model_type), list(range(3, 53))
    packed_row = PackedRow(tokens, tokens, [30, 20])
    alone = [PackedRow(part, part, [len(part)]) for part in (tokens[:30], tokens[30:])]
    loss_sum, num_tokens = row_loss(model, packed_row)
    assert loss_sum == pytest.approx(sum(row_loss(model, row)[0] for row in alone), rel=1e-6)
    assert num_tokens == 48


@pytest.mark.parametrize("model_type", ["gpt_oss", "bloom", "mamba2"])
def test_a_row_of_one_conversation_has_the_loss_that_the_model_itself_gives(model_type: str) -> None:
    model, tokens = small_model(model_type), list(range(3, 30))
    loss_sum, num_tokens = row_loss(model, PackedRow(tokens, tokens, [len(tokens)]))
    with torch.no_grad():
        own = model(input_ids=torch.tensor([tokens]), labels=torch.tensor([tokens])).loss
    assert num_tokens == len(tokens) - 1
    assert loss_sum / num_tokens == pytest.approx(float(own), rel=1e-5)
