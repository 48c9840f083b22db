"""Each image, opened: what must be inside, and what must not."""

import json
import re
import subprocess
from pathlib import Path

from components.shared.job.images import LOCAL_IMAGES, Images
from images.bake import Target
from images.build import revision
from images.contents import HARDENED, Contents
from pipelines.local.engine import Engine
from tests.support.command_line import hagane

ROOT = Path(__file__).parents[2]
OF_THE_BASE = {"pip", "setuptools", "wheel"}
ARBITRARY = (*HARDENED, "--user=1000660000:0", "--tmpfs=/tmp:mode=1777", "--volume=/hagane")

WHERE_CAN_I_WRITE = """
import os
folders = [folder for folder, _, _ in os.walk("/") if not folder.startswith(("/proc", "/sys", "/dev"))]
print(*sorted(folder for folder in folders if os.access(folder, os.W_OK)))
"""  # noqa: E501


def own_components(images: Images, target: Target) -> set[str]:
    return {component for component, image in images.components.items() if image == target.name}


def test_only_shared_and_its_own_component_are_inside(
    target: Target, opened: Contents, images: Images
) -> None:
    inside: dict[str, set[str]] = {}
    for path in map(Path, set(opened.probed["code"]) - {"components/__init__.py"}):
        inside.setdefault(
            path.parts[1] if path.parts[0] == "components" else path.parts[0], set()
        ).add(path.name)
    whole = {name for name, files in inside.items() if files - {"__init__.py", "component.py"}}
    command_line = {"pipelines", "images", "specs"} if target.name == "render" else set()
    assert whole == {"shared"} | own_components(images, target) | command_line
    assert inside.get("specs", set()) <= {
        "from-the-ui.yaml"
    }  # what the run form is filled with is part of the pipeline
    assert command_line or set(inside) == whole


def test_the_packages_are_those_of_its_lock_and_no_others(target: Target, opened: Contents) -> None:
    locked = set()
    for lock in (
        target.args["LOCK"],
        target.args.get("TORCH"),
        "kfp" if target.args.get("KFP") else None,
    ):
        if lock:
            text = (ROOT / "requirements" / f"{lock}.txt").read_text()
            locked |= {
                re.sub(r"[-_.]+", "-", found).lower()
                for found in re.findall(r"(?m)^([\w.-]+)==", text)
            }
    installed = {
        re.sub(r"[-_.]+", "-", package.partition("==")[0]).lower()
        for package in opened.probed["packages"]
    }
    assert installed - OF_THE_BASE == locked - OF_THE_BASE


def test_no_compiler_no_cache_no_sources_are_left(opened: Contents) -> None:
    assert opened.probed["compilers"] == []
    shells_own = {"/root/.bashrc", "/root/.profile", "/root/.wget-hsts"}
    assert set(opened.probed["left_over"]) <= shells_own


def test_no_secret_is_in_its_environment_or_history(
    target: Target, opened: Contents, engine: Engine
) -> None:
    names = [entry.partition("=")[0] for entry in opened.environment]
    assert [
        name for name in names if re.search("KEY|SECRET|TOKEN|PASSWORD", name) and name != "GPG_KEY"
    ] == []
    history = engine.output("history", "--no-trunc", "--format", "{{.CreatedBy}}", target.tags[0])
    assert not re.search(r"://[^/\s]+:[^/\s]+@", history), "a URL with a password"
    assert "AWS_" not in history
    assert "HF_TOKEN" not in history


def test_the_user_is_a_number_and_the_entry_point_a_list(target: Target, opened: Contents) -> None:
    assert opened.user == "65532:0"
    assert opened.entrypoint[:2] == ("python", "-m")


def test_the_labels_say_commit_and_version(
    target: Target, opened: Contents, images: Images
) -> None:
    labels = {
        name.removeprefix("org.opencontainers.image."): value
        for name, value in opened.labels.items()
    }
    assert labels["version"] == images.tag
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", labels["revision"])
    assert labels["revision"].partition("-")[0] == revision().partition("-")[0], (
        "older than this commit: run `make images`"
    )
    assert labels["title"].startswith("hagane ")
    assert labels["base.name"] == target.args["BASE"]


def test_every_component_of_it_tells_its_help_to_an_arbitrary_user(
    target: Target, images: Images, engine: Engine
) -> None:
    for component in own_components(images, target):
        run = [engine.program, "run", "--rm", *ARBITRARY, "--entrypoint", "python", target.tags[0]]
        done = subprocess.run(
            [*run, "-m", f"components.{component}", "--help"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "usage: " in done.stdout


def test_the_entry_point_itself_answers(target: Target, engine: Engine) -> None:
    done = subprocess.run(
        [engine.program, "run", "--rm", *ARBITRARY, target.tags[0], "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "usage: " in done.stdout.lower()


def test_an_arbitrary_user_can_write_to_tmp_and_the_work_folder_alone(
    target: Target, engine: Engine
) -> None:
    run = [
        engine.program,
        "run",
        "--rm",
        *ARBITRARY,
        "--entrypoint",
        "python",
        target.tags[0],
        "-c",
        WHERE_CAN_I_WRITE,
    ]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    podmans_own = {"/run", "/var/tmp"}  # with --read-only it mounts these too, in memory
    assert set(done.stdout.split()) - podmans_own == {
        "/hagane",
        "/hagane/hub",
        "/hagane/work",
        "/tmp",
    }


def test_the_command_line_in_its_image_compiles_what_it_compiles_here(
    images: Images, engine: Engine, tmp_path: Path
) -> None:
    here = hagane("compile", tmp_path / "finetune.yaml", work=tmp_path).output.split()[-1]
    run = [
        engine.program,
        "run",
        "--rm",
        *ARBITRARY,
        f"--env={LOCAL_IMAGES}=1",
        images.of("render_config"),
        "compile",
        "/tmp/finetune.yaml",
    ]
    assert (
        subprocess.run(run, capture_output=True, text=True, check=True).stdout.split()[-1] == here
    )


def test_the_command_line_in_its_image_says_what_it_cannot_do(
    images: Images, engine: Engine
) -> None:
    spec = f"--volume={ROOT / 'specs' / 'demo.yaml'}:/demo.yaml:ro"
    run = [
        engine.program,
        "run",
        "--rm",
        *ARBITRARY,
        spec,
        images.of("render_config"),
        "plan",
        "/demo.yaml",
    ]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        (
            "error: components.prepare_dataset: is not installed here; run this command where all "
            "components are"
        )
    ]


def test_both_training_images_are_one_but_for_torch_and_the_environment_of_gpus() -> None:
    """Of the environment tests/unit/images/test_bake.py tells."""
    targets = json.loads((ROOT / "images" / "docker-bake.json").read_text())["target"]
    cpu, cuda = targets["train"], targets["train-cuda"]
    differing = {
        key for key in cpu["args"] | cuda["args"] if cpu["args"].get(key) != cuda["args"].get(key)
    }
    assert differing == {"TITLE", "TORCH"}
