"""What one GPU holds at its peak, or one process on a CPU, term by term."""

from components.render_config.cost.activations import ROOTS, activations
from components.render_config.cost.hardware import GIB
from components.render_config.cost.loss import LOSS_SOURCE, loss_formula
from components.render_config.cost.quantized import (
    base_bytes,
    frozen_bytes,
    loading_whole,
    weights_formula,
    weights_turned_back,
)
from components.render_config.cost.terms import term
from components.render_config.setting import Setting
from components.shared.documents.plan import MemoryTerm, ZeroPlan

# DS stage 3 keeps up to this many gathered parameters for their next use
# (stage3_max_live_parameters, its default).
MAX_LIVE = 1_000_000_000
# Numbers: 10 MB in bf16, half a millisecond at 20 GB/s, where starting an all-reduce takes some 20
# microseconds (not measured here).
LEAST_BUCKET = 5_000_000
# Numbers that DS reduces without ZeRO, and gathers of updated weights, at a time (its defaults).
MOST_AT_ONCE = 500_000_000
# What CUDA and NCCL take of a GPU: stated by others, not measured here.
CUDA_CONTEXT, NCCL_BUFFERS = int(0.6 * GIB), int(0.4 * GIB)


def device_terms(setting: Setting, zero: ZeroPlan, micro_batch: int) -> list[MemoryTerm]:
    """Terms of one GPU, or of one process on a CPU."""
    terms = [
        _weights(setting, zero),
        *_gathered(setting, zero),
        _gradients(setting, zero, micro_batch),
        *_optimizer(setting, zero),
        *_buckets(setting, zero),
        *activation_terms(setting, zero, micro_batch),
        weights_turned_back(setting.quantized.largest, setting.weight_bytes),
        *_dora(setting, zero),
    ]
    if setting.on_gpu and setting.quantized.num_parameters and zero.stage == 3:
        terms.append(loading_whole(frozen_bytes(setting), sum(each.num_bytes for each in terms)))
    if setting.on_gpu:
        if setting.num_processes > 1:
            comm = NCCL_BUFFERS
        else:
            comm = 0
        usual = "usual size; not measured here"
        terms.append(term("CUDA context and NCCL", CUDA_CONTEXT + comm, "a fixed share", usual))
    return terms


def _weights(setting: Setting, zero: ZeroPlan) -> MemoryTerm:
    total, w = setting.num_parameters, setting.weight_bytes
    source = "ZeRO (arXiv 1910.02054), section 5"
    if zero.offload_parameters:
        return term("weights", 0, "in host memory", source)
    if zero.stage == 3:
        shared = setting.num_processes
    else:
        shared = 1
    quantized = setting.quantized.num_parameters
    formula = weights_formula(total, quantized, w)
    if shared > 1:
        formula += f" / {shared} processes"
    return term("weights", base_bytes(total, quantized, w) / shared, formula, source)


def _gathered(setting: Setting, zero: ZeroPlan) -> list[MemoryTerm]:
    """ZeRO-3 holds whole layers while they are used, and keeps them for their next use up to a
    limit. Weights in 4 bits are gathered as they are; the largest weight of nearly every model is
    its embedding, which is not in 4 bits."""
    comes_from_host = zero.offload_parameters and setting.on_gpu
    # One process has all of it already: DS partition_parameters.py, _no_gather_coalesced.
    if zero.stage < 3 or (setting.num_processes == 1 and not comes_from_host):
        return []
    total, w = setting.num_parameters, setting.weight_bytes
    largest = setting.architecture.largest_layer_parameters
    quantized = setting.quantized.num_parameters
    live = min(base_bytes(total, quantized, w), w * (MAX_LIVE + largest))
    kept = f"{w} B x min({total:,} parameters, {MAX_LIVE:,} kept + the largest)"
    if quantized:
        whole = weights_formula(total, quantized, w)
        kept = f"the smaller of {whole}, and {w} B x ({MAX_LIVE:,} kept + the largest)"
    source = "DeepSpeed stage3_max_live_parameters, and one all-gather of the largest weight"
    return [
        term("gathered layers", live, kept, source),
        term("gathering the largest weight", w * largest, f"{w} B x {largest:,}", source),
    ]


def _gradients(setting: Setting, zero: ZeroPlan, micro_batch: int) -> MemoryTerm:
    """Stages 2 and 3 keep a process's own share; below, all of them. In flight is the largest
    single one."""
    trained, divided = setting.num_trainable, zero.stage >= 2
    source = "DeepSpeed stage_1_and_2.py, stage3.py: grad_partitions_flat_buffer"
    in_flight = setting.weight_bytes * min(setting.largest_trained, trained)
    if divided and zero.offload_optimizer:
        return term("gradients", in_flight, "the largest one, on its way to the host", source)
    if divided:
        shared = setting.num_processes
    else:
        shared = 1
    summed = gradient_bytes(setting, zero, micro_batch)
    num_bytes, formula = summed * trained / shared, f"{summed} B x {trained:,} trained / {shared}"
    if shared > 1 and in_flight:
        num_bytes, formula = num_bytes + in_flight, f"{formula}, and one in flight"
    return term("gradients", num_bytes, formula, source)


def gradient_bytes(setting: Setting, zero: ZeroPlan, micro_batch: int) -> int:
    """Of one number in the sum over micro-batches."""
    if setting.sums_in_fp32(zero, micro_batch):
        return 4
    return setting.weight_bytes


def _optimizer(setting: Setting, zero: ZeroPlan) -> list[MemoryTerm]:
    """Adam's two moments and the fp32 copy that it updates, in shares from stage 1 on; at the step
    the share's gradient in fp32."""
    if zero.offload_optimizer:
        return []
    if zero.stage >= 1:
        shared = setting.num_processes
    else:
        shared = 1
    share = setting.num_trainable / shared
    source = "ZeRO section 3.1: 12 B a trained parameter; DeepSpeed stage_1_and_2.py, stage3.py"
    over = f" x {setting.num_trainable:,} trained / {shared}"
    trains_in_fp32 = zero.stage == 0 and setting.weight_bytes == 4
    if trains_in_fp32:
        copies = 0
    else:
        copies = 4
    return [
        term("optimizer state", 8 * share, f"8 B{over}", source),
        term("fp32 weights", copies * share, f"{copies} B{over}", source),
        term("fp32 gradients at the step", copies * share, f"{copies} B{over}", source),
    ]


def _buckets(setting: Setting, zero: ZeroPlan) -> list[MemoryTerm]:
    """Two buckets for reducing gradients while the backward pass goes on (overlap_comm), of LoRA
    one; one of 0.9 h² for gathering ahead; stage 0 reduces all it has at once."""
    w, trained = setting.weight_bytes, setting.num_trainable
    if setting.num_processes > 1:
        at_once = min(trained, MOST_AT_ONCE)
    else:
        at_once = 0
    formula = f"{w} B x {at_once:,}"
    if zero.stage == 0:
        source = "DeepSpeed engine.py, buffered_allreduce_fallback"
        return [term("reducing gradients", w * at_once, formula, source)]
    copied_by_gloo = zero.stage < 3 and not setting.on_gpu
    if not copied_by_gloo:
        at_once, formula = 0, f"{w} B x 0"
    source = "DeepSpeed allgather_bucket_size; gloo copies"
    gathered = term("gathering updated weights", w * at_once, formula, source)
    hidden_size = setting.architecture.hidden_size
    if zero.stage == 3:
        ahead = 0.9 * hidden_size**2
    else:
        ahead = 0
    most = min(reduce_bucket(hidden_size), trained)
    if setting.full:
        num_buckets = 2
    else:
        num_buckets = 1
    formula = f"{w} B x ({num_buckets} x {most:,} + {ahead:,.0f})"
    source = "DeepSpeed reduce_bucket_size, stage3_prefetch_bucket_size"
    num_bytes = w * (num_buckets * most + ahead)
    return [gathered, term("communication buckets", num_bytes, formula, source)]


def reduce_bucket(hidden_size: int) -> int:
    """transformers' rule, h² (integrations/deepspeed.py), but never so few that an exchange takes
    less time than its start: of a model with a hidden size of 576 it would be 0.7 MB."""
    return max(hidden_size**2, LEAST_BUCKET)


def activation_terms(setting: Setting, zero: ZeroPlan, micro_batch: int) -> list[MemoryTerm]:
    made = activations(setting, zero, micro_batch)
    at = f"{micro_batch} x {setting.rows.longest_tokens:,} tokens"
    kept = "all that the backward pass reads"
    if setting.checkpointing:
        kept = "only each block's input, under gradient checkpointing"
    blocks = f"{setting.architecture.num_blocks} blocks x {at}: {kept}"
    backward = made.block_again + made.backward
    loss = f"the larger of {loss_formula(setting, micro_batch)} and one block backward"
    return [
        term("activations", made.blocks, blocks, ROOTS),
        term("attention masks", made.masks, _masks_formula(setting, micro_batch), ROOTS),
        term("loss or backward pass", max(made.logits, backward), loss, LOSS_SOURCE),
        term(
            "experts' weights with their update",
            made.expert_weights,
            "all experts that LoRA trains",
            "PEFT 0.21 ParamWrapper",
        ),
    ]


def _dora(setting: Setting, zero: ZeroPlan) -> list[MemoryTerm]:
    """The largest adapted weight is made anew with its update, to measure its rows: the update, its
    copy in the weight's format, and the sum."""
    if not setting.spec.lora.dora or not setting.adapted:
        return []
    size, w = setting.matrix_bytes(zero), setting.weight_bytes
    largest = max(each.num_inputs * each.num_outputs for each in setting.adapted)
    return [
        term(
            "weights with their update",
            (size + 2 * w) * largest,
            f"({size} + 2 x {w} B) x {largest:,}, the largest weight with an update",
            "PEFT 0.21 lora/dora.py, get_lora_weight and get_weight_norm; not measured",
        )
    ]


def _masks_formula(setting: Setting, micro_batch: int) -> str:
    if setting.checkpointing:
        each = "once"
    else:
        each = "each block with attention"
    of_row = f"{micro_batch} x {setting.rows.longest_tokens:,}²"
    return f"{of_row} x (1 B once + {setting.weight_bytes} B {each})"
