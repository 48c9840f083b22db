from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pytest

from components.prepare_dataset.assemble import encoded_chunk
from components.prepare_dataset.packing.stored import Chosen, Conversations, Samples, stored
from components.prepare_dataset.records.conversations import Conversation, read_conversation
from components.prepare_dataset.samples.tokens import Encoded, Encoder, load_encoder
from tests.support.tiny_models import make_tokenizer

NOW = datetime(2026, 11, 24)


def conversation(*contents: str, where: str = "x.jsonl:1", system: str | None = None) -> Conversation:
    """User and assistant in turn, checked as a record of a file is."""
    turns = [{"role": ("user", "assistant")[index % 2], "content": content} for index, content in enumerate(contents)]
    if system is not None:
        turns.insert(0, {"role": "system", "content": system})
    found = read_conversation(where, turns)
    assert isinstance(found, Conversation)
    return found


def kept(*talks: Conversation) -> Chosen[Conversation]:
    """The conversations as they are kept when they were read from files."""
    conversations = Conversations()
    for talk in talks:
        conversations.append(talk)
    return conversations[:]


def encoded_samples(encoder: Encoder, *talks: Conversation) -> Chosen[Encoded]:
    """The samples of the conversations as they are kept."""
    samples = Samples(stored(kept(*talks)))
    chunk, problems = encoded_chunk(encoder, talks)
    assert not problems
    for number, sample in chunk:
        samples.append(number, sample)
    return samples[:]


@dataclass
class Shown:
    """KFP's artifact of numbers, as much of it as a step uses."""

    path: str
    numbers: dict[str, float] = field(default_factory=dict)

    def log_metric(self, name: str, value: float) -> None:
        self.numbers[name] = value


@pytest.fixture
def shown(tmp_path: Path) -> Shown:
    return Shown(str(tmp_path / "metrics"))


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All that preparing needs of a model: the tiny tokenizer and a config."""
    folder = make_tokenizer(tmp_path_factory.mktemp("model"))
    (folder / "config.json").write_text('{"model_type": "llama", "vocab_size": 400, "max_position_embeddings": 512, "eos_token_id": 3}')
    return folder


@pytest.fixture(scope="session")
def encoder(model_folder: Path) -> Encoder:
    return load_encoder(model_folder, "model", now=NOW)
