"""The two steps of prepare_dataset as Kubeflow Pipelines starts them. A dataset that is there
already is known before pyarrow and the data are read."""

from typing import TYPE_CHECKING, Any

from components.prepare_dataset.inputs import digest_of
from components.shared.errors import RunFailed
from components.shared.kfp_face import Metrics, hand_over, tell_numbers
from components.shared.step import Log, open_run, step_log, step_of_run
from components.shared.store.layout import DATASET
from components.shared.store.manifest import Manifest, Scalar, read_manifest
from components.shared.store.patience import waits

if TYPE_CHECKING:
    from components.prepare_dataset.claim import Claimed

SHOWN = (
    "num_conversations",
    "num_rows",
    "num_tokens",
    "num_trained_tokens",
    "held_out_conversations",
    "dropped",
)


def kfp_claim(
    spec: dict[str, Any],
    overrides: dict[str, str | int],
    *,
    kfp_run: str,
    images: str,
    skip_if_unchanged: bool,
    notify_when: str,
) -> "Claimed":
    """`claim` as a process of its own, for KFP."""
    from components.prepare_dataset.claim import claim

    reported = {"kfp_run": kfp_run, "images": images, "notify_when": notify_when}
    with step_log("prepare_dataset") as log, waits(log):
        return claim(spec, overrides, **reported, skip_if_unchanged=skip_if_unchanged, log=log)


def kfp_step(
    run: str,
    *,
    spec_digest: str = "",
    inputs: str,
    manifest_path: str,
    page_path: str,
    metrics: Metrics,
) -> str:
    """The claimed run's dataset/ is finished; KFP has its manifest, its page and its counts.
    Returns the manifest's digest.

    Raises:
        RunFailed: the data changed since the run was claimed, so that KFP's cache would know this
            dataset by the old one's digest.
    """
    with step_of_run("prepare_dataset", run, spec_digest=spec_digest) as log:
        manifest = _made_from(inputs, run, log)
        tell_numbers(metrics, {name: _number(manifest.facts.get(name)) for name in SHOWN})
        return hand_over(
            manifest, run=run, manifest_path=manifest_path, pages={"page.html": page_path}
        )


def _made_from(inputs: str, run: str, log: Log) -> Manifest:
    """The run's dataset, made from inputs of this digest. The run was claimed a moment ago, when
    they were all read: where dataset/ is made from just them, they need not be read again."""
    store, spec = open_run(run)
    there = read_manifest(store, DATASET)
    if there is not None and digest_of(there.inputs) == inputs:
        log.info("already_done", folder=f"{store.uri}/{DATASET}")
        return there
    from components.prepare_dataset.__main__ import prepare

    manifest = prepare(spec, log)
    if digest_of(manifest.inputs) != inputs:
        raise RunFailed("dataset: the data changed while the run was being started; start it again")
    return manifest


def _number(fact: Scalar) -> float | None:
    if fact is None or isinstance(fact, str):
        return None
    return float(fact)
