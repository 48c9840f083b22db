"""Logits of an export against the probe (the trained model's own, kept by the training) -> a verdict with its numbers.

Shapes: T probe tokens, V tokens of the vocabulary. Differences are in standard deviations of the probe's logits.

How far two right computations may differ. fp32: another order of sums moves logits by a few 1e-6. bf16 keeps 8 bits, so that
its rounding, amplified from layer to layer, is far above that; how far depends on the model, so it is measured on the spot:
logits of the export in bf16 against the same in fp32. The trained model's own bf16 logits are about as far from fp32, so the
two are apart by at most about the sum. Measured in units of that rounding, largest difference (rms): SmolLM2-135M, eager
against sdpa attention 1.04 (0.76), autocast against bf16 weights 1.21 (1.22), MLP sums in another order 0.54 (0.39); a tiny
GPT-NeoX exported from ZeRO-3 1.03 (0.92), though on the same machine. The rounding itself: SmolLM2-135M 0.142 (0.033).
"""

from collections.abc import Sequence
from typing import Literal

import torch

from components.export_adapter.verification.probe import TurnEnd
from components.shared.documents.results import Difference, Verification

Precision = Literal["bf16", "fp32"]
FP32_TOLERANCE = 1e-4
# The sum of two equal roundings, and half as much again for the largest of T x V differences, which is a matter of chance.
BF16_MAX_ROUNDINGS, BF16_RMS_ROUNDINGS = 3.0, 2.0
# The export must be this many times nearer to the trained model than the base is, or the check would prove nothing.
NEARER = 4.0


def verify_logits(
    probe_TV: torch.Tensor, *, exported_TV: torch.Tensor, exported_fp32_TV: torch.Tensor, base_TV: torch.Tensor, precision: Precision
) -> Verification:
    """The verdict on an export. `exported` and `base` are in `precision`; all tensors are fp32 copies."""
    exported, base = difference(exported_TV, probe_TV), difference(base_TV, probe_TV)
    rounding = difference(exported_TV, exported_fp32_TV, unit=float(probe_TV.std()))
    limit_max, limit_rms, reason = tolerance(precision, rounding)
    problems: list[str] = []
    if not (exported.max <= limit_max and exported.rms <= limit_rms):
        problems.append(
            f"its logits are {exported.max:.3g} standard deviations from the trained model's (rms {exported.rms:.3g}), "
            f"allowed are {limit_max:.3g} (rms {limit_rms:.3g})"
        )
    num_foreign = foreign_choices(exported_TV, probe_TV, limit=limit_max * float(probe_TV.std()))
    if num_foreign:
        problems.append(f"at {num_foreign} of {len(probe_TV)} positions its first choice is one that the trained model ranks lower")
    if not base.rms > NEARER * exported.rms:
        problems.append(
            f"the base model is as near to the trained model (rms {base.rms:.3g}) as the export (rms {exported.rms:.3g}); "
            "either the export lacks what was trained, or training changed too little to tell: train longer or with a higher lr_peak"
        )
    return Verification(
        passed=not problems,
        problems=tuple(problems),
        precision=precision,
        num_tokens=probe_TV.shape[0],
        vocabulary=probe_TV.shape[1],
        logits_std=float(probe_TV.std()),
        tolerance_max=limit_max,
        tolerance_rms=limit_rms,
        tolerance_reason=reason,
        exported=exported,
        exported_fp32=difference(exported_fp32_TV, probe_TV),
        base=base,
    )


def difference(logits_TV: torch.Tensor, probe_TV: torch.Tensor, *, unit: float | None = None) -> Difference:
    """How far `logits` are from `probe`, in `unit`, by default the probe's standard deviation."""
    apart_TV = (logits_TV - probe_TV) / (probe_TV.std() if unit is None else unit)
    same = logits_TV.argmax(dim=1) == probe_TV.argmax(dim=1)
    return Difference(max=float(apart_TV.abs().max()), rms=float(apart_TV.square().mean().sqrt()), same_choice=int(same.sum()))


def tolerance(precision: Precision, rounding: Difference) -> tuple[float, float, str]:
    """(largest difference allowed, largest rms, why), for an export whose bf16 logits are `rounding` from its fp32 ones."""
    if precision == "fp32":
        return FP32_TOLERANCE, FP32_TOLERANCE, "fp32: another order of sums moves logits by a few 1e-6; 1e-4 leaves room for other hardware"
    limit_max, limit_rms = BF16_MAX_ROUNDINGS * rounding.max, BF16_RMS_ROUNDINGS * rounding.rms
    reason = (
        f"bf16: the export's own rounding, bf16 against fp32, is {rounding.max:.3g} (rms {rounding.rms:.3g}); the trained model's "
        f"logits carry as much, so {BF16_MAX_ROUNDINGS:g} times the largest and {BF16_RMS_ROUNDINGS:g} times the rms are allowed"
    )
    return limit_max, limit_rms, reason


def stop_problems(
    probe_KV: torch.Tensor, ends: Sequence[TurnEnd], generated: Sequence[tuple[int, ...]], *, limit: float
) -> tuple[int, list[str]]:
    """(turn ends after which the export stopped, one line for those after which it should have).

    It should where the trained model's first choice is the end token, by more than two right computations may differ.
    """
    stopped = [made == (end.token,) for end, made in zip(ends, generated, strict=True)]
    wrong = [index for index, end in enumerate(ends) if not stopped[index] and _ends_surely(probe_KV[end.row], end.token, 2 * limit)]
    if not wrong:
        return sum(stopped), []
    made, token = list(generated[wrong[0]]), ends[wrong[0]].token
    return sum(stopped), [f"it does not stop at {len(wrong)} of {len(ends)} turn ends: it generates {made}, the trained model {token}"]


def _ends_surely(logits_V: torch.Tensor, token: int, margin: float) -> bool:
    others_V = logits_V.clone()
    others_V[token] = float("-inf")
    return float(logits_V[token] - others_V.max()) > margin


def foreign_choices(logits_TV: torch.Tensor, probe_TV: torch.Tensor, *, limit: float) -> int:
    """Positions at which the token that `logits` rank first lies more than `limit` below the probe's first.

    Equal first choices cannot be asked for: bf16 logits near 32 come in steps of 0.25, and ties are common.
    """
    chosen_T = probe_TV.gather(1, logits_TV.argmax(dim=1, keepdim=True)).squeeze(1)
    return int((probe_TV.max(dim=1).values - chosen_T > limit).sum())
