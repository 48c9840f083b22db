"""Prints each image that was pushed with its name by digest: `python -m images.names`."""

import sys

from components.shared.errors import HaganeError
from components.shared.job.images import read_images


def main() -> None:
    images = read_images()
    for image in sorted(images.digests):
        print(image, images.name(image))


if __name__ == "__main__":
    try:
        main()
    except HaganeError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
