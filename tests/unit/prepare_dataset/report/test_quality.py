import dataclasses
import html
import json
import re
from pathlib import Path

import pytest

from components.prepare_dataset.records.conversations import Conversation
from components.prepare_dataset.report.cautions import (
    data_cautions,
    dropped_cautions,
    token_cautions,
)
from components.prepare_dataset.report.page import HEIGHT, WIDTH, bars, render_page
from components.prepare_dataset.report.quality import (
    Places,
    Quality,
    SetQuality,
    row_sizes,
    set_quality,
)
from components.prepare_dataset.report.shown_samples import (
    pieces,
    shown_sample,
    shown_samples,
    token_text,
)
from components.prepare_dataset.samples.tokens import Encoder
from components.prepare_dataset.source import Records
from components.prepare_dataset.templates.process import BoundedTemplate
from tests.support.tiny_models import BOS, CHATML, END
from tests.unit.prepare_dataset.conftest import NOW, conversation, encoded_samples, kept
from tests.unit.prepare_dataset.sentencepiece import like_a_japanese_sentencepiece

NONE = Places(count=0, first=())
STOPS_AT_END: dict[str, object] = {"eos_token_id": 3, "max_position_embeddings": 512}


def _no_records() -> Records:
    return Records(kept(), kept(), "", None)


def _with(encoder: Encoder, template: str) -> Encoder:
    return dataclasses.replace(
        encoder, template=BoundedTemplate("t.jinja", template, encoder.template.special_tokens, NOW)
    )


def _cautions(
    encoder: Encoder, *talks: Conversation, config: dict[str, object] = STOPS_AT_END
) -> list[str]:
    return list(token_cautions(encoder, encoded_samples(encoder, *talks), Path("nowhere"), config))


def _ten(encoder: Encoder) -> SetQuality:
    talks = [conversation("q", "12" * n, where=f"x:{n}") for n in range(1, 11)]
    return set_quality(
        encoded_samples(encoder, *talks), num_rows=2, row_tokens=1000, dropped_lengths=[2000]
    )


def test_numbers_of_a_set_add_up(encoder: Encoder) -> None:
    encoded = encoded_samples(
        encoder, *(conversation("q", "12" * n, where=f"x:{n}") for n in range(1, 11))
    )
    lengths = [len(tokens.ids) for tokens in encoded]
    quality = _ten(encoder)
    assert (quality.conversations, quality.dropped, quality.tokens) == (10, 1, sum(lengths))
    assert quality.trained_tokens == sum(tokens.num_trained for tokens in encoded)
    assert quality.packing_efficiency == round(sum(lengths) / 2000, 4)
    assert (
        quality.lengths.min,
        quality.lengths.p50,
        quality.lengths.p90,
        quality.lengths.max,
    ) == tuple(lengths[n] for n in (0, 4, 8, 9))
    assert (
        0 < quality.trained_share.min < quality.trained_share.median < quality.trained_share.max < 1
    )
    assert sum(each.conversations for each in quality.histogram) == 11
    assert quality.dropped_tokens == 2000


def test_pieces_say_what_is_trained_on_and_together_are_the_whole_text(encoder: Encoder) -> None:
    talk = conversation("港は？", "青です。", "q", "a")
    found = pieces(encoder.tokenizer, encoded_samples(encoder, talk)[0])
    assert [piece.text for piece in found if piece.trained] == [f"青です。{END}", f"a{END}"]
    assert "".join(piece.text for piece in found) == encoder.template.render(talk.messages)


def test_good_data_causes_no_caution(encoder: Encoder) -> None:
    assert _cautions(encoder, conversation("q", "a"), conversation("12たす7は？", "19です。")) == []
    assert not list(data_cautions(_no_records(), NONE, NONE))
    assert not list(dropped_cautions([], encoded_samples(encoder)))


def test_copies_leaks_and_dropped_conversations_are_cautioned_about(encoder: Encoder) -> None:
    copied, leaked = (
        Places(count=1, first=(("x:1", "x:7", "x:9"),)),
        Places(count=1, first=(("x:1", "y:2"),)),
    )
    lines = list(data_cautions(_no_records(), copied, leaked))
    assert lines[0] == "1 conversations stand more than once in data.train, such as x:1, x:7"
    assert (
        lines[1]
        == "1 held-out conversations are trained on too, such as x:1 and y:2: their loss flatters"
    )
    one = encoded_samples(encoder, conversation("q", "a"))
    (line,) = dropped_cautions([9 * len(one[0].ids)], one)
    assert line == (
        "1 conversations longer than data.row_tokens were left out: 50.0% of all, 90.0% of the "
        "tokens"
    )


@pytest.mark.parametrize(
    ("template", "reported"),
    [
        (
            CHATML.removeprefix("{{ bos_token }}"),
            "writes no bos token though the tokenizer begins a text with one",
        ),
        (CHATML + "{# strftime_now #}", "writes today's date"),
    ],
)
def test_what_a_template_does_is_cautioned_about(
    encoder: Encoder, template: str, reported: str
) -> None:
    (line,) = _cautions(_with(encoder, template), conversation("q", "a"))
    assert line.startswith(f"t.jinja {reported}")


def test_an_answer_that_begins_inside_a_token_is_cautioned_about(encoder: Encoder) -> None:
    turn, prompt = (
        "{{ m.role + ': ' + m.content + eos_token }}",
        "{% if add_generation_prompt %}assistant: {% endif %}",
    )
    text = BOS + "{% for m in messages %}" + turn + "{% endfor %}" + prompt
    (line,) = _cautions(_with(encoder, text), conversation("q", "the answer", where="x:5"))
    assert line.startswith("in 1 conversations, such as x:5, an answer begins inside a token")


def test_a_special_token_in_the_words_of_a_conversation_is_cautioned_about(
    encoder: Encoder,
) -> None:
    (line,) = _cautions(
        encoder, conversation("q", "a"), conversation(f"what is {END}?", "a token", where="x:2")
    )
    assert line.startswith("1 conversations, such as x:2, hold a special token in their own words")


def test_a_character_without_a_token_is_cautioned_about(tmp_path: Path) -> None:
    unigram = like_a_japanese_sentencepiece(tmp_path)
    (line,) = _cautions(
        unigram, conversation("12", "12 is 12."), conversation("12", "🎉", where="x:2"), config={}
    )
    assert line.startswith("in 1 conversations, such as x:2, some character has no token")


def test_a_conversation_longer_than_the_models_positions_is_cautioned_about(
    encoder: Encoder,
) -> None:
    (line,) = _cautions(
        encoder, conversation("q", "a"), config={**STOPS_AT_END, "max_position_embeddings": 8}
    )
    assert line.endswith("the model knows positions up to 8 (max_position_embeddings)")


def test_an_end_token_at_which_generation_does_not_stop_is_cautioned_about(
    encoder: Encoder, tmp_path: Path
) -> None:
    encoded = encoded_samples(encoder, conversation("q", "a"))
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [0]}))
    (line,) = token_cautions(encoder, encoded, tmp_path, STOPS_AT_END)
    assert line.startswith(
        f"assistant turns end with '{END}', but generation stops only at '{BOS}'"
    )


def test_the_page_escapes_what_the_data_says_and_needs_nothing_from_elsewhere(
    encoder: Encoder,
) -> None:
    talk = conversation("<script>alert(1)</script>", "<b>no</b>")
    part = _ten(encoder)
    quality = Quality(
        row_tokens=64,
        chat_template="t<u>",
        train=part,
        held_out=part,
        copies=NONE,
        leaks=NONE,
        warnings=("a <i>",),
        samples=(
            shown_sample(encoder.tokenizer, encoded_samples(encoder, talk)[0], "first sample"),
        ),
        examples=(),
    )
    page = render_page("run<s>", "m", quality)
    assert all(
        escaped in page
        for escaped in (
            "&lt;script&gt;",
            "t&lt;u&gt;",
            "a &lt;i&gt;",
            "run&lt;s&gt;",
            "<mark>&lt;b&gt;no&lt;/b&gt;",
        )
    )
    assert not any(
        outside in page for outside in ("<script", "http://", "https://", "@import", "src=")
    )


def test_the_page_shows_each_token_with_its_id_and_stays_small(encoder: Encoder) -> None:
    long = conversation("港の色は" * 4000, "青です。" * 4000)
    samples = encoded_samples(encoder, conversation("a <b>\n", "い"), long)
    shown = shown_samples(encoder.tokenizer, samples[:1].of([0]), [1])
    part = _ten(encoder)
    quality = Quality(
        row_tokens=64,
        chat_template="t",
        train=part,
        held_out=None,
        copies=NONE,
        leaks=NONE,
        warnings=(),
        samples=shown * 3,
        examples=(),
        turns={"user": 2},
        row_sizes=row_sizes({10: 1, 2000: 1}, 64),
    )
    page = render_page("run", "m", quality)
    assert len(page.encode()) < 300_000
    assert "<span>&lt;<small>" in page
    assert f'<span class="t">{html.escape(END)}<small>3</small></span>' in page
    assert "more characters …" in page
    assert "<td>64 (taken)</td><td>50.0%</td><td>0.5%</td>" in page


@pytest.mark.parametrize("text", ["港は青い", "a b\n🎉", "é"])
def test_tokens_are_shown_as_bytes_where_they_are_part_of_a_character(
    encoder: Encoder, text: str
) -> None:
    shown = [
        token_text(encoder.tokenizer, token)
        for token in encoder.tokenizer.encode(text, add_special_tokens=False).ids
    ]
    assert (
        re.sub(
            rb"\\x([0-9a-f]{2})",
            lambda found: bytes.fromhex(found[1].decode()),
            "".join(shown).encode(),
        )
        == text.encode()
    )
    assert not any("\ufffd" in each for each in shown)


def test_a_long_text_is_cut_in_its_middle_and_its_marks_stay(encoder: Encoder) -> None:
    (sample,) = encoded_samples(encoder, conversation("q" * 9000, "a" * 9000))
    shown = shown_sample(encoder.tokenizer, sample, "first sample")
    assert [piece.trained for piece in shown.pieces] == [False, False, True, False]
    assert sum(len(piece.text) for piece in shown.pieces) < 3100
    assert shown.pieces[-2].text.endswith(END)
    assert (len(shown.tokens), shown.num_left_out) == (160, len(sample.ids) - 160)


def test_bars_fill_the_width_and_the_highest_the_height(encoder: Encoder) -> None:
    found = bars(_ten(encoder).histogram)
    assert max(bar.height for bar in found) == HEIGHT
    assert all(
        0 <= bar.x <= bar.x + bar.width <= WIDTH and bar.y + bar.height == pytest.approx(HEIGHT)
        for bar in found
    )
