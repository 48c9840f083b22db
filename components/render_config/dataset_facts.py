"""What planning needs of the dataset: counted from its manifest, or assumed where there is none."""

from dataclasses import dataclass

from components.shared.store.manifest import Manifest, Scalar


@dataclass(frozen=True)
class DatasetFacts:
    """What planning needs of the dataset's manifest."""

    digest: str
    """Of the dataset's manifest: it stands for every row. Empty where there is none yet."""
    num_rows: int
    num_tokens: int
    model_revision: str | None
    num_held_out: int | None = None
    """Held-out rows; None where there is no dataset yet."""
    row_tokens: int | None = None
    """Most tokens of a row; None where there is no dataset yet."""
    packed: bool | None = None
    """Whether conversations share rows; None where there is no dataset yet."""
    num_conversations: int | None = None
    """Conversations that are trained on in an epoch; None where it is not known."""
    longest_conversation: int | None = None
    """Tokens of the longest conversation, training or held out; None where it is not known."""
    num_embeddings: int | None = None
    """Rows of the model's embeddings, new tokens included; None where there is no dataset yet."""


NO_DATASET = DatasetFacts(digest="", num_rows=0, num_tokens=0, model_revision=None)


def dataset_facts(dataset: Manifest) -> DatasetFacts:
    facts = dataset.facts
    revision = facts["model_revision"]
    return DatasetFacts(
        digest=dataset.digest,
        num_rows=int(facts["num_rows"] or 0),
        num_tokens=int(facts["num_tokens"] or 0),
        num_held_out=int(facts["held_out_rows"] or 0),
        row_tokens=_whole(facts.get("row_tokens")),
        packed=bool(facts.get("packed", True)),
        num_conversations=_whole(facts.get("num_conversations")),
        longest_conversation=_whole(facts.get("longest_conversation")),
        num_embeddings=_whole(facts.get("num_embeddings")),
        model_revision=None if revision is None else str(revision),
    )


def _whole(fact: Scalar) -> int | None:
    if fact is None:
        return None
    return int(fact)
