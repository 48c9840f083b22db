"""What docs/targets.md says of every architecture is still so."""

import pytest

from tests.truth.targets_table import DOCS, document, rows

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def test_every_architecture_gets_its_targets_and_never_head_router_or_embedding() -> None:
    found, left_out = rows()
    assert [(each.model_type, each.problems) for each in found if each.problems] == []
    assert len(found) >= 170
    assert document(found, left_out) == DOCS.read_text(encoding="utf-8")
