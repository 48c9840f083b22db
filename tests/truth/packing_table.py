"""`python -m tests.truth.packing_table`: how rows must be made for each causal language model type
of transformers.

A small random model of each type is looked at as training does it
(components/train/model/apart.py), in fp32 and bf16, and three things are checked that training
takes from here: a packed conversation has the logits that it has alone, padding on the right
changes none, and a backward pass in training mode works. Writes
components/shared/model/row_packing.yaml and docs/packing.md.
"""

import inspect
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
import yaml
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from components.train.loop.rows import NOT_TRAINED, Batch, Row, collate, inputs_of, row_of
from components.train.model.apart import NUM_ITEMS, Looked, look, pair_of
from components.train.model.attention import ConversationAttention
from components.train.model.output_layer import DIVISORS, FACTORS, SOFT_CAP, OutputLayer, mean_loss
from tests.support.small_models import VOCABULARY, parts_of, small_config, small_model

ROOT = Path(__file__).parents[2]
DATA = ROOT / "components" / "shared" / "model" / "row_packing.yaml"
DOCS = ROOT / "docs" / "packing.md"
CPU = torch.device("cpu")
SAME = 1e-4
"""Standard deviations of the logits: what fp32 sums in another order stay below."""

SHAPES_LOGITS = (SOFT_CAP, *FACTORS, *DIVISORS)

Verdict = Literal["packed", "one conversation", "refused", "not measured"]


@dataclass(frozen=True)
class Measured:
    model_type: str
    verdict: Verdict
    why: str
    """Of a refusal, a clause; of a type that was not measured, the error."""
    others: dict[str, float]
    """Precision -> how far a packed row's second conversation moves when the first changes; empty
    where that was not measured."""
    conversations: bool = False
    """Attention of each conversation by itself gives a packed row the logits and gradients of each
    alone."""
    same_loss: bool = False
    """The output layer at trained tokens alone gives the loss and the gradients of whole logits."""
    decoder: bool = False
    """Refused, but right with `is_decoder: true` in one conversation a row."""


def conversations() -> tuple[list[int], list[int]]:
    generator = torch.Generator().manual_seed(3)
    first, second = (
        torch.randint(3, VOCABULARY, (count,), generator=generator).tolist() for count in (70, 50)
    )
    return first, second


def measure(model_type: str) -> Measured:
    """What the type comes to."""
    try:
        model = small_model(model_type)
    except (
        Exception
    ) as error:  # each class fails in its own way when it cannot be built, or not so small
        return Measured(model_type, "not measured", short(error), {})
    try:
        with torch.no_grad():
            model(input_ids=torch.tensor([conversations()[0]]))
    except Exception as error:
        return Measured(model_type, "not measured", short(error), {})
    why = refusal(model)
    if why is not None:
        decoder = (
            hasattr(model.config, "is_decoder")
            and not model.config.is_decoder
            and is_right_decoder(model_type)
        )
        return Measured(model_type, "refused", why, {}, decoder=decoder)
    others = {"fp32": packed(model)}
    differs = others["fp32"] > SAME or packed_against_alone(model) > SAME
    others |= in_bf16(model_type)
    by_itself = attends_conversations(model_type)
    verdict: Verdict = "packed" if by_itself or not differs else "one conversation"
    why = "by attention of each conversation alone" if by_itself and differs else ""
    return Measured(model_type, verdict, why, others, by_itself, has_same_loss(model_type))


def refusal(model: Any) -> str | None:
    """Why the model cannot be trained on one conversation a row, if it cannot."""
    first, _ = conversations()
    try:
        looked = looked_at(model, [first])
        trains(model)
    except Exception as error:
        return f"training it on text fails ({short(error)})"
    if not looked.future <= SAME:
        return "its tokens see the future"
    if not abs(looked.own_loss - looked.next_token_loss) <= 1e-3 * looked.next_token_loss:
        return "its loss is not that of the next token"
    if not padding_moves(model) <= SAME:
        return "padding on the right changes its logits"
    return None


def attends_conversations(model_type: str) -> bool:
    """Packed, components/train/model/attention.py gives the logits and the sum of gradients of
    conversations that are trained alone by the model's own attention."""
    try:
        model = small_model(model_type)
        packed_row = collate([row_of(conversations())])
        alone_rows = [collate([row_of([each])]) for each in conversations()]
        wanted_TV = torch.cat([alone(model, each) for each in conversations()])
        wanted = gradients_of(model, sum_of_losses(model, alone_rows))
        attention = ConversationAttention(model)
        with attention.conversations_of(packed_row.get("position_ids")):
            with torch.no_grad():
                found_TV = model(**inputs_of(packed_row, CPU)).logits[0]
            found = gradients_of(model, sum_of_losses(model, [packed_row]))
    except Exception:  # as in `measure`
        return False
    return moved(found_TV, wanted_TV) <= SAME and same_gradients(found, wanted)


def sum_of_losses(model: Any, batches: list[Batch]) -> Any:
    """Over all tokens with a label, in nats."""
    total: Any = 0
    for batch in batches:
        logits_BTV = model(**inputs_of(batch, CPU)).logits
        targets = batch["labels"][:, 1:].flatten()
        total += torch.nn.functional.cross_entropy(
            logits_BTV[:, :-1].flatten(0, 1), targets, ignore_index=NOT_TRAINED, reduction="sum"
        )
    return total


def has_same_loss(model_type: str) -> bool:
    """Loss and gradients by components/train/model/output_layer.py are those of the model itself,
    also where its config scales or caps
    logits: every such field is 2, whatever its default."""
    try:
        parts = parts_of(small_config(model_type))
        fields: dict[str, Any] = {
            name: 2.0
            for name in SHAPES_LOGITS
            if any(vars(part).get(name) is not None for part in parts)
        }
        model = small_model(model_type, **fields)
        for part in parts_of(model.config):
            vars(part).update({name: value for name, value in fields.items() if name in vars(part)})
            if "unpadded_vocab_size" in vars(part):  # Inkling cuts its logits there
                vars(part)["unpadded_vocab_size"] = VOCABULARY - 16
        return _same_loss(model)
    except Exception:  # as in `measure`
        return False


def _same_loss(model: Any) -> bool:
    given: Any = collate(two_rows())
    given["labels"][:, ::3] = NOT_TRAINED
    loss = model(**given).loss
    wanted = gradients_of(model, loss)
    layer = OutputLayer(model, chunk_tokens=16)
    with layer.losses_of(given["labels"]):
        alone = mean_loss(model(**inputs_of(given, CPU)), given["labels"])
    found = gradients_of(model, alone)
    return abs(alone.item() - loss.item()) <= SAME * loss.item() and same_gradients(found, wanted)


def same_gradients(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> bool:
    """To a thousandth of each parameter's norm."""
    return all(
        name in found and (found[name] - gradient).norm() <= 1e-3 * gradient.norm() + 1e-7
        for name, gradient in wanted.items()
    )


def gradients_of(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {
        name: weight.grad.clone()
        for name, weight in model.named_parameters()
        if weight.grad is not None
    }


def is_right_decoder(model_type: str) -> bool:
    try:
        return refusal(small_model(model_type, is_decoder=True)) is None
    except Exception:  # as in `measure`
        return False


def looked_at(model: Any, rows: list[list[int]]) -> Looked:
    kinds = {parameter.kind for parameter in inspect.signature(model.forward).parameters.values()}
    accepts = getattr(
        model, "accepts_loss_kwargs", inspect.Parameter.VAR_KEYWORD in kinds
    )  # as Trainer asks
    loss_kwargs = {"num_items_in_batch": torch.tensor(NUM_ITEMS)} if accepts else {}
    with torch.no_grad():
        return look(model, pair_of(rows), device=CPU, loss_kwargs=loss_kwargs)


def packed(model: Any) -> float:
    """How far the second conversation moves; infinite where the model takes no packed row."""
    try:
        return looked_at(model, list(conversations())).others
    except Exception:  # as in `measure`
        return float("inf")


def in_bf16(model_type: str) -> dict[str, float]:
    """Empty where the model computes nothing in bf16 on a CPU."""
    try:
        return {
            "bf16": looked_at(
                small_model(model_type, dtype=torch.bfloat16), list(conversations())
            ).others
        }
    except Exception:  # as in `measure`
        return {}


def packed_against_alone(model: Any) -> float:
    first, second = conversations()
    return moved(logits(model, [row_of([first, second])])[0, len(first) :], alone(model, second))


def padding_moves(model: Any) -> float:
    """How far the shorter of two conversations in a micro-batch is from itself alone."""
    _, second = conversations()
    return moved(logits(model, two_rows())[1, : len(second)], alone(model, second))


def two_rows() -> list[Row]:
    return [row_of([tokens]) for tokens in conversations()]


def alone(model: Any, tokens: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([tokens])).logits[0]


def logits(model: Any, rows: list[Row]) -> torch.Tensor:
    with torch.no_grad():
        return model(**inputs_of(collate(rows), CPU)).logits


def moved(found_TV: torch.Tensor, wanted_TV: torch.Tensor) -> float:
    return float((found_TV - wanted_TV).abs().max() / wanted_TV.std())


def trains(model: Any) -> None:
    """A backward pass in training mode works."""
    model.train()
    model(**collate(two_rows())).loss.backward()
    model.eval()


def short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:80]}"


def data(found: list[Measured]) -> str:
    """row_packing.yaml."""
    of: dict[str, list[Measured]] = {}
    for each in found:
        of.setdefault(each.verdict, []).append(each)
    tree = {
        "transformers": transformers.__version__,
        "packed": [each.model_type for each in of["packed"] if not by_attention(each)],
        "one_conversation": [
            each.model_type
            for each in found
            if each.verdict == "one conversation" or by_attention(each)
        ],
        "decoders": [each.model_type for each in of["refused"] if each.decoder],
        "refused": {each.model_type: each.why for each in of["refused"]},
        "conversations": [each.model_type for each in of["packed"] if each.conversations],
        "whole_logits": [
            each.model_type
            for each in (*of["packed"], *of["one conversation"])
            if not each.same_loss
        ],
        "not_measured": [each.model_type for each in of["not measured"]],
    }
    head = (
        "# Written by `make packing`: every causal language model type of transformers. Read by "
        "row_packing.py.\n"
    )
    return head + yaml.safe_dump(tree, sort_keys=False, width=138)


def by_attention(measured: Measured) -> bool:
    """Packed rows are right only where each conversation attends by itself."""
    return measured.verdict == "packed" and bool(measured.why)


def document(found: list[Measured]) -> str:
    """docs/packing.md."""
    count = Counter(each.verdict for each in found)
    whole = ", ".join(
        f"`{each.model_type}`" for each in found if each.others and not each.same_loss
    )
    apart = [
        value
        for each in found
        if each.verdict == "packed" and not by_attention(each)
        for value in each.others.values()
    ]
    by_itself = sum(each.conversations for each in found)
    without = ", ".join(
        f"`{each.model_type}`"
        for each in found
        if each.verdict == "packed" and not each.conversations
    )
    mixing = [
        each.others["fp32"]
        for each in found
        if each.others and (by_attention(each) or each.verdict == "one conversation")
    ]
    lines = [
        "# Rows: packed, or one conversation each",
        "",
        (
            f"Written by `make packing` with transformers {transformers.__version__}, for all "
            f"{len(found)} causal language model types that it"
        ),
        (
            "lists. A small random model of each type was run twice on a row of two "
            "conversations, the first one exchanged. Where the second"
        ),
        (
            "one's logits do not move, and are those that it has alone, rows are **packed**. "
            "Where they move, a row is **one conversation**,"
        ),
        (
            "padded on the right, where no token looks. A type is **refused** where one "
            "conversation a row would be wrong too. A type that"
        ),
        (
            "could not be made small is **not measured**, and has one conversation a row. "
            "`data.packing: false` asks for that in every model."
        ),
        "",
        (
            f"In {by_itself} types training computes each conversation of a packed row by itself, "
            "with torch's kernels and without a mask"
        ),
        (
            "over the row (`training.attention: conversations`): logits and gradients were those "
            "of the conversations alone by the model's own"
        ),
        (
            "attention. Types that are packed and not among them, by the mask that transformers "
            f"makes: {without}. Layers with a state"
        ),
        (
            "(Mamba, linear attention, short convolutions) carry it from one conversation to the "
            "next: transformers can reset it only in"
        ),
        "kernels for GPUs (`seq_idx`, `cu_seq_lens`), so these types have one conversation a row.",
        "",
        (
            "The output layer works at trained tokens alone (`training.output_layer`) in all "
            "types that are not refused or unmeasured but"
        ),
        f"{whole}: there the loss or a gradient was another one.",
        "",
        (
            "Training measures the loaded model in the same way before its first step, whatever "
            "this table says, and stops where it is not so."
        ),
        "",
        f"{count['packed']} packed, {count['one conversation']} one conversation, "
        f"{count['refused']} refused, {count['not measured']} not measured. Packed types move by "
        f"at most {max(apart):.2g} standard deviations of the logits, in fp32 and in bf16; those "
        f"that mix conversations by at least {min(mixing):.2g} in fp32.",
        "",
        "| model type | rows | fp32 | bf16 | why |",
        "|---|---|---|---|---|",
    ]
    for each in found:
        moves = [
            f"{each.others[precision]:.2g}" if precision in each.others else ""
            for precision in ("fp32", "bf16")
        ]
        why = each.why + (
            ", unless config.json says `is_decoder: true`: then one conversation"
            if each.decoder
            else ""
        )
        lines.append(
            "| "
            + " | ".join((each.model_type, each.verdict, *moves, why.replace("|", "\\|")))
            + " |"
        )
    return "\n".join(lines) + "\n"


def measure_all() -> list[Measured]:
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(
        1
    )  # models are so small that sharing their work takes longer than doing it
    return [measure(model_type) for model_type in sorted(set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES))]


def main() -> None:
    found = measure_all()
    DATA.write_text(data(found), encoding="utf-8")
    DOCS.write_text(document(found), encoding="utf-8")


if __name__ == "__main__":
    main()
