"""Whether a merged model is exported beside the adapter; known without reading a weight."""

from dataclasses import dataclass

from components.shared.documents.plan import Plan
from components.shared.errors import RunFailed
from components.shared.model.registry import model_families
from components.shared.spec.results import ExportSpec


@dataclass(frozen=True)
class MergeDecision:
    merges: bool
    reason: str


def merge_decision(asked: ExportSpec, plan: Plan) -> MergeDecision:
    """Whether a merged model is exported beside the adapter. Raises RunFailed where it is asked for
    and cannot be made."""
    if plan.lora is None:
        return MergeDecision(False, "full training has no adapter")
    if asked.merge is False:
        return MergeDecision(False, "export.merge is false")
    if plan.lora.target_parameters:
        if asked.merge is True:
            raise RunFailed(
                "export.merge: found true, but the adapter changes experts' weights, which cannot "
                "be merged. Fix: set false"
            )
        return MergeDecision(False, "the adapter changes experts' weights, which cannot be merged")
    if asked.merge is True:
        return MergeDecision(True, "export.merge is true")
    if plan.lora.dora:
        return MergeDecision(True, "vLLM loads no DoRA")
    if plan.lora.changes_vocabulary:
        return MergeDecision(True, "vLLM loads no adapter with trained embeddings or head")
    unserved = {family.model_type for family in model_families() if family.merge}
    if plan.model.model_type in unserved:
        return MergeDecision(True, f"vLLM loads no adapter of {plan.model.model_type}")
    return MergeDecision(False, f"vLLM loads an adapter of {plan.model.model_type}")
