"""Which run of a series finished last and what it was made from, so that a run that would be the
same again can be left out.

<store>/.newest/<series>.json   written when a run of the series has finished; no run has that name
<store>/<run>/asked.json        written when the run is claimed
"""

import hashlib
import json
from collections.abc import Mapping

from components.shared.documents.fields import FrozenModel
from components.shared.errors import ObjectDamaged, ObjectMissing
from components.shared.spec.run_spec import RunSpec
from components.shared.store.layout import ASKED, REPORT, newest_key
from components.shared.store.manifest import read_manifest
from components.shared.store.storage import Store, open_store


class Asked(FrozenModel):
    """What a claimed run is made from."""

    series: str
    fingerprint: str
    """See `fingerprint_of`."""
    kfp_run: str
    """KFP's id of the run that claimed it last: only that one may end its job."""
    images: str = ""
    """Names of the pipeline's images, with spaces between them."""


class Newest(FrozenModel):
    run: str
    """URI of its folder."""
    fingerprint: str
    report: str
    """Digest of its report/, which stands for all that it was made from."""


def fingerprint_of(
    spec: RunSpec, *, inputs: Mapping[str, str], revision: str | None, images: str
) -> str:
    """sha256 of all that a run follows from but its name: data, tokenizer, template, the model's
    commit, the spec, the images."""
    asked = spec.model_dump(mode="json", exclude={"name"})
    return hashlib.sha256(
        json.dumps([asked, dict(inputs), revision, images], sort_keys=True).encode()
    ).hexdigest()


def note_asked(store: Store, asked: Asked) -> None:
    """The claimed run knows what it is made from."""
    store.write_bytes(ASKED, asked.model_dump_json(indent=1).encode() + b"\n")


def asked_of(store: Store) -> Asked | None:
    """What the run in this folder is made from; None where no pipeline claimed one."""
    try:
        return Asked.model_validate_json(store.read_bytes(ASKED))
    except (ObjectMissing, ValueError):
        return None


def note_finished(spec: RunSpec) -> None:
    """The run, if a pipeline claimed it and it has its report, is the newest of its series."""
    store = open_store(spec.run_uri)
    asked, report = asked_of(store), read_manifest(store, REPORT)
    if asked is not None and report is not None:
        newest = Newest(run=spec.run_uri, fingerprint=asked.fingerprint, report=report.digest)
        open_store(spec.store).write_bytes(
            newest_key(asked.series), newest.model_dump_json(indent=1).encode() + b"\n"
        )


def newest_run(store: Store, series: str) -> Newest | None:
    """The newest finished run of the series, if its report is still what it was."""
    try:
        newest = Newest.model_validate_json(store.read_bytes(newest_key(series)))
        report = read_manifest(open_store(newest.run), REPORT)
    except (ObjectMissing, ObjectDamaged, ValueError):
        return None
    if report is not None and report.digest == newest.report:
        return newest
    return None
