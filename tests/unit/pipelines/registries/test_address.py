"""Addresses of registries: what is refused, and that no message shows a password."""

import pytest

from components.shared.errors import SpecError
from pipelines.registries.base import check_address


@pytest.mark.parametrize(
    "address",
    ["http://host", "https://host:5000/path", "http://[::1]:8080", "http://127.0.0.1:9"],
)
def test_an_http_address_will_do(address: str) -> None:
    check_address(address, option="--mlflow")


@pytest.mark.parametrize(
    "address",
    ["http://[::1", "http://host:port", "http://host:99999", "host:5000", "databricks", "", "//h"],
)
def test_what_is_no_http_address_is_refused_in_one_line(address: str) -> None:
    with pytest.raises(SpecError) as refused:
        check_address(address, option="--mlflow")
    assert refused.value.problems == (
        f"--mlflow: got {address!r}, must be an address such as https://host:port",
    )


@pytest.mark.parametrize(
    "address",
    [
        "https://user:s3cret@host",
        "user:s3cret@host:5000",
        "https://s3cret@host",
        "http://[s3cret@host",
        "https://host/path?token=s3cret",
        "https://host#token=s3cret",
        "host?s3cret",
        "host:5000#s3cret",
    ],
)
def test_credentials_are_refused_and_not_shown(address: str) -> None:
    with pytest.raises(SpecError) as refused:
        check_address(address, option="--mlflow")
    (problem,) = refused.value.problems
    assert "the address holds credentials" in problem
    assert "s3cret" not in problem
