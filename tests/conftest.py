"""What every test stands on: an environment without the world outside, and one S3 server for those
that need it."""

import os
from collections.abc import Iterator

import pytest
import structlog

from tests.support.s3_server import S3Server, s3_server

# Before any test imports a library that reads these once: no hub, no keys or stores of whoever runs
# the tests.
for name in [name for name in os.environ if name.startswith("AWS_")]:
    del os.environ[name]
os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "HAGANE_LOCAL_IMAGES": "1",  # no registry is here; test_images.py is about what is said then
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--hostile-cases",
        type=int,
        default=2000,
        metavar="COUNT",
        help="damaged specs to read (make test-hostile: 10,000)",
    )
    parser.addoption(
        "--cancellations",
        type=int,
        default=3,
        metavar="COUNT",
        help="runs to cancel in training on a cluster",
    )


@pytest.fixture(autouse=True)
def log_as_at_start() -> Iterator[None]:
    """What a step configures of the process's log ends with the test that ran it."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server for the whole session. Its variables are not set: see `s3_env`."""
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3_env(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The server, and the AWS_ variables by which this test and the processes it starts reach
    it."""
    for key, value in s3.env.items():
        monkeypatch.setenv(key, value)
    return s3
