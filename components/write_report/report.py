"""Fetches what the report tells, writes its two files, publishes them."""

import shutil

from components.shared.step import Log, finished, open_run, work_folder
from components.shared.store.layout import EVALUATION, REPORT
from components.shared.store.manifest import Manifest, publish_folder, require_manifest
from components.write_report.gather import gather
from components.write_report.numbers import report_of
from components.write_report.page import render_page


def report_run(run: str, log: Log) -> Manifest:
    """report/ is published; unchanged when it was made from this evaluation already. Raises as
    `run_step`."""
    store, spec = open_run(run)
    inputs = {"evaluation": require_manifest(store, EVALUATION).digest}
    done = finished(store, REPORT, inputs, log)
    if done is not None:
        return done
    work = work_folder(run, "write_report")
    found = gather(store, spec, uri=run.rstrip("/"), work=work)
    report = report_of(found)
    local = work / REPORT
    shutil.rmtree(local, ignore_errors=True)
    local.mkdir()
    (local / "report.html").write_text(render_page(found), encoding="utf-8")
    (local / "report.json").write_text(report.model_dump_json(indent=1) + "\n", encoding="utf-8")
    log.info("reported", page=f"{run}/{REPORT}/report.html")
    base, tuned = found.evaluation.base, found.evaluation.tuned
    losses = {
        "base_loss": None if base is None else base.loss,
        "tuned_loss": None if tuned is None else tuned.loss,
    }
    facts = {**losses, "seconds": found.history.seconds}
    return publish_folder(store, REPORT, local, made_by="write_report", inputs=inputs, facts=facts)
