"""Every error a user can cause or meet, each told as one line per problem.

HaganeError                 exit 2: the user can mend it, nothing was begun
├── SpecError               the spec, `--set`, a command line argument
├── DataError               a file of records, a record, a chat template
├── ModelError              model folder or hub id, its config, tokenizer, LoRA targets
├── SpaceError              free disk below what the plan needs
├── StoreError              the store answered, and the answer is no
│   ├── StoreDenied         credentials missing, wrong or not allowed
│   ├── StoreMissing        the bucket or folder is not there
│   ├── StoreUnreachable    no answer, throttled, or broken off after all retries
│   ├── ObjectMissing       no object of this key
│   ├── ObjectExists        a conditional write found one there
│   └── ObjectDamaged       size or checksum differ from the manifest
└── RunFailed               exit 1: something that had begun failed; the same command goes on from there
    └── Preempted           exit 143: SIGTERM was obeyed; whoever sent it may start the same again
"""


class HaganeError(Exception):
    """An error to tell the user in `problems`: one line each, in the form `where: found, allowed; what to do`."""

    exit_code = 2

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class SpecError(HaganeError):
    pass


class DataError(HaganeError):
    pass


class ModelError(HaganeError):
    pass


class SpaceError(HaganeError):
    pass


class StoreError(HaganeError):
    pass


class StoreDenied(StoreError):
    pass


class StoreMissing(StoreError):
    pass


class StoreUnreachable(StoreError):
    pass


class ObjectMissing(StoreError):
    pass


class ObjectExists(StoreError):
    pass


class ObjectDamaged(StoreError):
    pass


class RunFailed(HaganeError):
    exit_code = 1


class Preempted(RunFailed):
    exit_code = 128 + 15  # as a shell tells SIGTERM; the PyTorchJob policy ExitCode restarts on codes from 128 on
