"""What a person put where no key belongs is in no line of any error."""

from pathlib import Path

import pytest

from components.shared.errors import HaganeError, SpecError, StoreError
from components.shared.model.source import resolve_model
from components.shared.spec.run_spec import ModelSpec
from components.shared.store.s3_errors import store_error
from components.shared.store.s3_store import S3Store
from components.shared.store.storage import open_store
from tests.unit.shared.store.test_s3_errors import answer

SECRET = "wJalr/XUtn+FEMI"


@pytest.mark.parametrize(
    "uri",
    [f"s3://AKIA:{SECRET}@bucket/x", f"https://AKIA:{SECRET}@host/bucket", f"s3://bucket/x?X-Amz-Signature={SECRET}"],
)
def test_keys_in_a_stores_address_are_refused_and_not_shown(uri: str) -> None:
    with pytest.raises(StoreError, match=r"^store: got '.*\*\*\*") as caught:
        open_store(uri)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("endpoint", [f"host:9000?X-Amz-Signature={SECRET}", f"AKIA:{SECRET}@host:9000"])
def test_keys_in_an_endpoint_that_is_none_are_not_shown(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    with pytest.raises(StoreError, match="AWS_ENDPOINT_URL_S3='host:9000', must be") as caught:
        open_store("s3://bucket/x")
    assert SECRET not in str(caught.value)


def test_a_token_in_a_models_address_is_not_shown() -> None:
    with pytest.raises(HaganeError, match=r"no folder 'https://\*\*\*@hf.co/a/b'") as caught:
        resolve_model(ModelSpec(source=f"https://me:{SECRET}@hf.co/a/b"), patterns=())
    assert SECRET not in str(caught.value)


def test_only_keys_are_cut_out_of_a_line() -> None:
    line = "lora.targets: 'qproj' is no layer; did you mean 'q_proj'? write to a@b.c or see s3://bucket/key"
    assert SpecError(line).problems == (line,)


def test_keys_of_a_profile_are_cut_out_of_what_a_store_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "credentials").write_text(f"[default]\naws_access_key_id = AKIAPROFILE\naws_secret_access_key = {SECRET}\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    place = S3Store.from_uri("s3://bucket/x")._place("x/key")
    told = str(store_error(answer(400, "Strange", f"AKIAPROFILE with {SECRET} is strange"), place))
    assert "*** with *** is strange" in told
