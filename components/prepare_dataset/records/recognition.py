"""The first records of a file -> the form that all of them are read as, or what is wrong with them.

A null or an empty value counts as absent, but its key still says the form: an Alpaca record whose
instruction is empty makes no file of prompts and completions. So no form is decided by one record,
and a record that has the keys of another form is a problem instead of being read without them.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from components.prepare_dataset.records.conversations import kind_of
from components.prepare_dataset.records.forms import FORMS, Form

FIRST_RECORDS = 64
"""Of a file, by which its form is recognised: enough to see keys that some records leave out."""
_MESSAGES = (
    '{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}'
)
_JAPANESE_KEYS = (
    ("指示", "命令", "質問", "問い", "問題", "プロンプト"),
    ("入力", "文脈", "補足"),
    ("出力", "回答", "応答", "解答", "答え"),
)
"""Names of an instruction, of its input and of its output, as tables written by hand have them."""
_KINDS = {str: "text", list: "a list", dict: "an object"}
_ALSO_READ = ("documents", "label", "parent_id", "role")
"""Keys that no form reads, and that decide about a record."""


def recognised(records: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> Form | None:
    """The form whose keys a record has, and as which the most of the records are read with nothing
    left out; of several the first one, which reads more keys. None where it would read no record.
    """
    possible = [form for form in FORMS if any(form.has_keys(each, columns) for each in records)]
    counts = [_num_read(form, records, columns) for form in possible]
    most = max(counts, default=0)
    if most:
        return possible[counts.index(most)]
    return None


def _num_read(form: Form, records: Iterable[Mapping[str, Any]], columns: Mapping[str, str]) -> int:
    fitting = (record for record in records if form.fits(record, columns))
    return sum(_other_form(form, record, columns) is None for record in fitting)


def _other_form(form: Form, record: Mapping[str, Any], columns: Mapping[str, str]) -> Form | None:
    """The form that the record has, where it comes before `form` and reads keys that this leaves
    out."""
    before = FORMS[: FORMS.index(form)]
    return next((each for each in before if each.has_kinds(each.own_values(record, columns))), None)


def other_form(form: Form, record: Mapping[str, Any], columns: Mapping[str, str]) -> str | None:
    """What of the record is of another form than the file's, if something is."""
    keys: Sequence[str] = form.foreign_keys(record, columns)
    if not keys:
        other = _other_form(form, record, columns)
        if other is None:
            keys = ()
        else:
            keys = _needed_keys(other, record, columns)
    if not keys:
        return None
    names = ", ".join(map(repr, keys))
    return (
        f"has {names}, but the file is read as {form.name}, by its first records, "
        "and would be read without that. Fix: keep records of one form in a file; "
        f"or write data: {{format: {form.name}}} to leave it unread"
    )


def _needed_keys(form: Form, record: Mapping[str, Any], columns: Mapping[str, str]) -> list[str]:
    keys: list[str] = []
    for name in form.needed:
        if name in columns:
            known = (columns[name],)
        else:
            known = form.columns[name]
        keys += [key for key in known if key in record]
    return keys


def nearest(record: Mapping[str, Any], columns: Mapping[str, str]) -> Form | None:
    """The form whose needed keys a record has, of which some are empty."""
    return next((form for form in FORMS if form.has_keys(record, columns)), None)


def read_keys(keys: Sequence[str], columns: Mapping[str, str]) -> set[str]:
    """Of the columns of a file, those that are looked at where its records are read; all of them
    where they are of no form."""
    if nearest(dict.fromkeys(keys), columns) is None:
        return set(keys)
    named = {key for form in FORMS for names in form.columns.values() for key in names}
    return set(keys) & {*named, *columns.values(), *_ALSO_READ}


def unknown_form(record: Mapping[str, Any]) -> str:
    """What a record of no known form looks like, and the YAML to write for it."""
    if not record:
        return "an object without keys is no conversation"
    found = ", ".join(
        f"{str(key)[:40]!r} ({kind_of(value)})" for key, value in list(record.items())[:12]
    )
    return f"unknown form: the record has {found}. Fix: {_advice(record)}"


def _advice(record: Mapping[str, Any]) -> str:
    if "parent_id" in record and "text" in record:
        return (
            "these are single messages of OpenAssistant's trees; take the published trees, whose "
            "records have prompt and replies"
        )
    if isinstance(record.get("chosen"), str) and "rejected" in record:
        return (
            "pairs of a better and a worse text are not trained on; write records of the better "
            "ones as prompt and completion"
        )
    lists = [key for key, value in record.items() if _is_list_of_objects(value)]
    if lists:
        return _advice_on_list(lists[0], record[lists[0]][0])
    texts = [key for key, value in record.items() if isinstance(value, str)]
    if len(texts) >= 2:
        return _advice_on_texts(record, texts)
    if texts and not any(isinstance(value, (list, dict)) for value in record.values()):
        return (
            "to train on all of it, write data: {format: text, columns: {text: "
            f"{texts[0]}}}}}; or write records such as {_MESSAGES}"
        )
    return f"write records such as {_MESSAGES}"


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _advice_on_list(key: str, first: Mapping[str, Any]) -> str:
    if not first.keys() & {"role", "from"}:
        return f"if {key!r} holds the records, write that list alone, or one of them a line"
    return f"write, with the right key, data: {{format: messages, columns: {{messages: {key}}}}}"


def _advice_on_texts(record: Mapping[str, Any], texts: Sequence[str]) -> str:
    asked, given, answered = (
        next((key for key in texts if key in names), None) for names in _JAPANESE_KEYS
    )
    if asked and answered:
        if given:
            more = f", input: {given}"
        else:
            more = ""
        columns = f"{{instruction: {asked}{more}, output: {answered}}}"
        return f"write data: {{format: alpaca, columns: {columns}}}"
    longest = sorted(texts, key=lambda key: -len(record[key]))[:2]
    prompt, completion = (key for key in texts if key in longest)
    advice = (
        f"write, with the right keys, data: {{format: prompt_completion, columns: {{prompt: "
        f"{prompt}, completion: {completion}}}}}"
    )
    unread = [repr(key) for key in texts if key not in longest]
    if unread:
        advice += f" (which leaves {', '.join(unread[:8])} unread)"
    if "text" in texts:
        advice += "; or data: {format: text} to train on text alone"
    return advice


def wrong_kinds(form: Form, record: Mapping[str, Any], columns: Mapping[str, str]) -> str | None:
    """Which values of a record are of another kind than the form reads, if some are."""
    if form.name == "oasst_tree":  # every record of prompts has its key
        return None
    keys = {
        name: (columns[name],) if name in columns else form.columns[name] for name in form.needed
    }
    kinds = {name: form.needed_kinds.get(name, (str,)) for name in form.needed}
    wrong = [
        f"{key}: found {kind_of(record[key])}, must be {_named(kinds[name])}"
        for name, known in keys.items()
        for key in known
        if key in record and not isinstance(record[key], kinds[name])
    ]
    if not wrong:
        return None
    return f"{'; '.join(wrong)}, as {form.name} needs it. Fix: write it so in the record"


def _named(kinds: Sequence[type]) -> str:
    return " or ".join(_KINDS[kind] for kind in kinds)


def missing_columns(
    form: Form, record: Mapping[str, Any], columns: Mapping[str, str]
) -> str | None:
    """What a record lacks of the form that it is read as, if it lacks something."""
    values = form.values(record, columns)
    lacking = [name for name in form.needed if name not in values]
    if not lacking:
        return None
    keys = {name: (columns[name],) if name in columns else form.columns[name] for name in lacking}
    wanted = "; ".join(" or ".join(names) for names in keys.values())
    return (
        f"{wanted}: missing or empty, as {form.name} needs it; found keys "
        f"{', '.join(map(str, record)) or 'none'}. Fix: add it to the record, name its key in "
        "data.columns, or leave such records out by data.on_bad_record: skip"
    )
