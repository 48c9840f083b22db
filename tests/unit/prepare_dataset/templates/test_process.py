"""Templates of people who mean harm, and ordinary ones: the limits hold, and texts are what the template writes without them."""

import os
import pickle
import resource
import time
from pathlib import Path

import pytest

from components.prepare_dataset.records.conversations import Conversation
from components.prepare_dataset.samples.samples import samples_of
from components.prepare_dataset.templates.chat_template import compile_template
from components.prepare_dataset.templates.process import BoundedTemplate, Limits
from components.shared.errors import DataError
from tests.support.tiny_models import BOS, CHATML, END
from tests.unit.prepare_dataset.conftest import NOW, conversation

TOKENS = {"bos_token": BOS, "eos_token": END}
SMALL = Limits(cpu_s=1, memory_mib=256)

TOO_MUCH = {
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}": "needs more than 1 s of processor time",
    "{{ 9**(9**9) }}": "needs more than 1 s of processor time",
    "{% if false %}{{ 9**(9**9) }}{% endif %}ok": "rendering it, compiled needs more than 1 s of processor time",
    "{{ messages[0].content * 2000000000 }}": "needs more than 256 MiB of memory",
    "{{ 'x' * 2000000000 }}": "needs more than 256 MiB of memory",
    "{{ ([0] * 300000000)|length }}": "needs more than 256 MiB of memory",
    "{{ messages[0].content|center(3000000000) }}": "needs more than 256 MiB of memory",
    "{{ '%3000000000d' % 1 }}": "needs more than 256 MiB of memory",
    "{% for i in range(99999) %}{{ 'x' * 1000 }}{% endfor %}": "needs more than 32,000,000 characters",
    "{% macro m() %}{% for i in range(99999) %}{{ 'x' * 1000 }}{% endfor %}{% endmacro %}{{ m()|length }}": "32,000,000 characters",
}


@pytest.mark.parametrize("text", TOO_MUCH)
def test_a_template_that_needs_too_much_is_stopped_with_its_place_and_the_limits(text: str) -> None:
    begun, talks = time.monotonic(), [conversation("q", "a", where=f"x.jsonl:{line}") for line in (7, 8, 9)]
    used = _processor_s()
    with pytest.raises(DataError) as raised:
        _samples(BoundedTemplate("t.jinja", text, TOKENS, NOW, limits=SMALL), *talks)
    (problem,) = raised.value.problems
    assert problem.startswith("t.jinja")
    assert TOO_MUCH[text] in problem
    assert time.monotonic() - begun < 60
    assert _processor_s() - used < 3.5  # one conversation is tried, once


def test_what_is_too_much_names_the_record_and_the_limits() -> None:
    text = "{% if messages[0].content == 'long' %}{{ 'x' * 2000000000 }}{% endif %}" + CHATML
    talks = [conversation("short", "a", where="x.jsonl:1"), conversation("long", "a", where="x.jsonl:2")]
    with pytest.raises(DataError) as raised:
        _samples(BoundedTemplate("t.jinja", text, TOKENS, NOW, limits=SMALL), *talks)
    assert raised.value.problems == (
        "t.jinja: rendering x.jsonl:2 needs more than 256 MiB of memory; allowed for one conversation are 1 s of processor time, "
        "256 MiB of memory and 32,000,000 characters. Fix: correct a copy of the template and name it in data.chat_template, "
        "or shorten the record",
    )


def test_folding_of_a_constant_that_does_not_fit_leaves_a_template_that_never_needs_it() -> None:
    template = BoundedTemplate("t.jinja", "{% if false %}{{ 'x' * 3000000000 }}{% endif %}ok", TOKENS, NOW, limits=SMALL)
    assert template.render(()) == "ok"


def test_samples_and_refusals_are_those_of_the_template_without_limits() -> None:
    refuses = "{% if messages[0].content == 'bad' %}{{ raise_exception('no\x1b[2J ' ~ 'bad') }}{% endif %}" + CHATML
    talks = [
        conversation("12たす7は？", "19です。\n🎉", "q\\n", "{{ 7 }}"),
        conversation("bad", "a"),
        conversation("\x00", "b", system="s"),
    ]
    compiled = compile_template("t.jinja", refuses, TOKENS, now=NOW)
    expected = []
    for talk in talks:
        try:
            expected.append(samples_of(compiled, talk, (END,)))
        except DataError as error:
            expected.append(error.problems)
    found = _samples(BoundedTemplate("t.jinja", refuses, TOKENS, NOW), *talks)
    assert [each.problems if isinstance(each, DataError) else each for each in found] == expected


def test_batches_of_many_and_of_large_conversations_keep_their_order() -> None:
    talks = [conversation(f"q{number}", "a" * (number % 7 * 100_000)) for number in range(1, 60) if number % 7]
    talks += [conversation(f"q{number}", "a") for number in range(60, 2400)]
    found = _samples(BoundedTemplate("t.jinja", CHATML, TOKENS, NOW), *talks)
    assert len(found) == len(talks)
    for talk, samples in zip(talks, found, strict=True):
        assert not isinstance(samples, DataError)
        assert f"user\n{talk.messages[0].content}<" in samples[0].text


def test_the_process_has_no_keys_and_ends_with_its_template(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted")
    before = _children()
    template = BoundedTemplate("t.jinja", CHATML, TOKENS, NOW)
    template.compile()
    (pid,) = _children() - before
    assert b"planted" not in Path(f"/proc/{pid}/environ").read_bytes()
    limits = Path(f"/proc/{pid}/limits").read_text()
    assert limits.split("Max file size")[1].split()[0] == "0"
    del template
    assert pid not in _children()


def test_a_killed_process_is_a_message_and_the_next_call_starts_another() -> None:
    before = _children()
    template = BoundedTemplate("t.jinja", CHATML, TOKENS, NOW)
    template.compile()
    (pid,) = _children() - before
    os.kill(pid, 9)
    with pytest.raises(DataError, match=r"t\.jinja: rendering x\.jsonl:1: the process was ended by SIGKILL\. Fix: "):
        _samples(template, conversation("q", "a"))
    assert not isinstance(_samples(template, conversation("q", "a"))[0], DataError)


def test_a_template_that_was_pickled_or_forked_has_a_process_of_its_own() -> None:
    before = _children()
    template = BoundedTemplate("t.jinja", CHATML, TOKENS, NOW)
    template.compile()
    copy = pickle.loads(pickle.dumps(template))
    assert copy.render(conversation("q", "a").messages) == template.render(conversation("q", "a").messages)
    assert len(_children() - before) == 2


def test_a_text_of_more_than_a_mebibyte_is_no_template() -> None:
    with pytest.raises(DataError, match=r"t\.jinja: found a chat template of 1,100,000 bytes, allowed are 1,048,576"):
        BoundedTemplate("t.jinja", "x" * 1_100_000, TOKENS, NOW).compile()


def test_the_limits_are_of_the_process_and_not_of_this_one() -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    BoundedTemplate("t.jinja", CHATML, TOKENS, NOW).compile()
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def _samples(template: BoundedTemplate, *talks: Conversation) -> list:
    return template.samples(talks, (END,))


def _processor_s() -> float:
    """Of processes that this one started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _children() -> set[int]:
    """Processes of template_program that this one started."""
    pids = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return {int(pid) for pid in pids if b"template_program" in Path(f"/proc/{pid}/cmdline").read_bytes()}
