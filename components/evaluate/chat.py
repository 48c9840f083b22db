"""Questions on stdin -> the answers of a finished run's base and tuned model on stdout: `python -m
components.evaluate.chat --run URI`."""

import argparse
import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from components.shared.documents.plan import Plan
from components.shared.documents.prompts import PROMPTS, read_prompts
from components.shared.errors import HaganeError
from components.shared.model.new_tokens import tokenizer_folder
from components.shared.model.uncompiled import import_uncompiled
from components.shared.printable import printable_lines
from components.shared.step import open_run, work_folder
from components.shared.store.layout import DATASET, PLAN, export_folder
from components.shared.store.manifest import fetch_folder

Turn = dict[str, str]


@dataclass
class Side:
    """One of the two models, and what was said to it."""

    name: str
    reply: Any
    """A function of the turns so far."""
    turns: list[Turn] = field(default_factory=list)

    def answer(self, question: str) -> str:
        self.turns.append({"role": "user", "content": question})
        answer = self.reply(self.turns)
        self.turns.append({"role": "assistant", "content": answer})
        return answer


def sides_of(run: str, *, tokens: int, tuned_only: bool) -> list[Side]:
    """Base and tuned model of the run, loaded. Raises StoreError where it has no export."""
    store, spec = open_run(run)
    import torch  # seconds, which neither --help nor a run that is not there need pay

    import_uncompiled("bitsandbytes", torch)  # before peft imports it
    from peft import PeftModel

    from components.evaluate.evaluation import resolve_models
    from components.evaluate.measure.answers import load_tokenizer, reply
    from components.evaluate.measure.looking import is_adapter, load, load_base

    work = work_folder(run, "chat")
    fetch_folder(store, PLAN, work / PLAN, names=("plan.json",))
    fetch_folder(store, DATASET, work / DATASET, names=(PROMPTS,))
    new_tokens = read_prompts(work / DATASET).new_tokens
    export = work / export_folder(spec.training.method)
    fetch_folder(store, export.name, export)
    models = resolve_models(
        Plan.model_validate_json((work / PLAN / "plan.json").read_bytes()),
        export=export,
        new_tokens=new_tokens,
    )
    files = tokenizer_folder(models.base, new_tokens, work / "tokenizer")
    tokenizer = load_tokenizer(files, spec.data.chat_template)
    ask = partial(
        reply, tokenizer=tokenizer, answer_tokens=tokens, template_args=spec.data.template_args
    )
    tuned: Any = load(export, models.dtype) if not is_adapter(export) else None
    base: Any = None if tuned_only and tuned is not None else load_base(models)
    if tuned is None:
        base = tuned = PeftModel.from_pretrained(base, export).eval()

    def asked(model: Any, turns: list[Turn], *, adapter_off: bool) -> str:
        with torch.inference_mode(), model.disable_adapter() if adapter_off else nullcontext():
            return ask(model, turns=turns)

    is_shared = base is tuned
    sides = [Side("tuned", lambda turns: asked(tuned, turns, adapter_off=False))]
    if not tuned_only:
        sides.insert(0, Side("base", lambda turns: asked(base, turns, adapter_off=is_shared)))
    return sides


def talk(sides: list[Side], questions: Iterable[str]) -> Iterator[str]:
    """For each question a line of each side's answer, until an empty one."""
    width = max(len(side.name) for side in sides)
    for question in questions:
        if not question.strip():
            return
        for side in sides:
            yield f"{side.name:{width}}  {printable_lines(side.answer(question.strip()))}"


def questions_from(stream: Any, *, prompt: bool) -> Iterator[str]:
    while True:
        if prompt:
            print("> ", end="", flush=True)
        line = stream.readline()
        if not line:
            return
        yield line


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m components.evaluate.chat", description=__doc__)
    parser.add_argument(
        "--run", metavar="URI", required=True, help="the run's folder; its export must be finished"
    )
    parser.add_argument("--tokens", metavar="COUNT", type=int, default=200, help="longest answer")
    parser.add_argument("--tuned-only", action="store_true", help="do not ask the base model")
    asked = parser.parse_args()
    try:
        answer_questions(asked.run, tokens=asked.tokens, tuned_only=asked.tuned_only)
    except HaganeError as error:  # not as an event: a person reads it
        print(*(f"error: {line}" for line in error.lines), sep="\n", file=sys.stderr)
        sys.exit(error.exit_code)


def answer_questions(run: str, *, tokens: int, tuned_only: bool) -> None:
    sides = sides_of(run, tokens=tokens, tuned_only=tuned_only)
    at_terminal = sys.stdin.isatty()
    if at_terminal:
        print(f"{' and '.join(side.name for side in sides)} are loaded; an empty line ends it")
    for line in talk(sides, questions_from(sys.stdin, prompt=at_terminal)):
        print(line, flush=True)


if __name__ == "__main__":
    main()
