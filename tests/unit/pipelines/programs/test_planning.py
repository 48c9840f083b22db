"""`hagane plan` and `hagane models` as a person runs them, from a config alone."""

import json
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from components.render_config.render.trainjob import trainjob
from components.shared.documents.plan import Plan
from components.shared.spec.file import load_spec
from pipelines.programs import planning
from pipelines.screens.progress import Screen
from tests.support.command_line import hagane

SPEC = Path(__file__).parents[4] / "specs/plans/elyza-7b-lora-1x24gb.yaml"


def test_a_plan_from_a_config_alone_says_whether_it_fits_and_leaves_its_files_and_page(
    tmp_path: Path,
) -> None:
    done = hagane(
        "plan",
        SPEC,
        "--rows",
        "198",
        "--set",
        "training.epochs=5",
        "--out",
        tmp_path,
        "--html",
        tmp_path / "p.html",
        work=tmp_path,
    )
    assert done.exit_code == 0, done.errors
    assert done.output.startswith(
        "LoRA of elyza-7b (6.74B) fits 1 x rtx4090 with no ZeRO, micro-batch 4"
    )
    assert {path.name for path in tmp_path.glob("*.json")} == {
        "plan.json",
        "deepspeed.json",
        "training_args.json",
        "lora.json",
    }
    page = (tmp_path / "p.html").read_text()
    assert (
        page.count("<svg") == 2 * 3 + 4 * 3
    )  # two charts and the time line, wide and for phones; what stages divide
    assert "ZeRO-3, all offloaded" in page
    for figure in ("GPU memory", "Host memory", "Time", "Fits"):
        assert f"<dt>{figure}</dt>" in page


def test_explain_shows_every_value_of_the_libraries_files_and_what_is_left_out(
    tmp_path: Path,
) -> None:
    done = hagane(
        "plan", SPEC, "--rows", "198", "--explain", "--out", tmp_path / "plan", work=tmp_path
    )
    assert done.exit_code == 0, done.errors
    lines = [line.split() for line in done.output.splitlines()]
    first = {words[0] for words in lines if words}
    for name in ("training_args", "lora"):
        assert json.loads((tmp_path / f"plan/{name}.json").read_bytes()).keys() <= first
    (rate,) = [" ".join(words) for words in lines if words[:1] == ["learning_rate"]]
    assert rate.startswith("learning_rate 0.0002 learning_rate: ")
    output = done.output.splitlines()
    why = next(line for line in output if line.startswith("a checkpoint at the end of each epoch"))
    assert "save_steps" in output[output.index(why) + 1]


def test_a_plan_in_markdown_has_the_figures_and_nothing_ends_a_cell(tmp_path: Path) -> None:
    done = hagane(
        "plan",
        SPEC,
        "--rows",
        "198",
        "--markdown",
        "--set",
        "hardware.price_per_gpu_hour=1",
        work=tmp_path,
    )
    assert done.exit_code == 0, done.errors
    lines = done.output.splitlines()
    assert lines[0] == "### Plan of elyza-7b-lora-1x24gb"
    assert any(
        line.startswith("| GPU memory | ") and line.endswith(" of 24.0 GiB per GPU |")
        for line in lines
    )
    assert any(line.startswith("| **no ZeRO** | ") for line in lines)
    assert all(
        line.count("|") - line.count("\\|") in (3, 5) for line in lines if line.startswith("|")
    )


def test_the_job_that_is_kept_is_the_one_that_the_run_would_send(tmp_path: Path) -> None:
    given = ["--set", "backend=trainjob", "--set", "store=s3://bucket/runs"]
    done = hagane("plan", SPEC, "--rows", "198", *given, "--out", tmp_path / "plan", work=tmp_path)
    assert done.exit_code == 0, done.errors
    job = (tmp_path / "plan" / "trainjob.yaml").read_text()
    spec = load_spec(SPEC, given[1::2])
    plan = Plan.model_validate_json((tmp_path / "plan" / "plan.json").read_bytes())
    assert yaml.safe_load(job) == json.loads(json.dumps(trainjob(spec, plan)))
    assert "s3://bucket/runs/elyza-7b-lora-1x24gb" in job
    rule = json.loads((tmp_path / "plan" / "lifecycle.json").read_text())["Rules"][0]
    assert rule["Filter"] == {"Prefix": "runs/elyza-7b-lora-1x24gb/"}


def test_an_old_deepspeed_file_is_explained_without_a_spec_and_beside_a_plan(
    tmp_path: Path,
) -> None:
    old = tmp_path / "old.json"
    old.write_text('{"zero_optimization": {"stage": 3}\n"gradient_clipping": 1.0}')
    alone = hagane("plan", "--import-deepspeed", old, work=tmp_path)
    assert (alone.exit_code, alone.output.splitlines()[0]) == (
        0,
        f"{old}:1:35: a comma is missing after '}}'",
    )
    beside = hagane("plan", SPEC, "--rows", "198", "--import-deepspeed", old, work=tmp_path)
    assert any(
        line.startswith("zero_optimization.stage = 3") and line.endswith("the plan: 0")
        for line in beside.output.splitlines()
    )


def test_plan_without_a_spec_and_models_without_a_match_end_with_2(tmp_path: Path) -> None:
    assert hagane("plan", work=tmp_path).errors == [
        "error: plan: SPEC is missing; name the run's spec, such as specs/demo.yaml"
    ]
    done = hagane("models", "nothing-like-it", work=tmp_path)
    assert (done.exit_code, len(done.errors)) == (2, 1)
    assert "elyza/Llama-3-ELYZA-JP-8B" in hagane("models", "elyza", work=tmp_path).output


def without_the_probe(
    monkeypatch: pytest.MonkeyPatch, probe: str, keep: list[str] | None = None
) -> list[list[str]]:
    """Plans are rendered, but neither `probe` nor the rendering with its times runs: the commands
    that would have been. `keep` gets the text of the probe's manifest, which does not stay."""
    left_out: list[list[str]] = []
    run = planning._run_program

    def run_all_but_those(module: list[str], folder: Path, screen: Screen) -> None:
        if probe in module or "--measured" in module:
            left_out.append(module)
            if keep is not None and "--manifest" in module:
                keep.append(Path(module[module.index("--manifest") + 1]).read_text())
        else:
            run(module, folder, screen)

    monkeypatch.setattr(planning, "_run_program", run_all_but_those)
    return left_out


def test_a_probe_trains_with_the_specs_label_smoothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan does not hold it, and it makes a step longer."""
    left_out = without_the_probe(monkeypatch, "components.train.step_probe")
    spec = load_spec(SPEC, ["training.label_smoothing=0.1"])
    planning.plan_of(spec, Console(quiet=True), num_rows=198, probe="here")
    (probe, _) = left_out
    assert probe[probe.index("--label-smoothing") + 1] == "0.1"


def test_a_pod_is_probed_by_the_job_that_the_run_would_send(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    manifests: list[str] = []
    left_out = without_the_probe(monkeypatch, "components.launch_training.step_probe", manifests)
    spec = load_spec(SPEC, ["backend=pytorchjob", "store=s3://bucket/runs"])
    planning.plan_of(spec, Console(quiet=True), num_rows=198, probe="pod")
    (probe, again) = left_out
    assert "train-cuda" in probe[probe.index("--image") + 1]
    assert again[-4:-2] == ["--measured", str(Path(again[-3]))]
    (job,) = map(yaml.safe_load, manifests)
    assert job["kind"] == "PyTorchJob"
    assert "s3://bucket/runs" in json.dumps(job)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--probe-pod", "--set", "backend=local"), "backend is 'local', which has no pods"),
        (("--probe", "--probe-pod"), "one of them"),
    ],
)
def test_a_probe_without_a_place_ends_with_2(
    tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    done = hagane("plan", SPEC, "--rows", "198", *options, work=tmp_path)
    assert (done.exit_code, len(done.errors)) == (2, 1)
    assert said in done.errors[0]
