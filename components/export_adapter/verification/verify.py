"""An export on its base, loaded by plain transformers and peft in this process -> verification.json
in the export's folder."""

import argparse
from pathlib import Path

from components.shared.documents.prompts import Prompts
from components.shared.model.uncompiled import import_uncompiled
from components.shared.store.manifest import file_entry

VERIFICATION = "verification.json"


def main() -> None:
    arguments = parser().parse_args()
    prompts = Prompts.model_validate_json(arguments.prompts.read_bytes())

    import torch  # 5 s that --help need not pay

    import_uncompiled("bitsandbytes", torch)  # before peft imports it
    from components.export_adapter.verification.logits import verify_folder

    verification = verify_folder(
        arguments.folder,
        base=arguments.base,
        probe=arguments.probe,
        prompts=prompts,
        precision=arguments.precision,
        quantized_from=arguments.quantized_from,
    )
    verification = verification.model_copy(update={"files": loaded_files(arguments.folder)})
    (arguments.folder / VERIFICATION).write_text(verification.model_dump_json(indent=1) + "\n")


def loaded_files(folder: Path) -> dict[str, str]:
    """sha256 of all that the export is used by: weights, configs, tokenizer, template."""
    paths = (
        path
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name not in (VERIFICATION, "README.md")
    )
    return {path.name: file_entry(path, path.name).sha256 for path in paths}


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m components.export_adapter.verification.verify", description=__doc__
    )
    parser.add_argument(
        "folder",
        metavar="FOLDER",
        type=Path,
        help="an adapter (adapter_config.json in it) or a whole model",
    )
    parser.add_argument(
        "--base",
        metavar="FOLDER",
        type=Path,
        required=True,
        help="the base model, in Hugging Face layout",
    )
    parser.add_argument(
        "--probe",
        metavar="FILE",
        type=Path,
        required=True,
        help="probe.safetensors of the run's checkpoints/",
    )
    parser.add_argument(
        "--prompts",
        metavar="FILE",
        type=Path,
        required=True,
        help="prompts.json of the run's dataset/",
    )
    parser.add_argument(
        "--precision",
        choices=("bf16", "fp32"),
        required=True,
        help="number format of the logits that are judged",
    )
    parser.add_argument(
        "--quantized-from",
        choices=("bf16", "fp16", "fp32"),
        help="hold the base in 4 bits (NF4), made from weights in this number format",
    )
    return parser


if __name__ == "__main__":
    main()
