"""The history of a training -> a page with its losses, drawn and in numbers."""

from components.shared.loss_chart import loss_chart
from components.shared.plain_page import plain_page
from components.shared.results import History

WIDTH, HEIGHT = 760, 300
KEY = (
    '<p class="key"><span class="training">— training, each step</span> &nbsp; <span class="held-out">● held out, each epoch</span> '
    "&nbsp; in nats per trained token</p>"
)


def losses_page(run: str, history: History) -> str:
    """The page's HTML."""
    rows = "\n".join(
        f"<tr><td>{epoch.epoch}</td><td>{epoch.step:,}</td><td>{epoch.loss:.4f}</td><td>{epoch.held_out_loss:.4f}</td></tr>"
        for epoch in history.epochs
    )
    before = f"<tr><td>before</td><td>0</td><td></td><td>{history.start_held_out_loss:.4f}</td></tr>"
    table = (
        "<table><thead><tr><th>epoch</th><th>step</th><th>loss</th><th>held out</th></tr></thead>\n<tbody>\n"
        f"{before}\n{rows}\n</tbody></table>"
    )
    about = f"{run} · {history.epochs[-1].step:,} steps, {history.tokens:,} tokens in {history.seconds:,.0f} s"
    return plain_page("Loss", about, f"{loss_chart(history, width=WIDTH, height=HEIGHT)}\n{KEY}\n{table}")


def numbers_of(history: History) -> dict[str, float | None]:
    """What KFP shows of the training, by name."""
    last = history.epochs[-1]
    return {
        "train_loss": last.loss,
        "held_out_loss": last.held_out_loss,
        "held_out_loss_before": history.start_held_out_loss,
        "tokens_per_second": round(history.tokens / history.seconds, 1) if history.seconds else None,
        "training_seconds": round(history.seconds, 1),
    }
