from typing import Any

import pytest
import yaml

from components.export_adapter.card import CardFacts, model_card
from components.shared.documents.prompts import Prompt, Prompts
from components.shared.documents.results import (
    BaseModel,
    Difference,
    EpochLosses,
    History,
    StepLosses,
    Verification,
)
from components.shared.spec.file import parse_spec
from tests.support.made_plan import make_plan

APART = Difference(max=0.02, rms=0.01, same_choice=16)
VERIFICATION = Verification(
    passed=True,
    problems=(),
    precision="bf16",
    num_tokens=16,
    num_prompts=4,
    num_ends=4,
    num_stops=3,
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


HUB = BaseModel(hub_id="org/base", commit="abc123")
FOLDER = BaseModel(folder="base", sha256="5" * 64)
PROMPTS = Prompts(
    chat_template="{{ messages }}",
    end_token_ids=(3,),
    base_files=(),
    prompts=(
        Prompt(
            messages=({"role": "user", "content": 'Say "hi"'},),
            text="x",
            token_ids=(1, 3),
            probe_length=2,
            ends_turn=True,
        ),
    ),
)


def card_of(
    method: str,
    base: BaseModel = HUB,
    prompts: Prompts = PROMPTS,
    *,
    data: dict[str, Any] | None = None,
    history: History = HISTORY,
    store: str = "s3://models/runs",
    model: str = "org/base",
) -> str:
    spec = parse_spec(
        {
            "name": "demo",
            "store": store,
            "model": {"source": model},
            "data": data or {"train": "chats.jsonl", "held_out": "kept.jsonl"},
            "training": {"method": method, "epochs": 1},
        }
    )
    plan = make_plan(spec, num_rows=32, revision=base.commit)
    facts = CardFacts(
        spec=spec,
        plan=plan,
        history=history,
        verification=VERIFICATION,
        base=base,
        prompts=prompts,
        dataset=DATASET,
    )
    return model_card(facts)


def test_one_epoch_is_written_as_one() -> None:
    assert "\n- 1 epoch, " in card_of("lora")


@pytest.mark.parametrize(
    ("method", "library", "relation"),
    [("lora", "peft", "adapter"), ("full", "transformers", "finetune")],
)
def test_front_matter_names_base_library_and_relation(method: str, library: str, relation: str):
    _, front, _ = card_of(method).split("---\n", 2)
    found = yaml.safe_load(front)
    assert found["base_model"] == "org/base"
    assert found["base_model_revision"] == "abc123"
    assert (found["library_name"], found["base_model_relation"]) == (library, relation)


def test_card_tells_data_losses_proof_and_licence():
    card = card_of("lora")
    for reported in (
        (
            "1,200 conversations of `chats.jsonl`: 34,567 tokens in 32 rows, 20,000 of them "
            "assistant turns"
        ),
        "written by the chat template that the base model brings",
        "60 held-out conversations (`kept.jsonl`)",
        "| before | 0 | | 3.2000 |",
        "| 1 | 4 | 2.5000 | 2.2500 |",
        "give the token ids of training for 4 prompts of the data",
        (
            "within 0.02 standard deviations of the trained model's (allowed: 0.3); the base "
            "model's are 2.5 away"
        ),
        "it stops at 3 of 4 turn ends",
        "see the base model",
    ):
        assert reported in card


def test_loading_code_names_the_base_by_hub_id_and_commit_or_by_folder_and_digest():
    hub, folder = card_of("lora"), card_of("lora", base=FOLDER)
    assert "The base model is `org/base at commit abc123`." in hub
    assert (
        'base = "org/base"\nmodel = AutoModelForCausalLM.from_pretrained(base, '
        "revision='abc123', dtype=\"auto\")"
    ) in hub
    assert f"The base model is `the folder base with sha256 {'5' * 64}`." in folder
    assert (
        'base = "path/to/base"\nmodel = AutoModelForCausalLM.from_pretrained(base, dtype="auto")'
        in folder
    )
    assert "base_model:" not in folder


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_cards_code_is_python_and_asks_a_question_of_the_data(method: str):
    code = card_of(method).split("```python\n")[1].split("```")[0]
    compile(code, "card", "exec")
    assert '"content": "Say \\"hi\\""' in code


def test_the_cards_code_gives_the_template_the_arguments_of_training():
    arguments = {"enable_thinking": False, "no identifier": 'a "b"'}
    asked: dict = {}

    class Tokenizer:
        @classmethod
        def from_pretrained(cls, _):
            return cls()

        def apply_chat_template(self, messages, **given):
            asked.update(given, messages=messages)

    card = card_of("full", prompts=PROMPTS.model_copy(update={"template_args": arguments}))
    code = card.split("```python\n")[1].split("```")[0]
    begin, end = code.index("tokenizer = "), code.index("settings = ")
    exec(code[begin:end], {"AutoTokenizer": Tokenizer, "here": "."})
    assert asked["messages"] == [{"role": "user", "content": 'Say "hi"'}]
    assert {name: asked[name] for name in arguments} == arguments
    assert "**{" not in card_of("full").split("```python\n")[1]


def test_the_card_of_a_run_that_held_nothing_out_says_so() -> None:
    epochs = tuple(epoch.model_copy(update={"held_out_loss": None}) for epoch in HISTORY.epochs)
    history = HISTORY.model_copy(update={"start_held_out_loss": None, "epochs": epochs})
    card = card_of("lora", data={"train": "chats.jsonl", "held_out_share": 0}, history=history)
    assert (
        "nothing was held out: no loss was measured on conversations that it was not trained on"
        in card
    )
    assert "held-out loss" not in card


def test_the_card_of_texts_asks_without_a_chat_template() -> None:
    card = card_of("lora", prompts=PROMPTS.model_copy(update={"chat_template": ""}))
    assert "written by no chat template: texts are trained on as they are" in card
    assert "apply_chat_template" not in card
    assert 'prompt = tokenizer("Say \\"hi\\"", return_tensors="pt")' in card


def test_a_card_names_no_path_of_the_machine_that_exported() -> None:
    data = {
        "train": "/home/alice/data/chats.jsonl",
        "held_out": "/home/alice/data/kept.jsonl",
        "chat_template": "/home/alice/chat.jinja",
    }
    for method in ("lora", "full"):
        text = card_of(
            method, FOLDER, data=data, store="/home/alice/runs", model="/home/alice/base"
        )
        assert "alice" not in text
        assert "from the run `demo`" in text
