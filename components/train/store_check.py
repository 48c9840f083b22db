"""`python -m components.train.store_check`: what a worker finds where it runs: its environment's sources, and its store, used as a
training uses it.

For `hagane doctor`, which starts it in a pod like the workers'. It tells names of variables, never a value.
"""

import argparse
import os
import tempfile
import uuid
from pathlib import Path

from components.shared.errors import ObjectExists
from components.shared.job.training_job import ENVIRONMENT_VARIABLE, SOURCE, environment_in, sources_in
from components.shared.step import step_log
from components.shared.store.storage import Store, open_store

MULTIPART_BYTES = 33 * 2**20
"""One more MiB than S3Store uploads in one piece."""


def use_store(store: Store) -> dict[str, bool]:
    """The store does all that a run asks of it, and nothing is left behind. Returns whether conditional writes hold, by their name.

    Raises StoreError: the first thing that it refused.
    """
    store.check()
    next(iter(store.list()), None)
    key = f".check-{uuid.uuid4().hex}"
    try:
        with tempfile.TemporaryDirectory() as folder:
            large = Path(folder, "large")
            with large.open("wb") as file:
                file.truncate(MULTIPART_BYTES)
            store.upload(large, key)
        store.delete(key)
        return {"if_absent": refuses_second_writer(store, key)}
    finally:
        store.delete(key)


def refuses_second_writer(store: Store, key: str) -> bool:
    """Whether S3's If-None-Match is honoured; a server that passes it over lets two runs write over each other."""
    store.write_bytes(key, b"first", if_absent=True)
    try:
        store.write_bytes(key, b"second", if_absent=True)
    except ObjectExists:
        return True
    return False


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m components.train.store_check", description=__doc__)
    parser.add_argument("--store", metavar="URI", help="where to put, get, list and delete; without it, only the environment is told")
    parser.add_argument("--prefix", action="append", default=[], help="of variables that one source brings; may be repeated")
    asked = parser.parse_args()
    with step_log("train") as log:
        for prefix in asked.prefix:
            names = sorted(name.removeprefix(prefix) for name in os.environ if name.startswith(prefix))
            log.info("environment", prefix=prefix, names=names)
        folder = os.environ.get(ENVIRONMENT_VARIABLE)
        if folder is not None:  # a TrainJob's pod has them as files
            for number, source in enumerate(sources_in(Path(folder))):
                log.info("environment", prefix=f"{SOURCE}{number}_", names=sorted(source))
            os.environ |= environment_in(Path(folder))
        if asked.store is not None:
            log.info("store_used", **use_store(open_store(asked.store)))


if __name__ == "__main__":
    main()
