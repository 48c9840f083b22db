"""An evaluation -> a page with the answers of both models side by side."""

from html import escape

from components.shared.documents.results import Evaluation
from components.shared.html.plain_page import plain_page


def answers_page(run: str, evaluation: Evaluation) -> str:
    """The page's HTML. Everything that models and people wrote is escaped."""
    pairs = [
        (
            f"<h2>{escape(each.question)}</h2>\n<div "
            f'class="answers">{_said("base", each.base)}{_said("tuned", each.tuned)}</div>'
        )
        for each in evaluation.answers
    ]
    if evaluation.gate is None:
        gate = ""
    elif evaluation.gate.met:
        gate = " · gate met"
    else:
        gate = f" · {'; '.join(evaluation.gate.not_met)}"
    about = f"{run} · {_losses(evaluation)}{gate}"
    return plain_page(
        "Asked before and after",
        about,
        "\n".join(pairs) or "<p>The spec asks no questions: evaluation.questions.</p>",
    )


def _losses(evaluation: Evaluation) -> str:
    if evaluation.both is None:
        return "no held-out loss: nothing was held out"
    base, tuned = evaluation.both
    losses = (
        f"held-out loss {base.loss:.3f} → {tuned.loss:.3f}, perplexity {base.perplexity:.1f} → "
        f"{tuned.perplexity:.1f}"
    )
    return f"{losses}{evaluation.part}"


def _said(who: str, text: str) -> str:
    return f'<div class="{who}"><small>{who}</small>{escape(text) or "(nothing)"}</div>'


def numbers_of(evaluation: Evaluation) -> dict[str, float | None]:
    """What KFP shows of the evaluation, by name."""
    if evaluation.both is None:
        return {}
    base, tuned = evaluation.both
    shown = {
        name: score.value
        for name, score in tuned.scores.items()
        if name not in ("loss", "perplexity")
    }
    numbers: dict[str, float | None] = {
        "base_loss": base.loss,
        "tuned_loss": tuned.loss,
        "base_perplexity": base.perplexity,
        "tuned_perplexity": tuned.perplexity,
    }
    return numbers | {f"tuned_{name}": value for name, value in shown.items()}
