"""Every finished folder of a run -> report/: one page for people, and its numbers for programs."""

from components.shared.kfp_face import hand_over
from components.shared.step import open_run, run_argument, step_of_run
from components.shared.store.manifest import Manifest
from components.shared.store.series import note_finished
from components.write_report.report import report_run


def run_step(run: str) -> Manifest:
    """report/ is finished: report.html, which needs nothing beside it, and report.json.

    Raises:
        StoreError: a step before this one is not finished, or one of its files is damaged.
    """
    with step_of_run("write_report", run) as log:
        return report_run(run, log)


def kfp_step(run: str, *, spec_digest: str = "", manifest_path: str, page_path: str) -> str:
    """`run_step` for KFP: its manifest and its page are at these paths too. Returns the manifest's digest.

    As the last step it is reached only when every other passed: so the run is now the newest finished one of its series.
    """
    with step_of_run("write_report", run, spec_digest=spec_digest) as log:
        manifest = report_run(run, log)
        _, spec = open_run(run)
        note_finished(spec)
        return hand_over(manifest, run=run, manifest_path=manifest_path, pages={"report.html": page_path})


def main() -> None:
    run_step(run_argument("write_report", __doc__, must_be_finished="evaluation"))


if __name__ == "__main__":
    main()
