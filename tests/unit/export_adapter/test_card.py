import pytest
import yaml

from components.export_adapter.card import CardFacts, model_card
from components.shared.results import Difference, EpochLosses, History, StepLosses, Verification
from components.shared.spec_file import parse_spec
from tests.made_plan import make_plan

APART = Difference(max=0.02, rms=0.01, same_choice=16)
VERIFICATION = Verification(
    passed=True,
    problems=(),
    precision="bf16",
    num_tokens=16,
    vocabulary=400,
    logits_std=3.0,
    tolerance_max=0.3,
    tolerance_rms=0.1,
    tolerance_reason="bf16",
    exported=APART,
    exported_fp32=APART,
    base=Difference(max=2.5, rms=1.0, same_choice=3),
)
HISTORY = History(
    start_held_out_loss=3.2,
    seconds=60.0,
    tokens=9000,
    epochs=(EpochLosses(epoch=1, step=4, loss=2.5, held_out_loss=2.25),),
    steps=(StepLosses(step=1, loss=2.5, lr=1e-4, grad_norm=1.0),),
)
DATASET = {
    "num_conversations": 1200,
    "num_tokens": 34567,
    "num_trained_tokens": 20000,
    "num_rows": 32,
    "held_out_conversations": 60,
}


def card_of(method: str, revision: str | None = None) -> str:
    spec = parse_spec(
        {
            "name": "demo",
            "store": "s3://models/runs",
            "model": {"source": "org/base"},
            "data": {"train": "chats.jsonl", "held_out": "kept.jsonl"},
            "training": {"method": method, "epochs": 1},
        }
    )
    plan = make_plan(spec, num_rows=32, revision=revision)
    return model_card(CardFacts(spec=spec, plan=plan, history=HISTORY, verification=VERIFICATION, dataset=DATASET))


@pytest.mark.parametrize(("method", "library", "relation"), [("lora", "peft", "adapter"), ("full", "transformers", "finetune")])
def test_front_matter_names_base_library_and_relation(method: str, library: str, relation: str):
    _, front, _ = card_of(method, revision="abc123").split("---\n", 2)
    found = yaml.safe_load(front)
    assert found["base_model"] == "org/base"
    assert found["base_model_revision"] == "abc123"
    assert (found["library_name"], found["base_model_relation"]) == (library, relation)


def test_card_tells_data_losses_proof_and_licence():
    card = card_of("lora")
    for told in (
        "1,200 conversations of `chats.jsonl`: 34,567 tokens in 32 rows, 20,000 of them assistant turns",
        "written by the chat template that the base model brings",
        "60 held-out conversations (`kept.jsonl`)",
        "| before | 0 | | 3.2000 |",
        "| 1 | 4 | 2.5000 | 2.2500 |",
        "within 0.02 standard deviations of the trained model's (allowed: 0.3); the base model's are 2.5 away",
        "see the base model",
    ):
        assert told in card


def test_loading_code_of_an_adapter_pins_the_bases_revision():
    assert "AutoModelForCausalLM.from_pretrained('org/base', revision='abc123')" in card_of("lora", revision="abc123")
    assert "revision=" not in card_of("lora")
