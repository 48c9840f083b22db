import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from components.prepare_dataset.records.conversations import Message
from components.prepare_dataset.samples.tokens import load_encoder
from components.prepare_dataset.templates.chat_template import ChatTemplate, compile_template, read_template
from components.shared.errors import DataError, ModelError
from tests.support.tiny_models import BOS, CHATML, END, make_tokenizer
from tests.unit.prepare_dataset.conftest import NOW, conversation

PLAIN = Path("specs/templates/plain.jinja")
SMOLLM2 = Path(".hagane/models/smollm2-135m-instruct")
TOKENS = {"bos_token": BOS, "eos_token": END}

# What real templates do: namespaces, loop controls, JSON, white space control, generation blocks, macros, dict().
BUSY = """{%- set ns = namespace(count=0) %}
{%- macro head(role) %}<|im_start|>{{ role }}
{% endmacro %}
{{- bos_token }}
{% for message in messages %}
    {%- if message.role == 'system' %}
        {{- head('system') + ({'note': message.content, 'é': dict(a=1)} | tojson) + '<|im_end|>\\n' }}
        {%- continue %}
    {%- endif %}
    {%- set ns.count = ns.count + 1 %}
    {{- head(message['role']) }}
    {%- if message.role == 'assistant' %}
        {%- generation %}{{ message.content | trim }}{{ eos_token }}{% endgeneration %}

{% else %}
        {{- message.content.strip() + ' #' ~ ns.count ~ eos_token }}
{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ head('assistant') }}{% endif %}"""

CONVERSATIONS = [
    conversation("What is 12 plus 7?", "12 plus 7 is 19."),
    conversation("12たす7は？", "19です。", "41の次は？", "42です。\n以上🎉"),
    conversation("<b>&amp;</b>", " {{ 7 * 7 }} ", "tail", system='短く "答えて"\\n'),
]


def _template(text: str) -> ChatTemplate:
    return compile_template("t.jinja", text, TOKENS, now=NOW)


@pytest.mark.parametrize("text", [CHATML, BUSY, PLAIN.read_text()], ids=["chatml", "busy", "plain"])
@pytest.mark.parametrize("talk", CONVERSATIONS)
@pytest.mark.parametrize("prompt", [False, True])
def test_text_and_tokens_are_those_of_apply_chat_template(tmp_path: Path, text: str, talk, prompt: bool) -> None:
    _same_as_transformers(make_tokenizer(tmp_path, chat_template=text), talk.messages, prompt=prompt)


@pytest.mark.skipif(not SMOLLM2.is_dir(), reason="needs the demo's base model; `make demo` makes it")
@pytest.mark.parametrize("talk", CONVERSATIONS)
def test_text_and_tokens_of_smollm2_are_those_of_apply_chat_template(talk) -> None:
    _same_as_transformers(SMOLLM2, talk.messages, prompt=False)


def _same_as_transformers(folder: Path, messages: tuple[Message, ...], *, prompt: bool) -> None:
    if not (folder / "config.json").exists():
        (folder / "config.json").write_text('{"vocab_size": 400}')
    ours = load_encoder(folder, "model", now=NOW)
    theirs = AutoTokenizer.from_pretrained(folder)
    turns = [{"role": message.role, "content": message.content} for message in messages]
    text = ours.template.render(messages, add_generation_prompt=prompt)
    assert text == theirs.apply_chat_template(turns, tokenize=False, add_generation_prompt=prompt)
    ids = ours.tokenizer.encode(text, add_special_tokens=False).ids
    assert ids == theirs.apply_chat_template(turns, add_generation_prompt=prompt)["input_ids"]


def test_what_strftime_now_tells_is_the_moment_that_was_given() -> None:
    assert _template("{{ strftime_now('%d %b %Y') }}").render(()) == "24 Nov 2026"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages[9].content }}", "has no element 9"),
        ("{{ messages[0].content + 1 }}", "can only concatenate str"),
        ("{{ messages[0].content / 2 }}", "unsupported operand"),
        ("{{ nothing_here.x }}", "'nothing_here' is undefined"),
        ("{{ messages.__class__.__mro__ }}", "unsafe"),
        ("{{ namespace(__class__=1) }}", "cannot begin with an underscore"),
        ("{{ messages.append(1) }}", "'append' of 'list' object is unsafe"),
    ],
)
def test_what_a_template_refuses_or_gets_wrong_is_one_line_naming_it(text: str, told: str) -> None:
    with pytest.raises(DataError) as raised:
        _template(text).render(conversation("q", "a").messages)
    (problem,) = raised.value.problems
    assert problem.startswith("t.jinja cannot render the first 2 turns: ")
    assert told in problem


def test_a_text_that_is_no_template_is_told_with_its_line() -> None:
    with pytest.raises(DataError, match=r"t.jinja:2: not a Jinja template: "):
        _template("ok\n{% for %}")


def test_the_template_file_of_a_model_comes_before_its_tokenizer_config(tmp_path: Path) -> None:
    assert read_template(tmp_path, "model", {"chat_template": "config"}) == (f"{tmp_path}/tokenizer_config.json", "config")
    (tmp_path / "chat_template.jinja").write_text("file")
    assert read_template(tmp_path, "model", {"chat_template": "config"}) == (f"{tmp_path}/chat_template.jinja", "file")


def test_of_several_named_templates_default_is_taken(tmp_path: Path) -> None:
    named = [{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}]
    assert read_template(tmp_path, "model", {"chat_template": named})[1] == "d"
    with pytest.raises(ModelError, match="found rag, and none named default"):
        read_template(tmp_path, "model", {"chat_template": named[:1]})


def test_a_model_without_template_is_told_which_file_to_set(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"set data.chat_template to a Jinja file: for a base model specs/templates/plain.jinja"):
        read_template(tmp_path, "model", json.loads("{}"))


def test_a_template_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data.chat_template: no such file 'nope.jinja'; allowed: model, or"):
        read_template(tmp_path, "nope.jinja", {})
