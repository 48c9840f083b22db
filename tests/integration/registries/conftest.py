"""A finished run: trained, exported, verified and evaluated; its gate is met, nothing is
published."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
import yaml

from components.evaluate.step import evaluate_run
from components.export_adapter.step import export_run
from components.shared.spec.file import parse_spec, spec_yaml
from components.shared.store.storage import open_store
from tests.support.s3_server import S3Server
from tests.support.trained_run import make_trained_run

MakeRun = Callable[..., str]


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the store that the run `tiny` is in."""
    folder = tmp_path_factory.mktemp("finished")
    evaluation = {"answer_tokens": 4}
    run = make_trained_run(folder, architecture="llama", method="lora", evaluation=evaluation)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HAGANE_WORK", str(folder / "work"))
        export_run(run, structlog.get_logger())
        evaluate_run(run, structlog.get_logger())
        yield folder / "store"


@pytest.fixture
def make_run(finished: Path, tmp_path: Path) -> MakeRun:
    """Copies the run into a store of the test's own, with other settings; returns its URI."""

    def make(store: str = "", **settings: object) -> str:
        store = store or str(tmp_path / "store")
        local = tmp_path / "copied" / "tiny"
        shutil.rmtree(local, ignore_errors=True)
        shutil.copytree(finished / "tiny", local)
        spec = yaml.safe_load((local / "spec.yaml").read_text())
        asked = parse_spec({**spec, "store": store, **settings})
        (local / "spec.yaml").write_text(spec_yaml(asked))
        place = open_store(asked.run_uri)
        for path in sorted(local.rglob("*")):
            if path.is_file():
                place.upload(path, path.relative_to(local).as_posix())
        return asked.run_uri

    return make


@pytest.fixture
def run_in_s3(make_run: MakeRun, s3_env: S3Server) -> str:
    """In an S3 server that this process and those that it starts reach."""
    return make_run(s3_env.fresh_uri())
