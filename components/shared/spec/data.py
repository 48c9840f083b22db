"""`data` of the spec: what is trained on, and what is held out."""

from collections import Counter
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError

from components.shared.documents.fields import FrozenModel, Number
from components.shared.printable import cut, shown
from components.shared.spec.values import auto_or_bool, auto_or_whole

RecordForm = Literal[
    "auto",
    "messages",
    "sharegpt",
    "oasst_tree",
    "alpaca",
    "ichikara",
    "prompt_completion",
    "text",
    "tokens",
]
"""How a record says its conversation; components/prepare_dataset/records/forms.py has the columns
of each."""


class SourceSpec(FrozenModel):
    path: str = Field(min_length=1)
    """A file, folder, pattern, `s3://…` or `hf://owner/name@revision`, as the short form of
    `data.train` takes it."""
    split: str | None = Field(default=None, min_length=1)
    """Only the files of this split, such as `train`: files or folders with that word in their name,
    as `datasets` names them."""
    format: RecordForm | None = None
    """In place of `data.format`."""
    columns: dict[str, str] | None = None
    """In place of `data.columns`."""
    encoding: str | None = None
    """In place of `data.encoding`."""
    repeat: Number = Field(default=1, gt=0, le=100)
    """How often the source is trained on in an epoch: 2 is twice, 0.5 is half of it, chosen by a
    hash."""
    weight: Number | None = Field(default=None, gt=0, le=1e6)
    """Share of the source in the training text, beside the weights of the others; all sources have
    one or none. The source with the least text for its weight is used whole, a part of each other
    one, chosen by a hash."""


def _path_or_sources(value: object) -> str | tuple[SourceSpec, ...]:
    if isinstance(value, str) and value:
        return value
    if isinstance(value, (list, tuple)) and value:
        sources = tuple(_source(item, number) for number, item in enumerate(value, start=1))
        _all_weigh_or_none(sources)
        return sources
    raise ValueError(
        f"got {shown(value)}, must be a path, or a list of sources such as {{path: train.jsonl, "
        "format: alpaca, repeat: 2}"
    )


def _source(value: object, number: int) -> SourceSpec:
    try:
        return SourceSpec.model_validate({"path": value} if isinstance(value, str) else value)
    except ValidationError as error:
        first = error.errors()[0]
        where = cut(".".join(str(part) for part in first["loc"]))
        allowed = ", ".join(SourceSpec.model_fields)
        found = shown(first["input"], name=where)
        raise ValueError(
            f"source {number}: {where}: got {found}: {cut(first['msg'])}; fields: {allowed}"
        ) from None


def _all_weigh_or_none(sources: tuple[SourceSpec, ...]) -> None:
    without = [number for number, source in enumerate(sources, start=1) if source.weight is None]
    if without and len(without) < len(sources):
        raise ValueError(
            f"source {without[0]}: has no weight, others have one; give each source a weight, or "
            "none"
        )


def _path_or_whole_sources(value: object) -> object:
    """Held-out records are measured once each."""
    sources = _path_or_sources(value)
    for number, source in enumerate(sources if isinstance(sources, tuple) else (), start=1):
        if source.weight is not None:
            name = "weight"
        elif source.repeat != 1:
            name = "repeat"
        else:
            name = None
        if name is not None:
            raise ValueError(
                f"source {number}: {name}: not for held-out sources, each record of which is "
                "measured once; remove it"
            )
    return sources


Sources = Annotated[str | tuple[SourceSpec, ...], BeforeValidator(_path_or_sources)]
HeldOutSources = Annotated[str | tuple[SourceSpec, ...], BeforeValidator(_path_or_whole_sources)]


MOST_NEW_TOKENS, MOST_TOKEN_CHARACTERS = 100_000, 200


def _new_texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"got {shown(value)}, must be a list of texts, such as [<tool>]")
    texts = tuple(value)
    unfit = [text for text in texts if not _is_token_text(text)]
    if unfit:
        raise ValueError(
            f"got {shown(unfit[0])}, must be a text of 1 to {MOST_TOKEN_CHARACTERS} characters "
            "without white space at its ends"
        )
    twice = [text for text, count in Counter(texts).items() if count > 1]
    if twice:
        raise ValueError(f"{shown(twice[0])} is there twice; remove one")
    if len(texts) > MOST_NEW_TOKENS:
        raise ValueError(f"got {len(texts):,} texts, allowed are {MOST_NEW_TOKENS:,}")
    return texts


def _is_token_text(text: object) -> bool:
    return (
        isinstance(text, str)
        and 0 < len(text) <= MOST_TOKEN_CHARACTERS
        and text == text.strip()
        and text.isprintable()
    )


def _long_form(sources: str | tuple[SourceSpec, ...]) -> tuple[SourceSpec, ...]:
    if isinstance(sources, str):
        return (SourceSpec(path=sources),)
    return sources


class DataSpec(FrozenModel):
    train: Sources
    """Training conversations: a file (JSONL, a JSON list, CSV, TSV, Parquet, Arrow; also .gz or
    .zst), a folder of such, a pattern such as `data/*.jsonl`, the same in a store
    (`s3://bucket/train.jsonl`), or a data set of the hub (`hf://owner/name@revision`). Or a list of
    such sources, each with the fields of `data.train[]`."""
    held_out: HeldOutSources | None = None
    """Conversations never trained on, named as in `train`, without `repeat` and `weight`. Without
    it, `held_out_share` of `train` is set aside."""
    held_out_share: Number = Field(default=0.05, ge=0, lt=0.5)
    """Share of `train` set aside when `held_out` is absent, chosen by a hash: the same every time.
    0 trains on everything: there is no held-out loss then, so `evaluation.must_improve` fails no
    run and no checkpoint is known as the best."""
    held_out_by: Literal["prompt", "conversation"] = "prompt"
    """What the hash is of: `prompt` keeps conversations with the same first question on one side,
    so that no held-out question is trained on."""
    format: RecordForm = "auto"
    """Form of the records. `auto` recognises it by the keys of a file's first 64 records:
    `messages` (OpenAI), `sharegpt`, `alpaca` (also dolly), `prompt_completion`, `ichikara`,
    `oasst_tree`, `text` (continued pretraining: every token is trained on), `tokens` (rows
    tokenised elsewhere: `input_ids`, `labels`)."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Keys of the file under other names than the form's, such as `{prompt: title, completion:
    body}`."""
    encoding: str = "utf-8"
    """Character encoding of text files, such as `cp932`."""
    on_bad_record: Literal["fail", "skip"] = "fail"
    """What becomes of a record that is no conversation, or that the template refuses: `fail` stops
    before training with all that are bad, `skip` leaves them out, counts them, and shows them with
    the reasons."""
    max_bad_records: int = Field(default=100, ge=1, le=1_000_000_000)
    """Most records that `on_bad_record: skip` leaves out; with more the run stops before
    training."""
    row_tokens: Annotated[Literal["auto"] | int, BeforeValidator(auto_or_whole(16))] = 1024
    """Most tokens in one row. A row is one training sequence; with packing it holds several whole
    conversations: none is split, none sees another. Before the first step training checks on the
    loaded model that none sees another, and stops where one does. `auto`: the least that holds the
    longest conversation, or with `too_long: drop` 99 % of the tokens, at most the model's longest
    sequence; a power of two from 1,024 on where rows are packed."""
    packing: Annotated[Literal["auto"] | bool, BeforeValidator(auto_or_bool)] = "auto"
    """Whether conversations share a row. `auto`: wherever the model keeps them apart
    (docs/packing.md). Else, and with `false`, a row is one conversation, padded to the longest of
    its micro-batch; `training.global_batch` then counts conversations."""
    chat_template: str = "model"
    """`model` takes the template that the tokenizer brings; anything else is the path or URI of a
    Jinja file, for models that bring none."""
    template_args: dict[str, Any] = Field(default_factory=dict)
    """Further variables of the chat template, such as `{enable_thinking: false}`."""
    new_tokens: Annotated[tuple[str, ...], BeforeValidator(_new_texts)] = ()
    """Texts that become one token each, such as `["<tool>", "鋼"]`, wherever they stand in the
    data. The vocabulary grows by them; each begins as the mean of the tokens that it was written
    with. LoRA trains their rows of embeddings and head (`lora.also_train`)."""
    too_long: Literal["refuse", "drop"] = "refuse"
    """What becomes of a conversation longer than `row_tokens`: `refuse` stops before training,
    `drop` leaves it out and counts it."""

    @property
    def train_sources(self) -> tuple[SourceSpec, ...]:
        """`train` in its long form."""
        return _long_form(self.train)

    @property
    def held_out_sources(self) -> tuple[SourceSpec, ...]:
        """`held_out` in its long form; none where a share of `train` is set aside."""
        if self.held_out is None:
            return ()
        return _long_form(self.held_out)

    @property
    def train_name(self) -> str:
        """`train` for messages: its paths."""
        return ", ".join(source.path for source in self.train_sources)

    @property
    def holds_out(self) -> bool:
        """Whether anything is kept from training, to measure the model on."""
        return self.held_out is not None or self.held_out_share > 0

    @property
    def held_out_name(self) -> str | None:
        """`held_out` for messages: its paths."""
        return ", ".join(source.path for source in self.held_out_sources) or None
