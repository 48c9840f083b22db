import io
import json
from pathlib import Path

import pytest
import structlog
from rich.console import Console

from components.launch_training.page import losses_page
from components.shared.errors import ObjectDamaged, StoreError
from components.shared.spec.file import spec_yaml
from components.shared.step import open_run
from components.shared.store.layout import SPEC
from components.shared.store.manifest import Manifest
from components.shared.store.series import Asked, newest_run, note_asked
from components.shared.store.storage import LocalStore
from components.write_report.__main__ import kfp_step
from components.write_report.numbers import report_of
from components.write_report.page import render_page
from components.write_report.report import report_run
from pipelines.screens.run import end_screen, print_end
from tests.unit.write_report.example_run import (
    EVALUATION_FOUND,
    find_example_run,
    without_held_out,
    write_example_run,
)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HAGANE_WORK", str(tmp_path / "work"))
    return write_example_run(tmp_path / "demo").root


def report(run: Path) -> Manifest:
    return report_run(str(run), structlog.get_logger())


def test_report_holds_a_page_and_the_numbers_of_the_end_screen(run: Path):
    manifest = report(run)
    numbers = json.loads((run / "report/report.json").read_bytes())
    assert [file.name for file in manifest.files] == ["report.html", "report.json"]
    assert numbers["held_out_loss"] == {"base": 4.7673, "tuned": 0.9778}
    assert [epoch["checkpoint"] for epoch in numbers["epochs"]] == [
        f"checkpoints/epoch-000{epoch}" for epoch in (1, 2, 3)
    ]
    assert numbers["epochs"][2]["step"] == 90
    assert numbers["answers"][1] == EVALUATION_FOUND.answers[1].model_dump()
    assert numbers["export"]["uri"] == f"{run}/adapter"
    assert numbers["export"]["num_bytes"] > 19_579_464
    assert (numbers["run"], numbers["method"], numbers["seconds"]) == ("demo", "lora", 500.3)


def test_the_end_screen_names_the_runs_own_page_where_the_store_is_a_folder(run: Path):
    report(run)
    screen = Console(width=200, record=True, file=io.StringIO())
    print_end(screen, LocalStore(run))
    assert str(run / "report" / "report.html") in screen.export_text()


def test_a_run_that_was_trained_on_everything_has_no_held_out_figures(tmp_path: Path):
    found = without_held_out(find_example_run(tmp_path / "demo"))
    page = render_page(found)
    assert "nothing was held out, so no loss says whether it helped." in page
    assert "held out, each epoch" not in page
    reported = report_of(found)
    assert reported.held_out_loss is None
    screen = Console(width=200, record=True, file=io.StringIO())
    screen.print(end_screen(reported, Path("report.html")))
    assert (
        "nothing was held out, so no loss says whether it helped; trained for"
        in screen.export_text()
    )
    table = losses_page("demo", found.history)
    assert "held out" not in table
    assert table.count("<th>") == 3


def test_reporting_a_finished_run_again_changes_nothing(run: Path):
    first = report(run)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    assert report(run) == first
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_run_that_is_not_evaluated_is_refused(run: Path):
    (run / "evaluation/manifest.json").unlink()
    with pytest.raises(StoreError, match=r"/evaluation: not finished"):
        report(run)
    assert not (run / "report").exists()


def test_damaged_file_is_named(run: Path):
    (run / "checkpoints/history.json").write_text("{}")
    with pytest.raises(ObjectDamaged, match=r"checkpoints/history.json: damaged"):
        report(run)


def test_the_last_step_of_a_pipeline_makes_a_claimed_run_the_newest_of_its_series(
    run: Path, tmp_path: Path
):
    def last_step() -> None:
        kfp_step(
            str(run),
            spec_digest=spec_digest,
            manifest_path=str(tmp_path / "manifest"),
            page_path=str(tmp_path / "page"),
        )

    _, spec = open_run(str(run))
    LocalStore(run).write_bytes(
        SPEC, spec_yaml(spec.model_copy(update={"store": str(run.parent)})).encode()
    )
    spec_digest = open_run(str(run))[1].digest
    last_step()
    assert newest_run(LocalStore(run.parent), "weekly") is None
    note_asked(LocalStore(run), Asked(series="weekly", fingerprint="f", kfp_run="k"))
    last_step()
    newest = newest_run(LocalStore(run.parent), "weekly")
    assert newest is not None
    assert (Path(newest.run), newest.fingerprint) == (run, "f")
