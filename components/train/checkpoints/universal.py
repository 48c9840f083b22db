"""DeepSpeed's tool that makes shards fit any number of processes, with files opened as components/shared/pickled.py says.

python -m components.train.checkpoints.universal --input_folder … --output_folder …
"""

from deepspeed.checkpoint.ds_to_universal import main, parse_arguments

from components.shared.pickled import open_listed_classes_only

if __name__ == "__main__":
    open_listed_classes_only()
    main(parse_arguments())
