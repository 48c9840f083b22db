"""Files of a checkpoint that name code are refused by that name, and nothing of it is called."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from deepspeed.runtime.fp16.loss_scaler import LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.utils.tensor_fragment import fragment_address

from components.export_adapter.weights.full import trained_weights
from components.shared.errors import RunFailed
from components.shared.pickled import ALWAYS, open_listed_classes_only, refuse_foreign_pickles
from tests.support.pickle_attack import CallsWhenOpened


@pytest.fixture(autouse=True)
def environment_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ALWAYS, "0")
    open_listed_classes_only()


def test_a_file_that_names_a_function_is_refused_by_its_name_and_calls_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "called"
    torch.save({"module": {}, "extra": CallsWhenOpened(mark)}, tmp_path / "mp_rank_00_model_states.pt")
    with pytest.raises(RunFailed, match=r"mp_rank_00_model_states\.pt: asks for posix\.system, which is not opened"):
        refuse_foreign_pickles(tmp_path)
    assert not mark.exists()


def test_an_export_refuses_it_too(tmp_path: Path) -> None:
    mark = tmp_path / "called"
    (tmp_path / "global_step4").mkdir()
    (tmp_path / "latest").write_text("global_step4")
    torch.save({"module": {"w": torch.zeros(2)}, "x": CallsWhenOpened(mark)}, tmp_path / "global_step4" / "mp_rank_00_model_states.pt")
    with pytest.raises(RunFailed, match=r"asks for posix\.system"):
        trained_weights(tmp_path, torch.float32, zero_stage=0)
    assert not mark.exists()


def test_a_library_that_asks_for_code_does_not_get_it(tmp_path: Path) -> None:
    mark = tmp_path / "called"
    torch.save(CallsWhenOpened(mark), tmp_path / "x.pt")
    with pytest.raises(pickle.UnpicklingError, match=r"posix\.system"):
        torch.load(tmp_path / "x.pt", weights_only=False)
    program = "import sys, torch; torch.load(sys.argv[1], weights_only=False)"
    child = subprocess.run([sys.executable, "-c", program, str(tmp_path / "x.pt")], env=os.environ, capture_output=True, check=False)
    assert child.returncode != 0
    assert not mark.exists()


@pytest.mark.parametrize("content", [b"", b"no pickle", pickle.dumps({"a": 1})], ids=["empty", "text", "a plain pickle"])
def test_what_torch_did_not_save_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "scheduler.pt").write_bytes(content)
    with pytest.raises(RunFailed, match=r"scheduler\.pt: is no checkpoint file"):
        refuse_foreign_pickles(tmp_path)


@pytest.mark.parametrize("latest", ["../../etc", "/etc", "global_step4/../..", "", "x" * 1000])
def test_a_latest_that_leads_elsewhere_is_refused(tmp_path: Path, latest: str) -> None:
    (tmp_path / "latest").write_text(latest)
    with pytest.raises(RunFailed, match="must be global_step and a number"):
        refuse_foreign_pickles(tmp_path)


def test_torchs_older_form_of_file_is_read_with_the_same_rules(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(3)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    refuse_foreign_pickles(tmp_path)
    torch.save(CallsWhenOpened(tmp_path / "called"), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(RunFailed, match=r"old\.pt: asks for posix\.system"):
        refuse_foreign_pickles(tmp_path)
    assert not (tmp_path / "called").exists()


def test_what_deepspeed_and_transformers_save_is_opened(tmp_path: Path) -> None:
    import numpy

    (tmp_path / "latest").write_text("global_step12")
    torch.save({"scale": LossScaler(scale=1), "where": fragment_address(numel=2, start=1)}, tmp_path / "optim_states.pt")
    torch.save({"numpy": numpy.random.get_state(), "cpu": torch.get_rng_state()}, tmp_path / "rng_state_0.pth")
    refuse_foreign_pickles(tmp_path)


class ByName:
    """Pickles as `getattr(kind, name)`, as some versions of Python 3.11 write a member of an enumeration."""

    def __init__(self, kind: type, name: str) -> None:
        self.kind, self.name = kind, name

    def __reduce__(self) -> tuple[object, ...]:
        return getattr, (self.kind, self.name)


def test_a_member_of_an_enumeration_is_read_however_python_writes_it(tmp_path: Path) -> None:
    torch.save({"a": ZeroStageEnum.weights, "b": ByName(ZeroStageEnum, "weights")}, tmp_path / "x.pt")
    refuse_foreign_pickles(tmp_path)
    assert torch.load(tmp_path / "x.pt") == {"a": ZeroStageEnum.weights, "b": ZeroStageEnum.weights}


@pytest.mark.parametrize(("kind", "name"), [(LossScaler, "backward"), (ZeroStageEnum, "__init__"), (ZeroStageEnum, "mro")])
def test_getattr_gives_nothing_but_a_member_of_an_enumeration(tmp_path: Path, kind: type, name: str) -> None:
    torch.save(ByName(kind, name), tmp_path / "x.pt")
    with pytest.raises(RunFailed, match=r"x\.pt: asks for builtins\.getattr, which is not opened"):
        refuse_foreign_pickles(tmp_path)
