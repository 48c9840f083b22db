"""An export on its base, loaded by plain transformers and peft in this process -> verification.json in the export's folder."""

import argparse
from pathlib import Path

from components.shared.prompts import Prompts


def main() -> None:
    arguments = parser().parse_args()
    prompts = Prompts.model_validate_json(arguments.prompts.read_bytes())

    from components.export_adapter.logits import verify_folder  # torch costs 5 s that --help need not pay

    verification = verify_folder(
        arguments.folder,
        base=arguments.base,
        probe=arguments.probe,
        prompts=prompts,
        precision=arguments.precision,
    )
    (arguments.folder / "verification.json").write_text(verification.model_dump_json(indent=1) + "\n")


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m components.export_adapter.verify", description=__doc__)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="an adapter (adapter_config.json in it) or a whole model")
    parser.add_argument("--base", metavar="FOLDER", type=Path, required=True, help="the base model, in Hugging Face layout")
    parser.add_argument("--probe", metavar="FILE", type=Path, required=True, help="probe.safetensors of the run's checkpoints/")
    parser.add_argument("--prompts", metavar="FILE", type=Path, required=True, help="prompts.json of the run's dataset/")
    parser.add_argument("--precision", choices=("bf16", "fp32"), required=True, help="number format of the logits that are judged")
    return parser


if __name__ == "__main__":
    main()
