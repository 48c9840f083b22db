"""Does AutoTokenizer give the tokens that a dataset has? Asked before a run is paid for, where
transformers is installed.

python -m components.evaluate.same_tokens --run RUN
"""

from pathlib import Path

from components.shared.documents.plan import Plan
from components.shared.documents.prompts import PROMPTS, read_prompts
from components.shared.documents.tokenizer_sample import (
    TOKENIZER_SAMPLE,
    read_tokenizer_sample,
    refuse_other_tokens,
)
from components.shared.model.new_tokens import tokenizer_folder
from components.shared.model.source import CONFIG_AND_TOKENIZER, resolve_model
from components.shared.model.tokenizer_class import by_class_or_file
from components.shared.spec.run_spec import ModelSpec
from components.shared.step import open_run, run_argument, step_log, work_folder
from components.shared.store.layout import DATASET, PLAN
from components.shared.store.manifest import fetch_folder


def check_tokens(folder: Path, dataset: Path) -> None:
    """The model's tokenizer gives the tokens of the dataset. Raises ModelError where it does not or
    cannot be loaded."""
    from transformers import (
        AutoTokenizer,
        PreTrainedTokenizerFast,
    )  # costs seconds, and most tokenizers need no look

    sample = read_tokenizer_sample(dataset)
    if sample.may_differ:
        tokenizer = by_class_or_file(
            folder, AutoTokenizer.from_pretrained, PreTrainedTokenizerFast.from_pretrained
        )
        refuse_other_tokens(
            sample, folder, lambda text: tokenizer.encode(text, add_special_tokens=False)
        )


def main() -> None:
    run = run_argument("evaluate.same_tokens", __doc__, must_be_finished="plan")
    with step_log("evaluate") as log:
        store, _ = open_run(run)
        work = work_folder(run, "same_tokens")
        fetch_folder(store, DATASET, work / DATASET, names=(TOKENIZER_SAMPLE, PROMPTS))
        plan = Plan.model_validate_json(store.read_bytes(f"{PLAN}/plan.json"))
        source = ModelSpec(source=plan.model.source, revision=plan.model.revision)
        base = resolve_model(source, patterns=CONFIG_AND_TOKENIZER).folder
        new_tokens = read_prompts(work / DATASET).new_tokens
        check_tokens(tokenizer_folder(base, new_tokens, work / "tokenizer"), work / DATASET)
        log.info("same_tokens", model=plan.model.source)


if __name__ == "__main__":
    main()
