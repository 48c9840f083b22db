"""Prints each image that was built here and pushed with its name by digest: `python -m
images.names`."""

import sys

from components.shared.errors import HaganeError
from components.shared.job.images import read_images
from images.bake import built_here


def main() -> None:
    images = read_images()
    for image in sorted(images.digests.keys() & built_here()):
        print(image, images.name(image))


if __name__ == "__main__":
    try:
        main()
    except HaganeError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
