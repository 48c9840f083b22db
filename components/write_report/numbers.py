"""What a run comes to -> report.json, for programs and for the screen at the end of `hagane
run`."""

from typing import Any

from components.write_report.against_plan import against_plan
from components.write_report.gather import RunFound


def report_numbers(found: RunFound) -> dict[str, Any]:
    """Losses in nats per trained token, None where nothing was held out; folders relative to `uri`,
    None for a checkpoint that was not kept; seconds of training alone."""
    evaluation = found.evaluation
    stored = {checkpoint.epoch: checkpoint.folder for checkpoint in found.checkpoints}
    return {
        "run": found.spec.name,
        "uri": found.uri,
        "method": found.plan.method,
        "epochs": [
            {**epoch.model_dump(), "checkpoint": stored.get(epoch.epoch)}
            for epoch in found.history.epochs
        ],
        "held_out_loss": None
        if evaluation.both is None
        else {"base": evaluation.both[0].loss, "tuned": evaluation.both[1].loss},
        "answers": [answer.model_dump() for answer in evaluation.answers],
        "export": {
            "folder": found.export.folder,
            "uri": f"{found.uri}/{found.export.folder}",
            "num_bytes": sum(entry.num_bytes for entry in found.export.files),
        },
        "seconds": found.history.seconds,
        "against_plan": against_plan(found),
    }
