"""Model, training and ZeRO -> peak memory of one GPU and of one node's host, term by term, each
with its formula and its source.

P parameters, T those trained, w bytes of a weight (2 in bf16, 4 in fp32), N processes, n of them on
a node, h hidden size. On a CPU the "GPU" is host memory too: the same terms, once a process. DS in
comments is DeepSpeed 0.19.
"""

from dataclasses import dataclass, replace

from components.render_config.choose.output_layer import CHUNK_BYTES, WHOLE_BYTES
from components.render_config.cost.activations import ROOTS, Pass, activations
from components.render_config.cost.hardware import GIB
from components.render_config.cost.quantized import (
    base_bytes,
    loading_whole,
    weights_formula,
    weights_turned_back,
)
from components.render_config.model.shapes import Architecture, Linear
from components.shared.documents.plan import Memory, MemoryTerm, ZeroPlan
from components.shared.job.training_job import shared_memory_bytes

# DS stage 3 keeps up to this many gathered parameters for their next use
# (stage3_max_live_parameters, its default).
MAX_LIVE = 1_000_000_000
# DS stage 3 divides a process's share into flat tensors of at most this many numbers
# (sub_group_size, its default).
SUB_GROUP = 1_000_000_000
# Numbers: 10 MB in bf16, half a millisecond at 20 GB/s, where starting an all-reduce takes some 20
# microseconds (not measured here).
LEAST_BUCKET = 5_000_000
# A process after importing torch, transformers, DeepSpeed and peft, with its gloo group: measured
# on this CPU build.
CPU_BASE = int(0.50 * GIB)
# The same with CUDA libraries, and what CUDA and NCCL take of a GPU: stated by others, not measured
# here.
GPU_HOST_BASE, CUDA_CONTEXT, NCCL_BUFFERS = 3 * GIB, int(0.6 * GIB), int(0.4 * GIB)
# Of the two through which a process copies a checkpoint from its GPU:
# components/train/checkpoints/device_copy.py.
PINNED_BUFFER = 64 * 2**20
LOSS_SOURCE = (
    "logits, log-probabilities and their gradients: components/train/model/output_layer.py in "
    "chunks, else transformers loss_utils.py"
)
HEAP = 1.25
# From this many micro-batches on, the error of a sum of gradients in bf16 is above that of one bf16
# gradient: 0.2 % of the exact sum at 4, 0.8 % at 64, 1.6 % at 256, where bf16 itself has 0.6 %
# (measured, tiny Llama). In fp32 it is 0 at ZeRO-2 and 3.
MANY_MICRO_BATCHES = 64

# Kinds of memory, as the figure of the ZeRO paper has them (arXiv 1910.02054, figure 1), with
# activations and the rest beside.
KINDS = {
    "weights": (
        "weights",
        "gathered layers",
        "gathering the largest weight",
        "loading the weights",
        "start-up beyond the above",
        "updated weights for the GPU",
        "gathering updated weights",
        "experts' weights with their update",
        "weights turned back from 4 bits",
        "loading the whole model in 4 bits",
    ),
    "gradients": (
        "gradients",
        "fp32 gradients",
        "fp32 gradients at the step",
        "gradients from the GPU",
        "reducing gradients",
        "communication buckets",
    ),
    "optimizer state": ("optimizer state", "fp32 weights", "saving a checkpoint", "resuming"),
    "activations": (
        "activations",
        "attention masks",
        "loss or backward pass",
        "heap between activations",
    ),
    "all else": ("CUDA context and NCCL", "libraries and interpreter", "shared memory"),
}
KIND_OF = {name: kind for kind, names in KINDS.items() for name in names}


@dataclass(frozen=True)
class Job:
    """What memory depends on beside the model."""

    zero: ZeroPlan
    num_processes: int
    processes_per_node: int
    on_gpu: bool
    weight_bytes: int
    num_trainable: int
    full: bool
    micro_batch: int
    row_tokens: int
    grad_accum: int
    checkpointing: bool
    adapted: tuple[Linear, ...]
    experts_adapted: bool
    rank: int
    loss_chunk_tokens: int | None = None
    """Tokens whose logits are made at a time; None: of all tokens at once."""
    masked_attention: bool = True
    """See `Pass`."""
    num_quantized: int = 0
    """Parameters held in 4 bits."""
    largest_quantized: int = 0
    """Of the largest weight in 4 bits."""

    @property
    def gradient_bytes(self) -> int:
        """Of one number in the sum over micro-batches."""
        return (
            4
            if sums_in_fp32(self.zero, weight_bytes=self.weight_bytes, grad_accum=self.grad_accum)
            else self.weight_bytes
        )


def sums_in_fp32(zero: ZeroPlan, *, weight_bytes: int, grad_accum: int) -> bool:
    """Whether gradients of 16 bits are summed over the micro-batches of a step in fp32: of many,
    where DeepSpeed 0.19 can.

    It refuses to without ZeRO, and at ZeRO-1 loses the gain when it reduces (0.17 % against 0).
    """
    return weight_bytes == 2 and zero.stage >= 2 and grad_accum >= MANY_MICRO_BATCHES


def memory(architecture: Architecture, job: Job) -> Memory:
    """Peak of one GPU, and of one node's host. On a CPU the first is empty and the second holds
    both."""
    device, offloaded = _device(architecture, job), _offloaded(architecture, job)
    if job.on_gpu:
        host = _shown([*_gpu_host(architecture, job), *offloaded])
        return Memory(gpu=_shown(device), host=host, transient=transient(architecture, job))
    n = job.processes_per_node
    heap = _heap(architecture, job)
    each = [
        MemoryTerm(**{**vars(term), "num_bytes": n * term.num_bytes}) for term in (*device, heap)
    ]
    base = MemoryTerm(
        name="libraries and interpreter",
        num_bytes=n * CPU_BASE,
        formula=f"{n} processes x {CPU_BASE / GIB:.2f} GiB",
        source="measured: benchmarks/memory_truth.py",
    )
    steady = [base, *each, *offloaded]
    return Memory(gpu=(), host=_shown([*steady, _start_up(architecture, job, steady)]))


def by_kind(terms: tuple[MemoryTerm, ...]) -> dict[str, int]:
    """Bytes of each of KINDS that there is."""
    found = dict.fromkeys(KINDS, 0)
    for term in terms:
        found[KIND_OF[term.name]] += term.num_bytes
    return {kind: num_bytes for kind, num_bytes in found.items() if num_bytes}


def _heap(architecture: Architecture, job: Job) -> MemoryTerm:
    """glibc keeps what is freed between pieces that live on: 2.25 bytes resident for one of
    activations, where a low MALLOC_MMAP_THRESHOLD_, which costs a third of the speed, has 1.0
    (Llama of 135M, rows of 256 and 1,024 tokens). Gradient checkpointing frees and takes the same
    pieces, and leaves as many holes."""
    terms = _activations(architecture, replace(job, checkpointing=False))
    kept = next(term.num_bytes for term in terms if term.name == "activations")
    formula = f"{HEAP} x all activations, {kept / GIB:.2f} GiB"
    return _term(
        "heap between activations",
        HEAP * kept,
        formula,
        "measured with and without MALLOC_MMAP_THRESHOLD_=65536",
    )


def _shown(terms: list[MemoryTerm]) -> tuple[MemoryTerm, ...]:
    return tuple(term for term in terms if term.num_bytes)


def _device(architecture: Architecture, job: Job) -> list[MemoryTerm]:
    """Terms of one GPU, or of one process on a CPU."""
    terms = [
        _weights(architecture, job),
        *_gathered(architecture, job),
        _gradients(architecture, job),
        *_optimizer(job),
        *_buckets(architecture, job),
    ]
    terms += _activations(architecture, job)
    terms.append(weights_turned_back(job.largest_quantized, job.weight_bytes))
    if job.on_gpu and job.num_quantized and job.zero.stage == 3:
        whole = base_bytes(architecture.num_parameters, job.num_quantized, job.weight_bytes)
        terms.append(loading_whole(whole, sum(term.num_bytes for term in terms)))
    if job.on_gpu:
        comm = NCCL_BUFFERS if job.num_processes > 1 else 0
        terms.append(
            _term(
                "CUDA context and NCCL",
                CUDA_CONTEXT + comm,
                "a fixed share",
                "usual size; not measured here",
            )
        )
    return terms


def _term(name: str, num_bytes: float, formula: str, source: str) -> MemoryTerm:
    return MemoryTerm(name=name, num_bytes=round(num_bytes), formula=formula, source=source)


def _weights(architecture: Architecture, job: Job) -> MemoryTerm:
    total, w, source = (
        _all_parameters(architecture, job),
        job.weight_bytes,
        "ZeRO (arXiv 1910.02054), section 5",
    )
    if job.zero.offload_parameters:
        return _term("weights", 0, "in host memory", source)
    shared = job.num_processes if job.zero.stage == 3 else 1
    return _term(
        "weights",
        base_bytes(total, job.num_quantized, w) / shared,
        weights_formula(total, job.num_quantized, w)
        + (f" / {shared} processes" if shared > 1 else ""),
        source,
    )


def _all_parameters(architecture: Architecture, job: Job) -> int:
    """LoRA's matrices come on top of the model's own."""
    return architecture.num_parameters + (0 if job.full else job.num_trainable)


def _gathered(architecture: Architecture, job: Job) -> list[MemoryTerm]:
    """ZeRO-3 holds whole layers while they are used, and keeps them for their next use up to a
    limit."""
    if job.zero.stage < 3 or (
        job.num_processes == 1 and not (job.zero.offload_parameters and job.on_gpu)
    ):
        # one process has all of it already: DS partition_parameters.py, _no_gather_coalesced
        return []
    total, w = _all_parameters(architecture, job), job.weight_bytes
    live = min(total, MAX_LIVE + architecture.largest_layer_parameters)
    source = "DeepSpeed stage3_max_live_parameters, and one all-gather of the largest weight"
    return [
        _term(
            "gathered layers",
            w * live,
            f"{w} B x min({total:,} parameters, {MAX_LIVE:,} kept + the largest)",
            source,
        ),
        _term(
            "gathering the largest weight",
            w * architecture.largest_layer_parameters,
            f"{w} B x {architecture.largest_layer_parameters:,}",
            source,
        ),
    ]


def _gradients(architecture: Architecture, job: Job) -> MemoryTerm:
    """Stages 2 and 3 keep a process's own share; below, all of them. In flight is the largest
    single one."""
    trained, w, source = (
        job.num_trainable,
        job.weight_bytes,
        "DeepSpeed stage_1_and_2.py, stage3.py: grad_partitions_flat_buffer",
    )
    flight = w * min(architecture.largest_layer_parameters if job.full else 0, trained)
    if job.zero.stage >= 2 and job.zero.offload_optimizer:
        return _term("gradients", flight, "the largest one, on its way to the host", source)
    shared = job.num_processes if job.zero.stage >= 2 else 1
    flight = flight if shared > 1 else 0
    summed = job.gradient_bytes
    return _term(
        "gradients",
        summed * trained / shared + flight,
        f"{summed} B x {trained:,} trained / {shared}" + (", and one in flight" if flight else ""),
        source,
    )


def _optimizer(job: Job) -> list[MemoryTerm]:
    """Adam's two moments and the fp32 copy that it updates, in shares from stage 1 on; at the step
    the share's gradient in fp32."""
    if job.zero.offload_optimizer:
        return []
    shared = job.num_processes if job.zero.stage >= 1 else 1
    share, source = (
        job.num_trainable / shared,
        "ZeRO section 3.1: 12 B a trained parameter; DeepSpeed stage_1_and_2.py, stage3.py",
    )
    over = f" x {job.num_trainable:,} trained / {shared}"
    copies = 0 if job.zero.stage == 0 and job.weight_bytes == 4 else 4
    return [
        _term("optimizer state", 8 * share, f"8 B{over}", source),
        _term("fp32 weights", copies * share, f"{copies} B{over}", source),
        _term("fp32 gradients at the step", copies * share, f"{copies} B{over}", source),
    ]


def _buckets(architecture: Architecture, job: Job) -> list[MemoryTerm]:
    """Two buckets for reducing gradients while the backward pass goes on (overlap_comm), of LoRA
    one; one of 0.9 h² for gathering ahead; stage 0 reduces all it has at once."""
    w, bucket = job.weight_bytes, bucket_size(architecture)
    if job.zero.stage == 0:
        at_once = min(job.num_trainable, 500_000_000) if job.num_processes > 1 else 0
        return [
            _term(
                "reducing gradients",
                w * at_once,
                f"{w} B x {at_once:,}",
                "DeepSpeed engine.py, buffered_allreduce_fallback",
            )
        ]
    ahead = 0.9 * architecture.hidden_size**2 if job.zero.stage == 3 else 0
    most = min(bucket, job.num_trainable)
    num_buckets = 2 if job.full else 1
    shared = job.zero.stage < 3 and job.num_processes > 1 and not job.on_gpu
    gathered = min(job.num_trainable, 500_000_000) if shared else 0
    return [
        _term(
            "gathering updated weights",
            w * gathered,
            f"{w} B x {gathered:,}",
            "DeepSpeed allgather_bucket_size; gloo copies",
        ),
        _term(
            "communication buckets",
            w * (num_buckets * most + ahead),
            f"{w} B x ({num_buckets} x {most:,} + {ahead:,.0f})",
            "DeepSpeed reduce_bucket_size, stage3_prefetch_bucket_size",
        ),
    ]


def bucket_size(architecture: Architecture) -> int:
    """Numbers in DeepSpeed's reduce bucket."""
    return reduce_bucket(architecture.hidden_size)


def reduce_bucket(hidden_size: int) -> int:
    """transformers' rule, h² (integrations/deepspeed.py), but never so few that an exchange takes
    less time than its start: of a model with a hidden size of 576 it would be 0.7 MB."""
    return max(hidden_size**2, LEAST_BUCKET)


def _activations(architecture: Architecture, job: Job) -> list[MemoryTerm]:
    work = Pass(
        micro_batch=job.micro_batch,
        row_tokens=job.row_tokens,
        weight_bytes=job.weight_bytes,
        full=job.full,
        adapted=job.adapted,
        experts_adapted=job.experts_adapted,
        rank=job.rank,
        checkpointing=job.checkpointing,
        fp32_adapters=job.zero.stage == 3 and job.weight_bytes == 2,
        loss_chunk_tokens=job.loss_chunk_tokens,
        masked_attention=job.masked_attention,
    )
    made = activations(architecture, work)
    at = f"{work.micro_batch} x {work.row_tokens:,} tokens"
    again = made.block_again + made.backward
    kept = (
        "only each block's input, under gradient checkpointing"
        if job.checkpointing
        else "all that the backward pass reads"
    )
    return [
        _term(
            "activations", made.blocks, f"{architecture.num_blocks} blocks x {at}: {kept}", ROOTS
        ),
        _term("attention masks", made.masks, _masks_formula(work), ROOTS),
        _term(
            "loss or backward pass",
            max(made.logits, again),
            f"the larger of {_loss_formula(architecture, work)} and one block backward",
            LOSS_SOURCE,
        ),
        _term(
            "experts' weights with their update",
            made.expert_weights,
            "all experts that LoRA trains",
            "PEFT 0.21 ParamWrapper",
        ),
    ]


def _loss_formula(architecture: Architecture, work: Pass) -> str:
    words, size = f"{architecture.vocabulary:,}", work.weight_bytes
    if work.loss_chunk_tokens is None:
        at = f"{work.micro_batch} x {work.row_tokens:,} tokens"
        return f"{WHOLE_BYTES[size]} B x {at} x {words}"
    tokens = min(work.loss_chunk_tokens, work.tokens)
    chunk = f"{CHUNK_BYTES[size]} B x {tokens:,} tokens x {words}"
    hidden = f"{2 * size} B x {work.tokens:,} tokens x {architecture.hidden_size:,}"
    trained = f" + {4 + size} B x {words} x {architecture.hidden_size:,}" if work.full else ""
    return f"{chunk} + {hidden}{trained}"


def _masks_formula(work: Pass) -> str:
    each = "once" if work.checkpointing else "each block with attention"
    return f"{work.micro_batch} x {work.row_tokens:,}² x (1 B once + {work.weight_bytes} B {each})"


def _offloaded(architecture: Architecture, job: Job) -> list[MemoryTerm]:
    """Host memory of one node that offload spends: each process its share, page-locked on a machine
    with GPUs."""
    n, share, w = job.processes_per_node, job.num_trainable / job.num_processes, job.weight_bytes
    of_node = f" x {job.num_trainable:,} trained / {job.num_processes} x {n} on a node"
    terms: list[MemoryTerm] = []
    if job.zero.offload_optimizer:
        source = "ZeRO-Offload (arXiv 2101.06840), section 3; DeepSpeed stage_1_and_2.py, stage3.py"
        low = job.gradient_bytes if job.zero.stage == 3 or job.grad_accum > 1 else 0
        terms.append(_term("optimizer state", 8 * share * n, f"8 B{of_node}", source))
        terms.append(
            _term(
                "fp32 weights", n * _pinned(4 * share, job), f"4 B{of_node}{_locked(job)}", source
            )
        )
        terms.append(
            _term(
                "fp32 gradients", n * _pinned(4 * share, job), f"4 B{of_node}{_locked(job)}", source
            )
        )
        half = w if job.zero.stage < 3 else 0
        terms.append(
            _term(
                "updated weights for the GPU",
                n * _pinned(half * share, job),
                f"{half} B{of_node}{_locked(job)}",
                source,
            )
        )
        terms.append(
            _term(
                "gradients from the GPU",
                n * _pinned(low * share, job),
                f"{low} B{of_node}{_locked(job)}",
                source,
            )
        )
    if job.zero.offload_parameters:
        total = _all_parameters(architecture, job)
        size = n * _pinned(w * total / job.num_processes, job)
        formula = (
            f"{w} B x {total:,} parameters / {job.num_processes} x {n} on a node{_locked(job)}"
        )
        terms.append(_term("weights", size, formula, "ZeRO-Infinity (arXiv 2104.07857), section 5"))
    return terms


def _pinned(num_bytes: float, job: Job) -> float:
    """torch rounds a page-locked buffer up to a power of two (CachingHostAllocator); DeepSpeed
    makes at most 4 GB each (sub_group_size)."""
    if not job.on_gpu or num_bytes < 1:
        return num_bytes
    whole, rest = divmod(num_bytes, 4e9)
    return whole * 2**32 + (2 ** (int(rest) - 1).bit_length() if rest > 1 else 0)


def _locked(job: Job) -> str:
    return ", page-locked: rounded up to powers of two" if job.on_gpu else ""


def _gpu_host(architecture: Architecture, job: Job) -> list[MemoryTerm]:
    """Host memory of a node with GPUs beside offload. Training rows are mapped from their file, and
    take none that must be there."""
    n = job.processes_per_node
    return [
        _term(
            "libraries and interpreter",
            n * GPU_HOST_BASE,
            f"{n} processes x {GPU_HOST_BASE / GIB:g} GiB",
            "usual with CUDA; not measured here",
        ),
        max(transient(architecture, job), key=lambda term: term.num_bytes),
        _term(
            "shared memory",
            shared_memory_bytes(n),
            "/dev/shm: NCCL between the processes of a node",  # noqa: S108 - a name, no file
            "a bound; no dataloader workers are used",
        ),
    ]


def transient(architecture: Architecture, job: Job) -> tuple[MemoryTerm, ...]:
    """What the host of a node with GPUs holds while it loads the weights, saves a checkpoint,
    resumes from one: never two at once, so the largest counts. Empty on a CPU, whose host holds the
    training itself."""
    if not job.on_gpu:
        return ()
    loading, why = _loading(architecture, job)
    source = "transformers 5.23 modeling_utils.py: from_pretrained before the move to the GPU"
    return (
        _term("loading the weights", loading, why, source),
        _saving(architecture, job),
        _resuming(job),
    )


def _saving(architecture: Architecture, job: Job) -> MemoryTerm:
    """Each process copies one tensor's memory after the other to the host, through two pinned
    buffers, and writes it.

    The largest of ZeRO is the flat fp32 share, which offload has on the host already; process 0 has
    the flat weights of stages 1 and 2 beside it. Of LoRA the whole matrices are gathered too.
    """
    n, trained = job.processes_per_node, job.num_trainable
    pinned = n * 2 * PINNED_BUFFER
    share = 0 if job.zero.offload_optimizer else 4 * trained / job.num_processes
    if job.zero.stage == 0:
        share = 4 * min(trained, architecture.largest_layer_parameters)
    if job.zero.stage == 3:
        share = min(share, 4 * SUB_GROUP)
    flat = job.weight_bytes * trained if job.zero.stage in (1, 2) else 0
    gathered = 0 if job.full else 4 * trained
    formula = (
        f"{n} x (2 x {PINNED_BUFFER >> 20} MiB pinned + {share:,.0f} B of the largest fp32 tensor"
    )
    formula += f" + 4 B x {trained:,} gathered)" if gathered else ")"
    if flat > share:
        formula += f", and on process 0 {flat:,} B of weights in its place"
    copies = n * (share + gathered) + max(0, flat - share)
    return _term(
        "saving a checkpoint",
        pinned + copies,
        formula,
        (
            "components/train/checkpoints/device_copy.py; torch 2.13 serialization.py: a tensor "
            "at a time"
        ),
    )


def _resuming(job: Job) -> MemoryTerm:
    """The shards are mapped files, whose pages the kernel may drop; only a share that the number of
    processes does not divide is copied, to be padded. What offload keeps on the host is counted as
    such."""
    is_padded = job.zero.stage in (1, 2) and job.num_processes > 1
    padded = 4 * job.num_trainable / job.num_processes if is_padded else 0
    formula = (
        f"shards of 12 B x {job.num_trainable:,} trained / {job.num_processes} are mapped, not read"
    )
    formula += f"; {padded:,.0f} B to pad the last" if padded else ""
    return _term(
        "resuming",
        padded,
        formula,
        "components/train/checkpoints/resume.py; DeepSpeed stage_1_and_2.py: _get_padded_tensor",
    )


def _loading(architecture: Architecture, job: Job) -> tuple[float, str]:
    """Bytes of a node that hold weights while they load."""
    w, total, n = job.weight_bytes, architecture.num_parameters, job.processes_per_node
    if job.num_quantized:
        each = weights_formula(total, job.num_quantized, w)
        return (
            n * base_bytes(total, job.num_quantized, w),
            f"{n} processes x ({each}): each loads and quantizes the whole model",
        )
    if job.zero.stage == 3:
        return (
            w * total,
            f"{w} B x {total:,}, once a node: under ZeRO-3 only its first process reads the files",
        )
    return n * w * total, f"{n} processes x {w} B x {total:,}: each loads the whole model"


def _start_up(architecture: Architecture, job: Job, steady: list[MemoryTerm]) -> MemoryTerm:
    """What loading takes beyond the steady sum, on a CPU."""
    loading, why = _loading(architecture, job)
    beyond = loading + job.processes_per_node * CPU_BASE - sum(term.num_bytes for term in steady)
    return _term(
        "start-up beyond the above", max(0, beyond), why, "transformers 5.23 modeling_utils.py"
    )
