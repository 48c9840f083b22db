"""Raw conversations (JSONL) -> dataset/: tokenised, packed, masked rows and a report on their
quality."""

import argparse
import shutil
from datetime import datetime
from pathlib import Path

from components.prepare_dataset.assemble import LoggedProgress, Progress, assemble, no_progress
from components.prepare_dataset.checking import check_conversations
from components.prepare_dataset.records.records import RecordSource, read_records
from components.prepare_dataset.report.look import DataLook, FileLook, look_at_data, look_at_file
from components.prepare_dataset.report.look_lines import json_of, lines_of
from components.prepare_dataset.samples.prompts import write_prompts
from components.prepare_dataset.source import Source, load_source
from components.shared.errors import DataError, HaganeError, attempt
from components.shared.spec.file import load_spec
from components.shared.spec.run_spec import RunSpec
from components.shared.step import Log, claim_run, failure_kept, finished, step_log, work_folder
from components.shared.store.layout import DATASET, PLAN
from components.shared.store.manifest import Manifest, publish_folder, read_manifest
from components.shared.store.patience import waits
from components.shared.store.storage import Store


def prepare(spec: RunSpec, log: Log, processes: int | None = None) -> Manifest:
    """The run is claimed and dataset/ is finished; nothing is done again for the same data,
    tokenizer and template.

    `processes` changes nothing but how long it takes; without it there is one for each core and 32
    MB of conversations.

    Raises:
        HaganeError: data, tokenizer or template cannot be used, all problems at once, before the
            run is claimed; a conversation cannot be masked or is too long; the name belongs to a
            run that was begun with other data.
    """
    source = load_source(spec, now=datetime.now())
    store = claim_run(spec)
    done = finished(store, DATASET, source.inputs, log)
    if done is not None:
        return done
    _refuse_other_data(store, spec, source)
    log.info(
        "read",
        train=len(source.records.train),
        held_out=len(source.records.held_out),
        format=", ".join(dict.fromkeys(source.records.forms)),
        template=source.model.encoder.template.name,
        model_revision=source.model.resolved.revision,
    )
    local = work_folder(spec.run_uri, "prepare_dataset")
    shutil.rmtree(local)  # files of a try that broke off would be published too
    local.mkdir()
    facts, warnings = assemble(
        spec, source, local, progress=LoggedProgress(log.info), processes=processes
    )
    write_prompts(source, local, row_tokens=int(facts["row_tokens"] or 0))
    for warning in warnings:
        log.warning("quality", warning=warning)
    manifest = publish_folder(
        store, DATASET, local, made_by="prepare_dataset", inputs=source.inputs, facts=facts
    )
    log.info(
        "prepared",
        **{
            name: facts[name]
            for name in (
                "num_conversations",
                "num_rows",
                "num_tokens",
                "num_trained_tokens",
                "row_tokens",
                "dropped",
            )
        },
    )
    return manifest


def check(
    spec: RunSpec, progress: Progress = no_progress, processes: int | None = None
) -> list[str]:
    """Every problem of data, tokenizer and template that can be known without training; nothing is
    written.

    Every record is read and rendered; of each set the first 8 and the 8 with most characters are
    tokenised.
    """
    errors: list[HaganeError] = []
    source = attempt(errors, lambda: load_source(spec, now=datetime.now()))
    if source is not None:
        attempt(
            errors,
            lambda: check_conversations(spec.data, source, progress=progress, processes=processes),
        )
    return [problem for error in errors for problem in error.problems]


def look(place: str, overrides: list[str]) -> FileLook | DataLook:
    """What the data of a spec, or a file of records, is. Raises HaganeError where it cannot be
    read."""
    if Path(place).suffix in (".yaml", ".yml"):
        spec = load_spec(Path(place), overrides)
        return look_at_data(load_source(spec, now=datetime.now()), spec.data)
    if overrides:
        raise DataError(
            f"--set: sets a field of a spec, and {place!r} is a file of records; name a spec, a "
            "YAML file"
        )
    return look_at_file(read_records(RecordSource(place))[0])


OF_ANOTHER_VERSION = "the way hagane makes rows"


def _refuse_other_data(store: Store, spec: RunSpec, source: Source) -> None:
    """Raises DataError when a plan was already made from a dataset of other inputs: what has begun
    must not change."""
    begun = read_manifest(store, DATASET)
    if begun is None or read_manifest(store, PLAN) is None:
        return
    names = {
        "spec": OF_ANOTHER_VERSION,
        "train": spec.data.train_name,
        "held_out": spec.data.held_out_name or "the held-out share",
        "tokenizer": str(source.model.encoder.tokenizer_file),
        "template": source.model.encoder.template.name,
    }
    changed = [
        names[key] for key, digest in source.inputs.items() if begun.inputs.get(key) != digest
    ]
    if not changed:  # another start of the run has just finished it
        return
    if changed == [OF_ANOTHER_VERSION]:  # the spec is the run's own: claim_run refuses any other
        raise DataError(
            f"run {spec.name!r} was prepared and planned by another version of hagane, which makes "
            "rows of the same data another way; finish it with that version, or set another name"
        )
    raise DataError(
        f"{', '.join(changed)}: changed since run {spec.name!r} was prepared and planned; put it "
        "back, or set another name"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m components.prepare_dataset",
        description=__doc__,
        epilog=(
            "example: python -m components.prepare_dataset --spec specs/demo.yaml --set "
            "data.row_tokens=512 --check"
        ),
    )
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument(
        "--spec",
        metavar="FILE",
        type=Path,
        help="the run spec, a YAML file; its store and name say where dataset/ goes",
    )
    chosen.add_argument(
        "--look",
        metavar="SPEC|FILE",
        help="print what the data of a spec, or a file of records, is; writes nothing",
    )
    parser.add_argument(
        "--set",
        metavar="A.B=VALUE",
        action="append",
        default=[],
        help="overrides one field of the spec; may be given many times",
    )
    parser.add_argument(
        "--json", action="store_true", help="with --look: print JSON instead of lines"
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="only look for problems in data, tokenizer and template; writes nothing",
    )
    parser.add_argument(
        "--processes",
        metavar="N",
        type=int,
        help=(
            "processes that render and tokenise; by default one for each core and 32 MB of "
            "conversations; the same bytes either way"
        ),
    )
    arguments = parser.parse_args()
    if arguments.processes is not None and arguments.processes < 1:
        parser.error(f"--processes: found {arguments.processes}, must be at least 1")
    if arguments.json and arguments.look is None:
        parser.error("--json: is for --look")
    with step_log("prepare_dataset") as log:
        if arguments.look is not None:
            found = look(arguments.look, arguments.set)
            print(json_of(found) if arguments.json else "\n".join(lines_of(found)))
            return
        spec = load_spec(arguments.spec, arguments.set)
        if not arguments.check:
            with waits(log), failure_kept("prepare_dataset", spec.run_uri, log):
                prepare(spec, log, arguments.processes)
            return
        problems = check(spec, LoggedProgress(log.info), arguments.processes)
        if problems:
            raise HaganeError(*problems)
        log.info(
            "checked", train=spec.data.train_name, held_out=spec.data.held_out_name, problems=0
        )


if __name__ == "__main__":
    main()
