"""Tests of the built images. They need docker or podman at work, and `make images` before them; elsewhere they are skipped."""

import pytest

from components.shared.errors import HaganeError
from components.shared.job.images import Images, read_images
from images.bake import Target, read_bake
from images.build import bake_variables
from images.contents import Contents, contents
from pipelines.local.engine import Engine, find_engine

BUILT = ("prepare", "render", "launch", "train", "export")


@pytest.fixture(scope="session")
def engine() -> Engine:
    try:
        return find_engine()
    except HaganeError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def images(engine: Engine) -> Images:
    """Names of images that are all here."""
    named = read_images()
    for name in sorted(set(named.components.values())):
        if not engine.has_image(named.name(name)):
            pytest.skip(f"no image {named.name(name)}: run `make images`")
    return named


@pytest.fixture(scope="session", params=BUILT)
def target(request: pytest.FixtureRequest, images: Images) -> Target:
    """Each image in turn, as the bake file describes it."""
    return read_bake(bake_variables(), [request.param])[0]


@pytest.fixture(scope="session")
def opened(target: Target, engine: Engine) -> Contents:
    """What is in it."""
    return contents(engine, target.tags[0])
