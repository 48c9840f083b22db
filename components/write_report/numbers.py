"""What a run comes to -> report.json."""

from components.shared.documents.report import (
    ExportFolder,
    HeldOutLosses,
    Report,
    ReportedEpoch,
)
from components.write_report.against_plan import against_plan
from components.write_report.gather import RunFound


def report_of(found: RunFound) -> Report:
    return Report(
        run=found.spec.name,
        uri=found.uri,
        method=found.plan.method,
        epochs=_epochs(found),
        held_out_loss=_held_out_losses(found),
        answers=found.evaluation.answers,
        export=ExportFolder(
            folder=found.export.folder,
            uri=f"{found.uri}/{found.export.folder}",
            num_bytes=sum(entry.num_bytes for entry in found.export.files),
        ),
        seconds=found.history.seconds,
        against_plan=tuple(against_plan(found)),
    )


def _epochs(found: RunFound) -> tuple[ReportedEpoch, ...]:
    stored = {checkpoint.epoch: checkpoint.folder for checkpoint in found.checkpoints}
    return tuple(
        ReportedEpoch(**dict(epoch), checkpoint=stored.get(epoch.epoch))
        for epoch in found.history.epochs
    )


def _held_out_losses(found: RunFound) -> HeldOutLosses | None:
    both = found.evaluation.both
    if both is None:
        return None
    base, tuned = both
    return HeldOutLosses(base=base.loss, tuned=tuned.loss)
