import pytest

from components.shared.errors import SpecError
from components.shared.model.registry import known_model, matching_families, model_families


def test_no_model_is_listed_twice() -> None:
    names = [model.name for family in model_families() for model in family.models]
    assert len(names) >= 50
    assert len(set(names)) == len(names)


def test_a_model_is_found_by_its_hub_id_whatever_the_case() -> None:
    found = known_model("CyberAgent/open-calm-7b")
    assert found is not None
    assert (found[0].model_type, found[0].merge, found[1].template) == ("gpt_neox", True, "none")
    assert known_model("models/mine") is None


def test_words_narrow_the_list() -> None:
    assert [model.name for family in matching_families(["elyza", "8b"]) for model in family.models] == ["elyza/Llama-3-ELYZA-JP-8B"]
    with pytest.raises(SpecError, match="none has 'gpt-5' in its name"):
        matching_families(["gpt-5"])
