"""Every error a user can cause or meet, each printed as one line per problem.

HaganeError                 exit 2: the user can fix it, nothing was begun
├── SpecError               the spec, `--set`, a command line argument
├── DataError               a file of records, a record, a chat template
├── ModelError              model folder or hub id, its config, tokenizer, LoRA targets
│   └── HubUnreachable      the hub did not answer, or broke off
├── SpaceError              free disk below what the plan needs
├── ClusterError            the cluster answered, and the answer is no
│   ├── NoCluster           there is neither a pod's account nor a kubeconfig
│   └── KfpError            so did the server of Kubeflow Pipelines
│       ├── KfpMissing      it has no such thing
│       ├── KfpExists       it has one of this name
│       └── KfpUnreachable  no answer, or none of KFP
├── StoreError              the store answered, and the answer is no
│   ├── StoreDenied         credentials missing, wrong or not allowed
│   ├── StoreMissing        the bucket or folder is not there
│   ├── StoreUnreachable    no answer, throttled, or broken off after all retries
│   ├── ObjectMissing       no object of this key
│   ├── ObjectExists        a conditional write found one there
│   └── ObjectDamaged       size or checksum differ from the manifest
└── RunFailed               exit 1: what had begun failed; the same command goes on from there
    ├── Preempted           exit 143: SIGTERM was obeyed; whoever sent it may start the same again
    └── PeerLost            exit 129: another process of the job is gone; all may start again
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from components.shared.printable import cut, first_problems, printable, without_secrets

Result = TypeVar("Result")

MOST_LINE_LETTERS = 2000
"""Of one problem, whatever a library or a server said in it."""


class HaganeError(Exception):
    """An error for the user in `problems`: one line each, in the form `where: found, allowed; what
    to do`.

    User, query and fragment of every address (`s3://key:secret@bucket`,
    `https://…?X-Amz-Signature=…`) are cut out, and control characters are escaped.
    """

    exit_code = 2

    def __init__(self, *problems: str) -> None:
        self.problems = tuple(
            printable(cut(without_secrets(problem), MOST_LINE_LETTERS)) for problem in problems
        )
        super().__init__("\n".join(self.problems))

    @property
    def lines(self) -> list[str]:
        """What is printed: the first problems, and how many more there are."""
        return first_problems(self.problems)


class SpecError(HaganeError):
    pass


class DataError(HaganeError):
    pass


class ModelError(HaganeError):
    pass


class HubUnreachable(ModelError):
    pass


class SpaceError(HaganeError):
    pass


class ClusterError(HaganeError):
    pass


class NoCluster(ClusterError):
    pass


class KfpError(ClusterError):
    may_pass = False
    """Whether the same request may find another answer later, without any change here."""


class KfpMissing(KfpError):
    pass


class KfpExists(KfpError):
    pass


class KfpUnreachable(KfpError):
    may_pass = True
    may_be_obeyed = False
    """Whether the request may have reached the server all the same."""


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


class PeerLost(RunFailed):
    exit_code = 128 + 1


class Preempted(RunFailed):
    exit_code = (
        128 + 15
    )  # as a shell tells SIGTERM; the PyTorchJob policy ExitCode restarts on codes from 128 on


@contextmanager
def after_a_change() -> Iterator[None]:
    """For what follows a change: an error inside that means exit code 2, "nothing was begun", ends
    with 1."""
    try:
        yield
    except HaganeError as error:
        if error.exit_code == HaganeError.exit_code:
            error.exit_code = RunFailed.exit_code
        raise


def attempt(errors: list[HaganeError], call: Callable[[], Result]) -> Result | None:
    """What `call` returns; when it raises a HaganeError, that is added to `errors` and None
    returned."""
    try:
        return call()
    except HaganeError as error:
        errors.append(error)
        return None


def all_of(errors: list[HaganeError]) -> HaganeError:
    """One error of the first one's kind, with the problems of all, each once."""
    problems = (problem for error in errors for problem in error.problems)
    return type(errors[0])(*dict.fromkeys(problems))
