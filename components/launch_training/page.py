"""The history of a training -> a page with its losses, drawn and in numbers."""

from components.shared.documents.results import History
from components.shared.figures import plural
from components.shared.html.loss_chart import loss_chart
from components.shared.html.plain_page import plain_page

WIDTH, HEIGHT = 760, 300
KEY_WITHOUT_HELD_OUT = (
    '<p class="key"><span class="training">— training, each step</span> &nbsp; in nats per trained '
    "token</p>"
)
KEY = (
    '<p class="key"><span class="training">— training, each step</span> &nbsp; '
    '<span class="held-out">● held out, each epoch</span> '
    "&nbsp; in nats per trained token</p>"
)


def losses_page(run: str, history: History) -> str:
    """The page's HTML."""
    table = _table(history)
    about = (
        f"{run} · {plural(history.epochs[-1].step, 'step')}, {history.tokens:,} tokens in "
        f"{history.seconds:,.0f} s"
    )
    return plain_page(
        "Loss",
        about,
        f"{loss_chart(history, width=WIDTH, height=HEIGHT)}\n{_key(history)}\n{table}",
    )


def _key(history: History) -> str:
    if history.start_held_out_loss is None:
        return KEY_WITHOUT_HELD_OUT
    return KEY


def _table(history: History) -> str:
    """Losses by epoch; those of held-out data only where some is held out."""
    held_out = history.start_held_out_loss is not None
    if held_out:
        rows = [("before", "0", "", _loss(history.start_held_out_loss))]
    else:
        rows = []
    rows += [
        (str(each.epoch), f"{each.step:,}", _loss(each.loss), _loss(each.held_out_loss))
        for each in history.epochs
    ]
    if held_out:
        shown = 4
    else:
        shown = 3
    heads = "".join(f"<th>{name}</th>" for name in ("epoch", "step", "loss", "held out")[:shown])
    body = "\n".join(
        "<tr>" + "".join(f"<td>{cell}</td>" for cell in row[:shown]) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{heads}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"


def _loss(loss: float | None) -> str:
    if loss is None:
        return ""
    return f"{loss:.4f}"


def numbers_of(history: History) -> dict[str, float | None]:
    """What KFP shows of the training, by name."""
    last = history.epochs[-1]
    return {
        "train_loss": last.loss,
        "held_out_loss": last.held_out_loss,
        "held_out_loss_before": history.start_held_out_loss,
        "tokens_per_second": round(history.tokens / history.seconds, 1)
        if history.seconds
        else None,
        "training_seconds": round(history.seconds, 1),
    }
