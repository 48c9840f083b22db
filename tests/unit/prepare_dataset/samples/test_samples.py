"""What is trained on, of each kind of template: the prompt by which transformers asks, and then the answer."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from components.prepare_dataset.records.conversations import Conversation, read_conversation
from components.prepare_dataset.samples.samples import (
    EMPTY_REASONING,
    ENDED_BY_EOS,
    HEADER_TRAINED,
    LEFT_OUT,
    REWRITTEN,
    Sample,
    samples_of,
)
from components.prepare_dataset.templates.chat_template import compile_template
from components.shared.errors import DataError
from tests.support.tiny_models import make_tokenizer
from tests.unit.prepare_dataset.chat_templates import (
    ALL,
    CHANNELS,
    ENDED_BY_THE_NEXT_ROLE,
    EOS,
    EOS_BEHIND_THE_LAST,
    HISTORY_WITHOUT_REASONING,
    MARKED,
    NO_END,
    PARTS_ALONE,
    PROMPT_OPENS_THINK,
    RENAMED_ROLE,
    SPECIAL_TOKENS,
    TOOLS,
)
from tests.unit.prepare_dataset.conftest import NOW

TIDE = {"type": "function", "function": {"name": "tide", "parameters": {"type": "object"}}}
CALL = {"id": "call00001", "type": "function", "function": {"name": "tide", "arguments": {"port": "Kobe"}}}


def _user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def _assistant(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


TALKS: dict[str, list[dict[str, Any]]] = {
    "one answer": [_user("What is 2+2?"), _assistant("It is 4.")],
    "Japanese": [_user("港は何色ですか。"), _assistant("青です。\n以上。")],
    "two answers": [_user("Say A"), _assistant("A first"), _user("Say B"), _assistant("B second")],
    "three answers": [_user("a"), _assistant("one"), _user("b"), _assistant("two"), _user("c"), _assistant("three")],
    "system turn": [{"role": "system", "content": "Answer in French."}, _user("Yes?"), _assistant("Oui.")],
    "a question at the end": [_user("hello"), _assistant("hi yourself"), _user("thanks")],
    "think tags": [
        _user("Is 2 even?"), _assistant("<think>\nHalve it.\n</think>\n\nYes."),
        _user("And 3?"), _assistant("<think>\nOne over.\n</think>\n\nNo."),
    ],
    "reasoning by its key": [
        _user("Is 2 even?"), _assistant("Yes.", reasoning_content="Halve it."),
        _user("And 3?"), _assistant("No.", reasoning_content="One over."),
    ],
    "first answer not trained on": [_user("Say A"), _assistant("B?", weight=0), _user("No, A"), _assistant("A then")],
}  # fmt: skip


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    tokenizer = AutoTokenizer.from_pretrained(make_tokenizer(tmp_path_factory.mktemp("tokenizer")))
    tokenizer.add_special_tokens({"additional_special_tokens": [AddedToken(token, special=True) for token in SPECIAL_TOKENS]})
    tokenizer.bos_token, tokenizer.eos_token = "<s>", EOS
    return tokenizer


def _conversation(turns: list[dict[str, Any]], tools: list[Any] | None = None) -> Conversation:
    found = read_conversation("x:1", turns, tools)
    assert isinstance(found, Conversation), found
    return found


def _samples(template: str, turns: list[dict[str, Any]], tools: list[Any] | None = None, **arguments: Any) -> tuple[Sample, ...]:
    tokens = {"bos_token": "<s>", "eos_token": EOS}
    compiled = compile_template("t.jinja", template, tokens, now=NOW, arguments=arguments)
    return samples_of(compiled, _conversation(turns, tools), SPECIAL_TOKENS)


def _trained(samples: tuple[Sample, ...]) -> list[str]:
    return [sample.text[start:end] for sample in samples for start, end in sample.spans]


def _asked(samples: tuple[Sample, ...]) -> Iterator[tuple[str, str]]:
    """(prompt, completion) of each trained turn."""
    for sample in samples:
        for start, end in sample.spans:
            yield sample.text[:start], sample.text[start:end]


@pytest.mark.parametrize("talk", TALKS.values(), ids=TALKS)
@pytest.mark.parametrize("template", ALL.values(), ids=ALL)
def test_each_answer_is_trained_once_behind_the_prompt_of_use(
    theirs: PreTrainedTokenizerBase, template: str, talk: list[dict[str, Any]]
) -> None:
    if template == RENAMED_ROLE and talk[0]["role"] == "system":
        pytest.skip("the template refuses system turns")
    given = talk
    if template == PARTS_ALONE:
        given = [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in talk]
    answers = [index for index, turn in enumerate(talk) if turn["role"] == "assistant" and turn.get("weight", 1)]
    prompts = [
        theirs.apply_chat_template(given[:index], chat_template=template, tokenize=False, add_generation_prompt=True) for index in answers
    ]
    trained = sorted(_asked(_samples(template, talk)), key=lambda each: len(each[0]))
    assert [prompt for prompt, _ in trained] == prompts
    for index, (_, completion) in zip(answers, trained, strict=True):
        assert talk[index]["content"].split("</think>")[-1].strip() in completion
        assert completion.endswith(SPECIAL_TOKENS)
        if "Halve it." in str(talk[index]):
            assert "Halve it." in completion


def test_history_without_reasoning_gives_each_turn_a_text_of_its_own() -> None:
    first, second = _samples(HISTORY_WITHOUT_REASONING, TALKS["think tags"])
    assert _trained((first,)) == ["<think>\nHalve it.\n</think>\n\nYes.<|im_end|>"]
    assert _trained((second,)) == ["<think>\nOne over.\n</think>\n\nNo.<|im_end|>"]
    assert "Halve it." not in second.text


def test_a_template_that_only_adds_text_gives_one_text() -> None:
    (sample,) = _samples(ALL["chatml"], TALKS["three answers"])
    assert _trained((sample,)) == ["one<|im_end|>", "two<|im_end|>", "three<|im_end|>"]
    assert sample.notes == frozenset()


def test_reasoning_that_the_prompt_opens_is_trained_without_the_tag() -> None:
    first, _ = _samples(PROMPT_OPENS_THINK, TALKS["think tags"])
    assert first.text.endswith("<|assistant|><think>\nHalve it.\n</think>\n\nYes.</s>")
    assert _trained((first,)) == ["Halve it.\n</think>\n\nYes.</s>"]
    assert first.notes == {REWRITTEN}


def test_an_answer_without_reasoning_closes_what_the_prompt_opened() -> None:
    (sample,) = _samples(PROMPT_OPENS_THINK, TALKS["one answer"])
    assert _trained((sample,)) == ["\n</think>\n\nIt is 4.</s>"]
    assert EMPTY_REASONING in sample.notes


def test_the_tag_of_the_prompt_in_the_record_is_no_loss() -> None:
    template = ALL["chatml"].replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
    (sample,) = _samples(template, TALKS["think tags"][:2])
    assert _trained((sample,)) == ["Halve it.\n</think>\n\nYes.<|im_end|>"]
    assert sample.notes == frozenset()


def test_eos_behind_the_last_turn_alone_is_no_refusal() -> None:
    (sample,) = _samples(EOS_BEHIND_THE_LAST, TALKS["two answers"])
    assert _trained((sample,)) == ["A first<|im_end|>", "B second<|im_end|>\n</s>"]


def test_a_turn_that_the_next_role_ends_is_trained_with_that_token() -> None:
    (sample,) = _samples(ENDED_BY_THE_NEXT_ROLE, TALKS["two answers"])
    assert _trained((sample,)) == ["A first<|user|>", "B second<|user|>"]


def test_a_turn_that_nothing_ends_is_trained_with_eos() -> None:
    samples = _samples(NO_END, TALKS["two answers"])
    assert _trained(samples) == [" A first</s>", " B second</s>"]
    assert all(ENDED_BY_EOS in sample.notes for sample in samples)


def test_reasoning_in_a_channel_is_trained_in_every_turn() -> None:
    first, second = _trained(_samples(CHANNELS, TALKS["reasoning by its key"]))
    assert first == "<|channel|>analysis<|message|>Halve it.<|end|><|start|>assistant<|channel|>final<|message|>Yes.<|return|>"
    assert second.startswith("<|channel|>analysis<|message|>One over.")


def test_template_arguments_reach_the_prompt() -> None:
    (sample,) = _samples(HISTORY_WITHOUT_REASONING, TALKS["one answer"], enable_thinking=False)
    assert _trained((sample,)) == ["It is 4.<|im_end|>"]
    (thinking,) = _samples(HISTORY_WITHOUT_REASONING, TALKS["one answer"])
    assert _trained((thinking,)) == ["<think>\n\n</think>\n\nIt is 4.<|im_end|>"]
    assert (sample.notes, thinking.notes) == (frozenset(), {EMPTY_REASONING})


def test_a_turn_without_generation_mark_is_not_trained_on() -> None:
    only_last = MARKED.replace("{% if m.role == 'assistant' %}", "{% if m.role == 'assistant' and 'B' in m.content %}")
    assert _trained(_samples(only_last, TALKS["two answers"])) == ["B second<|im_end|>"]
    with pytest.raises(DataError, match="marks no assistant turn"):
        _samples(only_last, TALKS["one answer"])


def test_tool_calls_are_trained_and_tool_turns_are_not() -> None:
    turns = [_user("When is high tide?"), _assistant("", tool_calls=[CALL]), {"role": "tool", "content": "6:40"}, _assistant("At 6:40.")]
    (sample,) = _samples(TOOLS, turns, [TIDE])
    assert _trained((sample,)) == [
        '<tool_call>{"name": "tide", "arguments": {"port": "Kobe"}}</tool_call><|im_end|>',
        "At 6:40.<|im_end|>",
    ]
    assert sample.text.startswith("<|im_start|>system\nTools: [")


def test_a_template_that_leaves_out_a_call_is_refused() -> None:
    with pytest.raises(DataError, match=r"t.jinja leaves out the call of 'tide' of assistant turn messages\[1\]"):
        _samples(ALL["chatml"], [_user("q"), _assistant("", tool_calls=[CALL])], [TIDE])


def test_a_template_that_leaves_out_part_of_an_answer_is_refused_without_another_models_template() -> None:
    cutting = "{% for m in messages %}{{ m.content[:3] + eos_token }}{% endfor %}"
    with pytest.raises(DataError, match=r"t.jinja leaves out part of assistant turn messages\[1\]") as raised:
        _samples(cutting, TALKS["one answer"])
    assert "plain.jinja" not in str(raised.value)


def test_a_role_that_the_template_leaves_out_is_noted() -> None:
    without = (
        "{% for m in messages %}{% if m.role != 'system' %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    )
    (sample,) = _samples(without + "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}", TALKS["system turn"])
    assert sample.notes == {f"{LEFT_OUT}system"}


def test_a_header_that_no_prompt_gives_is_noted() -> None:
    (sample,) = _samples(ALL["chatml"].split("{% if add_generation_prompt %}")[0], TALKS["one answer"])
    assert _trained((sample,)) == ["<|im_start|>assistant\nIt is 4.<|im_end|>"]
    assert sample.notes == {HEADER_TRAINED}


SHIPPED = {
    "plain": "<s>s\n\nUser: q\nAssistant: a</s>\nUser: r\nAssistant: b</s>\n",
    "chatml": "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n"
    "<|im_start|>user\nr<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n",
    "alpaca": "<s>s\n\n### Instruction:\nq\n\n### Response:\na</s>\n\n### Instruction:\nr\n\n### Response:\nb</s>\n\n",
    "alpaca-ja": "<s>s\n\n### 指示:\nq\n\n### 応答:\na</s>\n\n### 指示:\nr\n\n### 応答:\nb</s>\n\n",
    "llama-2": "<s>[INST] <<SYS>>\ns\n<</SYS>>\n\nq [/INST] a </s><s>[INST] r [/INST] b </s>",
}


def test_every_shipped_template_is_tested() -> None:
    assert {path.stem for path in Path("specs/templates").glob("*.jinja")} == set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_template_writes_its_prompt_and_trains_answers_to_their_end(name: str) -> None:
    turns = [{"role": "system", "content": "s"}, _user("q"), _assistant("a"), _user("r"), _assistant("b")]
    (sample,) = _samples(Path(f"specs/templates/{name}.jinja").read_text(encoding="utf-8"), turns)
    assert sample.text == SHIPPED[name]
    trained = ["".join(each.split()) for each in _trained((sample,))]
    assert trained == ["a<|im_end|>", "b<|im_end|>"] if name == "chatml" else ["a</s>", "b</s>"]
    assert sample.notes == frozenset()


def test_each_trained_turn_is_in_exactly_one_text() -> None:
    turns = [turn for n in range(6) for turn in (_user(f"q{n}"), _assistant(f"<think>\nr{n}\n</think>\n\na{n}"))]
    for template in ALL.values():
        trained = _trained(_samples(template, turns))
        assert sorted(f"a{n}" for n in range(6)) == sorted(found for each in trained for n in range(6) if (found := f"a{n}") in each)
