"""Logits made up around a probe of unit standard deviation; the numbers are those of SmolLM2-135M in bf16."""

import pytest
import torch

from components.export_adapter.verification.comparison import FP32_TOLERANCE, Precision, difference, foreign_choices, verify_logits
from components.shared.documents.results import Verification

ROUNDING = 0.03


def noise(seed: int, size: float) -> torch.Tensor:
    return size * torch.randn(16, 1000, generator=torch.Generator().manual_seed(seed))


TRAINED = noise(0, 1.0)
BASE = TRAINED + noise(1, 1.0)


def verify(exported: torch.Tensor, *, precision: Precision = "bf16", base: torch.Tensor = BASE) -> Verification:
    """Against a probe that carries bf16 rounding of its own."""
    probe = TRAINED + (noise(2, ROUNDING) if precision == "bf16" else 0)
    rounded = exported + (noise(3, ROUNDING) if precision == "bf16" else 0)
    return verify_logits(probe, exported_TV=rounded, exported_fp32_TV=exported, base_TV=base, precision=precision)


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_the_trained_models_own_logits_pass(precision: Precision):
    verification = verify(TRAINED, precision=precision)
    assert verification.passed, verification.problems


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_the_base_in_place_of_the_export_is_refused(precision: Precision):
    verification = verify(BASE, precision=precision)
    assert not verification.passed
    assert any("as near to the trained model" in problem for problem in verification.problems)


def test_logits_two_roundings_off_throughout_are_refused_though_none_is_far_off():
    verification = verify(TRAINED + noise(4, 2 * ROUNDING))
    assert verification.exported.max < verification.tolerance_max
    (problem,) = verification.problems
    assert "standard deviations from the trained model's" in problem


def test_another_first_choice_is_refused_though_every_logit_is_within_the_tolerance():
    step = FP32_TOLERANCE * float(TRAINED.std())
    probe, exported = TRAINED.clone(), TRAINED.clone()
    probe[0, :2] = torch.tensor([9 + 1.5 * step, 9])
    exported[0, :2] = torch.tensor([9 + 0.7 * step, 9 + 0.8 * step])
    verification = verify_logits(probe, exported_TV=exported, exported_fp32_TV=exported, base_TV=BASE, precision="fp32")
    assert verification.problems == ("at 1 of 16 positions its first choice is one that the trained model ranks lower",)


def test_one_logit_off_by_more_than_rounding_is_refused_in_bf16():
    off = TRAINED.clone()
    off[3, 5] += 1.0
    assert not verify(off).passed


def test_fp32_allows_another_order_of_sums_and_no_more():
    assert verify(TRAINED + FP32_TOLERANCE / 5 * noise(5, 1.0).clamp(-4, 4), precision="fp32").passed
    assert not verify(TRAINED + 2 * FP32_TOLERANCE, precision="fp32").passed


def test_a_training_without_effect_is_refused_as_untellable():
    (problem,) = verify(TRAINED, base=TRAINED + noise(6, ROUNDING)).problems
    assert problem.startswith("the base model is as near to the trained model")


def test_logits_that_are_not_numbers_are_refused_and_can_be_told():
    verification = verify(torch.full_like(TRAINED, float("nan")))
    assert not verification.passed
    assert not Verification.model_validate_json(verification.model_dump_json()).passed


def test_a_tie_within_the_tolerance_is_no_foreign_choice():
    probe, chosen = torch.tensor([[2.0, 1.9, 0.0]]), torch.tensor([[1.9, 2.0, 0.0]])
    assert foreign_choices(chosen, probe, limit=0.2) == 0
    assert foreign_choices(chosen, probe, limit=0.05) == 1


def test_difference_is_in_standard_deviations_of_the_probe():
    probe = 10 * TRAINED
    found = difference(probe + 10 * TRAINED.std(), probe)
    assert found.max == pytest.approx(1.0, rel=1e-4)
    assert found.rms == pytest.approx(1.0, rel=1e-4)
    assert found.same_choice == 16
