"""Commands with secrets and control characters in all that they are given: neither is in anything
that they print."""

import json
import re
import sys
from pathlib import Path

import pytest
import yaml

from pipelines.cli import main

SECRET = "wJalrXUtnFEMI-planted"
BELL = "\x1b]0;title\x07\x1b[2J\u202e"
"""Sets a terminal's title, clears it, and turns the direction of what follows."""
NOBODY = "http://127.0.0.1:9"
STORE = f"s3://AKIA:{SECRET}@bucket/runs?token={SECRET}#key={SECRET}"
KFP = f"http://user:{SECRET}@127.0.0.1:9/?token={SECRET}#{SECRET}"
GOOD = {
    "name": "r",
    "store": "store",
    "model": {"source": "model"},
    "data": {"train": "train.jsonl"},
}

SPECS = {
    "store.yaml": GOOD | {"store": STORE},
    "name.yaml": GOOD | {"name": f"r{BELL}"},
    "model.yaml": GOOD | {"model": {"source": f"m{BELL}/https://u:{SECRET}@h/m?sig={SECRET}"}},
    "data.yaml": GOOD
    | {"data": {"train": f"https://u:{SECRET}@h/t.jsonl?X-Amz-Signature={SECRET}{BELL}"}},
    "data-s3.yaml": GOOD
    | {"data": {"train": f"s3://AKIA:{SECRET}@b/t.jsonl?token={SECRET}{BELL}"}},
    "template.yaml": GOOD
    | {"data": {"train": "train.jsonl", "chat_template": f"{BELL}t.jinja?token={SECRET}"}},
    "key.yaml": GOOD | {"aws_secret_access_key": SECRET},
    "inner.yaml": GOOD | {"cluster": {"hf_token": SECRET, f"k{BELL}": 1}},
    "type.yaml": GOOD | {"training": {"epochs": f"{BELL}three"}},
    "list.yaml": GOOD | {"cluster": {"secrets": {"password": SECRET}}},
    "text.yaml": f"{BELL} https://u:{SECRET}@h/x",
    "patch.yaml": GOOD
    | {
        "backend": "pytorchjob",
        "store": "s3://b/r",
        "cluster": {"pod_patch": {"spec": {"serviceAccountName": f"a{BELL}", "hostPath": 1}}},
    },
}
FILES = {
    "bad.yaml": f"a: [{BELL}\n",
    "bad.jsonl": f'{{"{BELL}": 1}}\n',
    "chat.jsonl": json.dumps({"messages": [{"role": BELL, "content": "x"}]}) + "\n",
    "shown.jsonl": json.dumps(
        {
            "messages": [
                {"role": "user", "content": f"q{BELL}"},
                {"role": "assistant", "content": BELL},
            ]
        }
    )
    + "\n",
    "cut.json": f'[{{"{BELL}',
    "deepspeed.json": json.dumps({f"k{BELL}": 1, "zero_optimization": {"stage": BELL}}),
    "env": f"AWS_SECRET_ACCESS_KEY {SECRET}\n",
    "env-name": f"A{BELL}={SECRET}\n",
    "token": f"{SECRET}\n",
    "schedules.yaml": yaml.safe_dump(
        {"schedules": [{"name": BELL, "cron": BELL, "spec": f"{BELL}.yaml", "token": SECRET}]}
    ),
    "kfp.yaml": f"contexts: [{{name: {SECRET}",
}
COMMANDS: list[tuple[str, ...]] = [
    *(("plan", name) for name in SPECS),
    ("run", "store.yaml"),
    ("run", "key.yaml"),
    ("run", "data.yaml"),
    ("status", "store.yaml"),
    ("status", "key.yaml"),
    ("checkpoints", STORE),
    ("checkpoints", f"{BELL}missing"),
    ("gc", STORE, "--dry-run"),
    ("gc", f"s3://b/{BELL}?token={SECRET}"),
    ("plan", "good.yaml", "--set", f"aws_secret_access_key={SECRET}"),
    ("plan", "good.yaml", "--set", f"training.epochs={BELL}"),
    ("plan", "good.yaml", "--set", f"hf_token{BELL}={SECRET}"),
    ("plan", "good.yaml", "--set", f"store={STORE}{BELL}"),
    ("plan", "--import-deepspeed", "deepspeed.json"),
    ("plan", "bad.yaml"),
    ("plan", f"{BELL}missing.yaml"),
    ("data", "bad.jsonl"),
    ("data", "chat.jsonl"),
    ("data", "shown.jsonl"),
    ("data", "cut.json"),
    ("data", f"s3://AKIA:{SECRET}@b/{BELL}.jsonl?token={SECRET}"),
    ("data", f"{BELL}missing.jsonl"),
    ("--env-file", "env", "models"),
    ("--env-file", "env-name", "models"),
    ("models", f"{BELL}nothing"),
    ("runs", "--endpoint", KFP, "--token-file", "token"),
    ("runs", f"{BELL}id", "--endpoint", KFP),
    ("runs", "--endpoint", f"ftp://u:{SECRET}@{BELL}h"),
    ("runs", "--context", BELL),
    ("submit", "store.yaml", "--endpoint", KFP, "--no-plan"),
    ("submit", "key.yaml", "--endpoint", KFP),
    ("apply", f"{BELL}dir", "--endpoint", KFP),
    ("diff", f"{BELL}dir", "--endpoint", KFP),
    ("schedules", "apply", "schedules.yaml", "--endpoint", KFP),
    ("reap", f"{STORE}{BELL}"),
    ("compile", "--manifests", "out", "--namespace", BELL),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planted")
    for name, tree in (SPECS | {"good.yaml": GOOD}).items():
        (folder / name).write_text(yaml.safe_dump(tree), encoding="utf-8")
    for name, text in FILES.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "command", COMMANDS, ids=lambda command: re.sub(r"[^a-z. -]+", "_", " ".join(command))[:50]
)
def test_no_secret_and_no_control_character_is_printed(
    command: tuple[str, ...],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["hagane", *command])
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    for name, value in {
        "AWS_ACCESS_KEY_ID": "AKIA",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "HF_TOKEN": SECRET,
        "HAGANE_KFP_TOKEN": SECRET,
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", NOBODY)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(SystemExit) as ended:
        main()
    printed = "".join(capfd.readouterr())
    assert ended.value.code in (0, 1, 2)
    assert printed.strip()
    assert "Traceback" not in printed
    assert SECRET not in printed
    assert re.findall(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", printed) == []


def test_there_are_forty_commands() -> None:
    assert len(set(COMMANDS)) >= 40
