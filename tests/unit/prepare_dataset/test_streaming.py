"""Conversations and tokens that are kept on disk come out as they went in, in whatever number of
processes they are written."""

import gc
import json
import os
import random
import subprocess
import sys
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from components.prepare_dataset.__main__ import prepare
from components.prepare_dataset.assemble import encode_all, encoded_chunk, no_progress, pack_sets
from components.prepare_dataset.packing.rows import write_rows
from components.prepare_dataset.packing.shared_rows import pack
from components.prepare_dataset.packing.spool import Numbers, Spool
from components.prepare_dataset.packing.stored import (
    Chosen,
    Conversations,
    Samples,
    length_counts,
    lengths_of,
    stored,
)
from components.prepare_dataset.records.conversations import Conversation, read_conversation
from components.prepare_dataset.records.held_out import asked_in_both, set_aside
from components.prepare_dataset.report.quality import row_sizes, set_quality
from components.prepare_dataset.samples.in_processes import in_processes, num_cores, num_processes
from components.prepare_dataset.samples.token_places import PlacedTokenizer
from components.prepare_dataset.samples.tokens import Encoder
from components.prepare_dataset.source import Records
from components.shared.errors import DataError, RunFailed
from components.shared.log import set_up_log
from components.shared.spec.data import DataSpec
from components.shared.spec.file import parse_spec
from components.shared.store.layout import DATASET
from components.shared.store.manifest import Manifest
from tests.unit.prepare_dataset.conftest import conversation, encoded_samples, kept

WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40).filter(str.strip)
TALKS = st.lists(st.lists(WORDS, min_size=2, max_size=6), min_size=2, max_size=30)


def _records(talks: list[list[str]], share: float = 0.2) -> Records:
    everything = kept(
        *(conversation(*talk, where=f"x:{number}") for number, talk in enumerate(talks))
    )
    try:
        split = set_aside(everything, share)
    except DataError:  # all say the same
        return Records(everything, everything, "", None)
    return Records(split.train, split.held_out, "", None)


@settings(max_examples=50, deadline=None)
@given(TALKS, st.booleans())
def test_no_token_is_lost_or_doubled(
    encoder: Encoder, tmp_path_factory: pytest.TempPathFactory, talks: list[list[str]], packed: bool
) -> None:
    records = _records(talks)
    encoded = encode_all(DataSpec(train="x"), encoder, records, progress=no_progress)
    data = DataSpec(train="x", row_tokens=2048)
    folder = tmp_path_factory.mktemp("rows")
    for part, conversations in zip(
        pack_sets(data, records, encoded, row_tokens=2048, packed=packed),
        (records.train, records.held_out),
        strict=True,
    ):
        write_rows(folder / "rows.parquet", part.rows, part.samples, row_tokens=2048)
        written = Counter(
            tokens
            for row in pq.read_table(folder / "rows.parquet").to_pylist()
            for tokens in _apart(row)
        )
        chunk, _ = encoded_chunk(encoder, list(conversations))
        assert written == Counter(_tokens(sample.content, sample.length) for _, sample in chunk)


def _apart(row: dict[str, list[int]]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """(ids, labels) of each conversation of a row."""
    starts = [sum(row["lengths"][:index]) for index in range(len(row["lengths"]) + 1)]
    return [
        (tuple(row["input_ids"][start:end]), tuple(row["labels"][start:end]))
        for start, end in pairwise(starts)
    ]


def _tokens(content: bytes, length: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    numbers = memoryview(content).cast("i").tolist()
    ids, spans = numbers[:length], numbers[length:]
    trained = {
        place
        for start, end in zip(spans[::2], spans[1::2], strict=True)
        for place in range(start, end)
    }
    return tuple(ids), tuple(token if place in trained else -100 for place, token in enumerate(ids))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 9)), min_size=30, max_size=80),
    st.floats(0.05, 0.3),
)
def test_train_and_held_out_never_share_a_first_question(
    pairs: list[tuple[int, int]], share: float
) -> None:
    assume(len(set(pairs)) > 10)
    everything = kept(
        *(conversation(f"question {asked}", f"answer {said}") for asked, said in pairs)
    )
    split = set_aside(everything, share)
    sides = [{each.messages[0].content for each in part} for part in (split.train, split.held_out)]
    assert split.by == "conversation" or not sides[0] & sides[1]
    assert asked_in_both(split.train, split.held_out).count == sum(
        each.messages[0].content in sides[0] for each in split.held_out
    )


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 1,400 conversations, three chunks, in two languages."""
    rng = random.Random(3)
    path = tmp_path_factory.mktemp("many") / "train.jsonl"
    with path.open("w", encoding="utf-8") as stream:
        for number in range(1400):
            words = " ".join(
                rng.choices(("harbour", "blue", "港は", "青い。", "12", "🎉"), k=rng.randint(1, 30))
            )
            turns = [
                {"role": "user", "content": f"{number % 500}: {words}?"},
                {"role": "assistant", "content": words},
            ]
            stream.write(json.dumps({"messages": turns}) + "\n")
    return path


def _prepared(
    many: Path, model_folder: Path, store: Path, processes: int
) -> tuple[Manifest, dict[str, bytes]]:
    data = {"train": str(many), "row_tokens": 256, "too_long": "drop"}
    spec = parse_spec(
        {"name": "r", "store": str(store), "model": {"source": str(model_folder)}, "data": data}
    )
    manifest = prepare(spec, set_up_log("prepare_dataset"), processes)
    return manifest, {
        file.name: (Path(spec.run_uri) / DATASET / file.name).read_bytes()
        for file in manifest.files
    }


def test_1_2_and_4_processes_write_the_same_bytes(
    many: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAGANE_WORK", str(tmp_path / "work"))
    one, two, four = (
        _prepared(many, model_folder, tmp_path / str(count), count) for count in (1, 2, 4)
    )
    assert one == two == four
    assert len(one[1]) == 6


def test_problems_are_the_same_in_several_processes(encoder: Encoder) -> None:
    endless = Encoder(
        encoder.tokenizer,
        encoder.tokenizer_file,
        encoder.template,
        frozenset({1}),
        encoder.vocab_size,
    )
    talks = stored(
        kept(*(conversation("q", f"a{number}", where=f"x:{number}") for number in range(1200)))
    )
    one, two = (
        list(in_processes(encoded_chunk, endless, talks, processes=count)) for count in (1, 2)
    )
    found = [[problems for _, _, (_, problems) in chunks] for chunks in (one, two)]
    assert found[0] == found[1]
    assert sum(len(places) for problems in found[0] for places in problems.values()) == 1200


def _killed(encoder: Encoder, conversations: Sequence[Conversation]) -> None:
    os.kill(os.getpid(), 9)


def _failing(encoder: Encoder, conversations: Sequence[Conversation]) -> None:
    raise DataError(f"{conversations[0].where}: no")


def test_a_process_that_is_killed_stops_the_step_with_what_to_do(encoder: Encoder) -> None:
    talks = stored(kept(conversation("q", "a")))
    with pytest.raises(RunFailed, match="was killed; is there enough memory"):
        list(in_processes(_killed, encoder, talks, processes=2))


def test_an_error_in_a_process_is_raised_with_where_it_was(encoder: Encoder) -> None:
    with pytest.raises(DataError, match="x:9: no") as raised:
        list(
            in_processes(
                _failing, encoder, stored(kept(conversation("q", "a", where="x:9"))), processes=2
            )
        )
    assert "in _failing" in raised.value.__notes__[0]


def test_small_data_is_written_by_one_process() -> None:
    assert num_processes(31 << 20) == 1
    assert 1 <= num_processes(1 << 40) <= 16


@pytest.mark.parametrize(
    ("cpu_max", "most"),
    [("100000 100000\n", 1), ("50000 100000\n", 1), ("max 100000\n", 10_000), (None, 10_000)],
)
def test_a_pods_cpu_limit_limits_the_processes(
    tmp_path: Path, cpu_max: str | None, most: int
) -> None:
    if cpu_max is not None:
        (tmp_path / "cpu.max").write_text(cpu_max)
    assert num_cores(tmp_path / "cpu.max") == min(most, len(os.sched_getaffinity(0)))


TOOL = {"type": "function", "function": {"name": "tide", "parameters": {"type": "object"}}}


@settings(deadline=None)
@given(st.lists(st.tuples(WORDS, WORDS, st.booleans(), st.booleans()), min_size=1, max_size=8))
def test_conversations_are_read_back_as_they_were_kept(
    said: list[tuple[str, str, bool, bool]],
) -> None:
    talks: list[Conversation] = []
    for number, (question, answer, thinks, calls) in enumerate(said):
        turn = {
            "role": "assistant",
            "content": answer,
            **({"reasoning_content": question} if thinks else {}),
        }
        found = read_conversation(
            f"f:{number}", [{"role": "user", "content": question}, turn], [TOOL] if calls else None
        )
        assert isinstance(found, Conversation)
        talks.append(found)
    assert list(kept(*talks)) == talks


@settings(deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=40), st.integers(1, 7), st.integers(1, 900))
def test_a_spool_gives_back_every_string_and_its_chunks_hold_each_once(
    contents: list[bytes], most: int, most_bytes: int
) -> None:
    spool = Spool()
    for content in contents:
        spool.append(content)
    assert [spool[number] for number in range(len(spool))] == contents
    chunks = list(spool.chunks(most=most, most_bytes=most_bytes))
    assert [number for start, stop in chunks for number in range(start, stop)] == list(
        range(len(contents))
    )
    assert all(
        stop - start == 1 or sum(map(len, contents[start:stop])) <= most_bytes
        for start, stop in chunks
    )
    assert all(stop - start <= most for start, stop in chunks)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 3 * 1024 + 5), st.data())
def test_numbers_are_read_by_place_and_in_order(count: int, data: st.DataObject) -> None:
    expected = [number * 7919 % 2**32 for number in range(count)]
    numbers = Numbers("I")
    for number in expected:
        numbers.append(number)
    assert len(numbers) == count
    assert list(numbers) == expected
    for place in data.draw(st.lists(st.integers(-count, count - 1))) if count else ():
        assert numbers[place] == expected[place]
    assert numbers[1020:2060:3] == expected[1020:2060:3]
    with pytest.raises(IndexError):
        numbers[count]


def test_a_spools_file_is_gone_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    spool = Spool()
    spool.append(b"x" * 3_000_000)
    fd = spool.fd
    assert list(tmp_path.iterdir()) == []
    assert os.fstat(fd).st_size == 3_000_000
    del spool
    gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


@settings(max_examples=300, deadline=None)
@given(WORDS, st.data())
def test_several_spans_have_the_tokens_that_offsets_say(
    encoder: Encoder, text: str, data: st.DataObject
) -> None:
    whole = f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n{text}<|im_end|>\n"
    places = st.lists(st.integers(0, len(whole)), min_size=4, max_size=8, unique=True)
    ordered = sorted(data.draw(places))
    spans = tuple(zip(ordered[::2], ordered[1::2], strict=False))
    encoding = encoder.tokenizer.encode(whole, add_special_tokens=False)
    (tokens,) = PlacedTokenizer(encoder.tokenizer).encode([whole], [spans])
    for (start, end), found in zip(spans, tokens.ranges, strict=True):
        first, last = encoding.char_to_token(start), encoding.char_to_token(end - 1)
        assert last is not None
        assert found == (first, last + 1)


@settings(max_examples=300, deadline=None)
@given(WORDS, st.data())
def test_spans_have_the_tokens_that_offsets_say(
    encoder: Encoder, text: str, data: st.DataObject
) -> None:
    whole = f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n{text}<|im_end|>\n"
    start = data.draw(st.integers(0, len(whole) - 1))
    end = data.draw(st.integers(start + 1, len(whole)))
    encoding = encoder.tokenizer.encode(whole, add_special_tokens=False)
    (tokens,) = PlacedTokenizer(encoder.tokenizer).encode([whole], [((start, end),)])
    first, last = encoding.char_to_token(start), encoding.char_to_token(end - 1)
    assert first is not None
    assert last is not None
    assert list(tokens.ids) == encoding.ids
    assert tokens.ranges == ((first, last + 1),)
    assert tokens.starts_inside_token == (encoding.offsets[first][0] < start)


@pytest.mark.parametrize("text", ["か\u3099", "e\u0301a"])
def test_a_text_that_a_normalizer_changes_has_its_places_by_offsets(
    encoder: Encoder, text: str
) -> None:
    settings_of = json.loads(encoder.tokenizer.to_str())
    normalizing = type(encoder.tokenizer).from_str(
        json.dumps({**settings_of, "normalizer": {"type": "NFC"}})
    )
    whole = f"{text * 3}<|im_end|>"
    (tokens,) = PlacedTokenizer(normalizing).encode([whole], [((len(text), len(whole)),)])
    ((first, last),) = (each for each in tokens.ranges if each is not None)
    assert normalizing.decode(list(tokens.ids[first:last]), skip_special_tokens=False).endswith(
        "<|im_end|>"
    )
    assert last == len(tokens.ids)


def test_shares_and_percentiles_are_those_of_the_sorted_numbers(encoder: Encoder) -> None:
    samples = encoded_samples(
        encoder,
        *(
            conversation("q" * (number % 7 + 1), "12" * number, where="x")
            for number in range(1, 41)
        ),
    )
    lengths = sorted(len(each.ids) for each in samples)
    shares = sorted(round(each.num_trained / len(each.ids), 4) for each in samples)
    quality = set_quality(samples, num_rows=1, row_tokens=100_000)
    assert (quality.lengths.p50, quality.lengths.p90, quality.lengths.p99) == (
        lengths[19],
        lengths[35],
        lengths[39],
    )
    assert (quality.trained_share.min, quality.trained_share.median, quality.trained_share.max) == (
        shares[0],
        shares[19],
        shares[-1],
    )


def test_what_is_decided_of_many_samples_takes_a_few_bytes_of_each(encoder: Encoder) -> None:
    """Numbers are on disk; packing holds four of 4 bytes at a time, and the report none."""
    talk = conversation("harbour?", "blue")
    ((_, sample),), _ = encoded_chunk(encoder, [talk])
    count = 50_000
    tracemalloc.start()
    conversations = Conversations()
    samples = Samples(conversations)
    for number in range(count):
        conversations.append(talk)
        samples.append(number, sample)
    everything = samples[:]
    kept_mb = tracemalloc.get_traced_memory()[1]
    rows = pack(lengths_of(everything), 2048)
    packed_mb = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    set_quality(everything, num_rows=len(rows), row_tokens=2048)
    row_sizes(length_counts(everything), 2048)
    report_mb = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    assert kept_mb < 3_000_000  # two buffers of the files, at most 1 MB each
    assert packed_mb < kept_mb + 24 * count
    assert report_mb < 4 * count


_GROWTH = """
import resource, sys
from datetime import datetime
from pathlib import Path
from components.prepare_dataset.packing import rows
from components.prepare_dataset.__main__ import prepare
from components.shared.log import set_up_log
from components.shared.spec.file import load_spec
rows._ROWS_AT_ONCE = 8  # so that both have many groups of rows
prepare(load_spec(Path(sys.argv[1]), []), set_up_log("prepare_dataset"), 1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_data(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAGANE_WORK", str(tmp_path / "work"))
    peaks: list[int] = []
    for name, count in (("few", 150), ("many", 900)):
        rng = random.Random(5)
        path = tmp_path / f"{name}.jsonl"
        with path.open("w") as stream:
            for number in range(count):
                answer = " ".join(rng.choices(("harbour", "blue", "answer", "number"), k=2500))
                turns = [
                    {"role": "user", "content": f"q{number}"},
                    {"role": "assistant", "content": answer},
                ]
                stream.write(json.dumps({"messages": turns}) + "\n")
        spec = {
            "name": name,
            "store": str(tmp_path / "store"),
            "model": {"source": str(model_folder)},
        }
        (tmp_path / f"{name}.yaml").write_text(
            json.dumps({**spec, "data": {"train": str(path), "row_tokens": 16_384}})
        )
        found = subprocess.run(
            [sys.executable, "-c", _GROWTH, str(tmp_path / f"{name}.yaml")],
            check=True,
            capture_output=True,
            text=True,
        )
        peaks.append(int(found.stdout.splitlines()[-1]))
    bytes_more = (tmp_path / "many.jsonl").stat().st_size - (tmp_path / "few.jsonl").stat().st_size
    assert bytes_more > 10e6
    assert (peaks[1] - peaks[0]) * 1024 < bytes_more  # it was 3.4 times as much


def test_chosen_items_may_repeat_and_be_sliced() -> None:
    talks = Conversations()
    for number in range(5):
        talks.append(conversation("q", "a", where=f"x:{number}"))
    chosen: Chosen[Conversation] = talks[:].of([4, 1, 1])
    assert [each.where for each in chosen] == ["x:4", "x:1", "x:1"]
    assert [each.where for each in chosen[1:]] == ["x:1", "x:1"]
    assert chosen[0].where == "x:4"
