"""The first step of a pipeline, and a cheap one: which run is asked for, is it claimed, and what of
it is there already.

KFP takes a step from its cache by image and parameters alone; it sees neither data behind a URI nor
whether a folder of the store is still there. So both are looked at here, each time, and become
parameters of the steps that are cached: a digest of all that the dataset is made from, and for each
folder the digest of the manifest that is there now, or KFP's own id of the run where none is. A
step is thus taken from the cache only if an earlier one ended with the very folder that lies in the
store.
"""

import os
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from components.prepare_dataset.inputs import digest_of
from components.prepare_dataset.source import load_source
from components.shared.errors import ClusterError, HaganeError, all_of, attempt
from components.shared.job.permissions import (
    JOBS,
    KFP_POD_PERMISSIONS,
    granted_by,
    launcher_permissions,
    refusals,
)
from components.shared.job.pod_account import missing_permissions, own_namespace
from components.shared.spec.overrides import asked_spec, refuse_notify_when, series_of
from components.shared.spec.run_spec import RunSpec
from components.shared.step import Log, claim_run, failure_kept, open_run
from components.shared.store.layout import DATASET, PLAN
from components.shared.store.manifest import read_manifest
from components.shared.store.series import Asked, fingerprint_of, newest_run, note_asked
from components.shared.store.storage import Store, open_store
from components.shared.store.writer import OWNER_VARIABLE, claim_for_kfp, given_back, kfp_writer


class Claimed(NamedTuple):
    run: str
    """URI of the run's folder."""
    inputs: str
    """Digest of all that its dataset is made from."""
    dataset_seen: str
    """Digest of dataset/'s manifest when it is made from just that; else KFP's id of the run, which
    no other start has."""
    plan_seen: str
    """The same of plan/."""
    spec_digest: str
    """Of the run's spec: every step stops where another one was stored since."""


def claim(
    tree: Mapping[str, Any],
    overrides: Mapping[str, str | int],
    *,
    kfp_run: str,
    images: str,
    skip_if_unchanged: bool,
    notify_when: str,
    log: Log,
) -> Claimed:
    """The run is claimed. With `skip_if_unchanged` it may be the newest finished run of its series,
    when a new one would be made from the same data, spec and images: all steps then find their work
    done. Not for a model in a folder: nothing tells whether its weights are still the same.

    Raises:
        HaganeError: the spec, `notify_when`, data, tokenizer or template cannot be used, all
            problems of a kind at once, before the run is claimed; or the name belongs to a run that
            was begun with another spec.
    """
    spec = _asked(tree, overrides, kfp_run=kfp_run, notify_when=notify_when)
    series = series_of(spec, str(overrides.get("override_run_name", "")))
    with failure_kept("claim_run", spec.run_uri, log, kfp_run=kfp_run):
        check_account(spec, log)
        return _claim(
            spec,
            series,
            kfp_run=kfp_run,
            images=images,
            skip_if_unchanged=skip_if_unchanged,
            log=log,
        )


def _claim(
    spec: RunSpec, series: str, *, kfp_run: str, images: str, skip_if_unchanged: bool, log: Log
) -> Claimed:
    source = load_source(spec, now=datetime.now())
    revision = source.model.resolved.revision
    fingerprint = fingerprint_of(spec, inputs=source.inputs, revision=revision, images=images)
    if skip_if_unchanged and revision is None:
        log.info(
            "not_skipped",
            why=f"model.source: {spec.model.source!r} is a folder, whose weights may have changed",
        )
    if skip_if_unchanged and revision is not None:
        newest = newest_run(open_store(spec.store), series)
    else:
        newest = None
    if newest is not None and newest.fingerprint == fingerprint:
        log.info(
            "unchanged",
            since=newest.run,
            note=(
                "data, spec and images are those of the newest finished run; nothing is done again"
            ),
        )
        return _seen(*open_run(newest.run), inputs=source.inputs, kfp_run=kfp_run)
    store = open_store(spec.run_uri)
    if os.environ.get(OWNER_VARIABLE):  # `hagane run` has the lock
        claim_run(spec)
    else:
        _claim_for_kfp(store, spec, kfp_run)
    note_asked(store, Asked(series=series, fingerprint=fingerprint, kfp_run=kfp_run, images=images))
    log.info("claimed", run=spec.run_uri)
    return _seen(*open_run(spec.run_uri), inputs=source.inputs, kfp_run=kfp_run)


def _claim_for_kfp(store: Store, spec: RunSpec, kfp_run: str) -> None:
    """Raises SpecError, with nothing of this spec stored, where somebody else works on the run, or
    it has a plan of another spec."""
    claim_for_kfp(store, kfp_writer(kfp_run, spec.digest))
    try:
        claim_run(spec)
    except HaganeError:
        given_back(store, kfp_run)
        raise


def check_account(spec: RunSpec, log: Log) -> None:
    """In a pod of a cluster, its account may do what the run will need: known in the first second,
    not when training begins.

    What KFP's own parts lack is said in the log alone: they name their objects otherwise where a
    site set them up otherwise.

    Raises ClusterError with every permission that the launcher would lack, and the file that grants
    it.
    """
    own = own_namespace()
    if own is None or spec.backend not in JOBS:
        return
    namespace = spec.cluster.namespace or own
    try:
        missing = missing_permissions(launcher_permissions(spec.backend), namespace)
        for each in missing_permissions(KFP_POD_PERMISSIONS, own):
            log.warning("kfp_may_not", what=str(each), namespace=own, granted_by=granted_by(each))
    except OSError as error:
        log.warning("account_not_checked", why=type(error).__name__)
        return
    if missing:
        raise ClusterError(*refusals(missing, namespace))


def _asked(
    tree: Mapping[str, Any], overrides: Mapping[str, str | int], *, kfp_run: str, notify_when: str
) -> RunSpec:
    errors: list[HaganeError] = []
    spec = attempt(errors, lambda: asked_spec(tree, overrides, kfp_run=kfp_run))
    attempt(errors, lambda: refuse_notify_when(notify_when))
    if spec is None or errors:
        raise all_of(errors)
    return spec


def _seen(store: Store, spec: RunSpec, *, inputs: Mapping[str, str], kfp_run: str) -> Claimed:
    dataset, plan = read_manifest(store, DATASET), read_manifest(store, PLAN)
    if dataset is not None and dataset.inputs == dict(inputs):
        dataset_seen = dataset.digest
    else:
        dataset_seen = kfp_run
    planned = plan is not None and plan.inputs == {"dataset": dataset_seen, "spec": spec.digest}
    return Claimed(
        spec.run_uri,
        digest_of(inputs),
        dataset_seen,
        plan.digest if plan is not None and planned else kfp_run,
        spec.digest,
    )
