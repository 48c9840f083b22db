"""images/images.yaml -> the full name of each component's image."""

import os
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError
from pydantic_core import ErrorDetails

from components.shared.documents.fields import FrozenModel
from components.shared.errors import SpecError
from components.shared.own_files import own_file
from components.shared.printable import shown
from components.shared.spec.yaml_text import read_yaml

IN_THE_REPOSITORY = own_file("images/images.yaml")

# The grammar of github.com/distribution/reference (regexp.go), without a tag in the repository's
# name.
REPOSITORY = r"^[a-zA-Z0-9.-]+(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*$"
# Not \w: of all of Unicode it takes 40 ms to compile.
TAG = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$"
DIGEST = r"^sha256:[0-9a-f]{64}$"
ALLOWED = {
    "repository": (
        "must be a registry and a path such as registry.example.com/hagane, in small letters, "
        "without a tag"
    ),
    "tag": "must be text of at most 128 letters, digits, '.', '_', '-'",
    "components": "must name an image for each component",
    "train_on_gpus": "must name an image",
    "has_lm_eval": "must be true or false",
    "trackers": "must be a list of names such as tensorboard",
    "digests": "must be sha256: and 64 hex digits for each image, as `make push` writes them",
}


class Images(FrozenModel):
    """Names of all images; the file's own words are in images/images.yaml."""

    repository: str = Field(pattern=REPOSITORY)
    tag: str = Field(pattern=TAG)
    components: dict[str, str]
    train_on_gpus: str | None = None
    """Image of the workers where the plan has GPUs; None where nobody trains on any."""
    has_lm_eval: bool = False
    """Whether the image of evaluate holds the package lm_eval; the one made here does not."""
    trackers: list[str] = Field(default_factory=list)
    """Services of `training.report_to` whose packages the image of train holds; the one made here
    holds none."""
    digests: dict[str, Annotated[str, Field(pattern=DIGEST)]] = Field(default_factory=dict)

    def name(self, image: str) -> str:
        """`repository/image@digest` where the digest is known, else `repository/image:tag`."""
        digest = self.digests.get(image)
        if digest is None:
            return f"{self.repository}/{image}:{self.tag}"
        return f"{self.repository}/{image}@{digest}"

    def of(self, component: str) -> str:
        """Full name of the component's image. Raises SpecError where the file names none."""
        if component not in self.components:
            raise SpecError(
                f"images: components.{component}: missing, must name an image; see "
                "images/images.yaml"
            )
        return self.name(self.components[component])

    def training(self, *, on_gpus: bool) -> str:
        """Full name of the workers' image. Raises SpecError where the file names none."""
        if not on_gpus:
            return self.of("train")
        if self.for_gpus is None:
            raise SpecError(
                "images: train_on_gpus: names no image that was pushed, but the plan has GPUs; run "
                "`make images-cuda push REGISTRY=…`"
            )
        return self.name(self.for_gpus)

    @property
    def for_gpus(self) -> str | None:
        """`train_on_gpus`, unless the others were pushed without it: their repository then has
        none."""
        if not self.digests or self.train_on_gpus in self.digests:
            return self.train_on_gpus
        return None

    def all(self) -> list[str]:
        """All images, each once, without repository."""
        return sorted({*self.components.values(), *([self.for_gpus] if self.for_gpus else [])})

    def names(self) -> list[str]:
        """Full names of all images, each once."""
        return [self.name(image) for image in self.all()]

    def moving(self) -> list[str]:
        """One line for each image whose name may stand for other content tomorrow."""
        return [
            (
                f"images: {self.name(image)} is a tag, which can be moved, must be pinned by "
                "digest; run `make push REGISTRY=…`"
            )
            for image in self.all()
            if image not in self.digests
        ]


LOCAL_IMAGES = "HAGANE_LOCAL_IMAGES"
"""Set where the nodes hold the images already, as in a cluster of one machine."""


def refuse_local_images(images: Images) -> None:
    """Raises SpecError where no node of a cluster could pull the images, unless $LOCAL_IMAGES is
    set."""
    host = images.repository.partition("/")[0].partition(":")[0]
    if host in ("localhost", "127.0.0.1") and not os.environ.get(LOCAL_IMAGES):
        raise SpecError(
            f"images: {images.repository}/… are images of this machine, which no node of a cluster "
            "can pull, must be in a registry. Fix: make push REGISTRY=registry.example.com/hagane, "
            "or name a file of images by HAGANE_IMAGES; where the nodes hold the images already, "
            f"set {LOCAL_IMAGES}=1"
        )


def images_file() -> Path:
    """The file that names the images: `$HAGANE_IMAGES`, for a site with names of its own, else the
    repository's."""
    return Path(os.environ.get("HAGANE_IMAGES") or IN_THE_REPOSITORY)


def read_images(path: Path | None = None) -> Images:
    """The images as the file names them.

    Raises:
        SpecError: it cannot be read, or a field is missing, unknown or malformed; one line each.
    """
    path = path or images_file()
    try:
        return Images.model_validate(read_yaml(path).tree)
    except FileNotFoundError as error:
        raise SpecError(
            f"{path}: {error.strerror}; HAGANE_IMAGES must name a file such as images/images.yaml"
        ) from None
    except ValidationError as error:
        raise SpecError(*(_sentence(path, detail) for detail in error.errors())) from None


def _sentence(path: Path, detail: ErrorDetails) -> str:
    where = ".".join(map(str, detail["loc"])) or "the file"
    if detail["type"] == "missing":
        found = "missing"
    else:
        found = f"got {shown(detail['input'])}"
    return (
        f"{path}: {where}: {found}, "
        f"{ALLOWED.get(str(detail['loc'][0]) if detail['loc'] else '', 'has no place here')}"
    )
