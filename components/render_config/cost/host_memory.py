"""What the host of one node holds beside offload: on a CPU the heap and the start, beside GPUs what
loading, saving and resuming take."""

from components.render_config.cost.device_memory import MAX_LIVE, activation_terms
from components.render_config.cost.hardware import GIB
from components.render_config.cost.quantized import frozen_bytes, weights_formula
from components.render_config.cost.terms import term
from components.render_config.setting import Setting
from components.shared.documents.plan import MemoryTerm, ZeroPlan
from components.shared.job.training_job import shared_memory_bytes

# A process after importing torch, transformers, DeepSpeed and peft, with its gloo group: measured
# on this CPU build.
CPU_BASE = int(0.50 * GIB)
# The same with CUDA libraries: stated by others, not measured here.
GPU_HOST_BASE = 3 * GIB
# DS stage 3 divides a process's share into flat tensors of at most this many numbers
# (sub_group_size, its default).
SUB_GROUP = 1_000_000_000
# Of the two through which a process copies a checkpoint from its GPU:
# components/train/checkpoints/device_copy.py.
PINNED_BUFFER = 64 * 2**20
HEAP = 1.25
# The same of weights that come and go: gathered by ZeRO-3, or turned back from 4 bits. In full
# training their gradients come and go with them.
WEIGHTS_HEAP, WEIGHTS_HEAP_FULL = 0.4, 0.6
# Pieces of this size and more glibc maps by themselves and gives back when they are freed:
# malloc.c, DEFAULT_MMAP_THRESHOLD_MAX.
GIVEN_BACK = 32 * 2**20
LOADED_BY = "transformers 5.23 modeling_utils.py"


def cpu_host_terms(
    setting: Setting,
    zero: ZeroPlan,
    micro_batch: int,
    *,
    device: list[MemoryTerm],
    offloaded: list[MemoryTerm],
) -> list[MemoryTerm]:
    """Host memory of a node that trains on CPUs: what each process holds, `device`, and the
    rest."""
    n = setting.hardware.processes_per_node
    formula = f"{n} processes x {CPU_BASE / GIB:.2f} GiB"
    measured = "measured: benchmarks/memory_truth.py"
    base = term("libraries and interpreter", n * CPU_BASE, formula, measured)
    of_process = [*device, _heap(setting, zero, micro_batch), *_weights_heap(setting, zero)]
    of_node = [each.model_copy(update={"num_bytes": n * each.num_bytes}) for each in of_process]
    steady = [base, *of_node, *offloaded, _saving_vocabulary(setting)]
    return [*steady, _start_up(setting, zero, steady)]


def _saving_vocabulary(setting: Setting) -> MemoryTerm:
    """Embeddings and head are gathered on each process while a checkpoint is saved, and process 0
    makes one text of them, of tied ones two. LoRA's matrices are too small to count."""
    n, w, trained = setting.hardware.processes_per_node, setting.weight_bytes, setting.also
    if setting.architecture.tied and trained.whole:
        texts = 2
    else:
        texts = 1
    num_bytes = w * (n + texts) * trained.num_parameters
    formula = f"{w} B x ({n} processes + {texts}) x {trained.num_parameters:,}"
    source = "components/train/checkpoints/saving.py; safetensors save_file; not measured"
    return term("saving a checkpoint", num_bytes, formula, source)


def _heap(setting: Setting, zero: ZeroPlan, micro_batch: int) -> MemoryTerm:
    """glibc keeps what is freed between pieces that live on: 2.25 bytes resident for one of
    activations, where a low MALLOC_MMAP_THRESHOLD_, which costs a third of the speed, has 1.0
    (Llama of 135M, rows of 256 and 1,024 tokens). Gradient checkpointing frees and takes the same
    pieces, and leaves as many holes."""
    keeping_all = setting.with_spec({"training.gradient_checkpointing": False})
    terms = activation_terms(keeping_all, zero, micro_batch)
    kept = next(each.num_bytes for each in terms if each.name == "activations")
    formula = f"{HEAP} x all activations, {kept / GIB:.2f} GiB"
    measured = "measured with and without MALLOC_MMAP_THRESHOLD_=65536"
    return term("heap between activations", HEAP * kept, formula, measured)


def _weights_heap(setting: Setting, zero: ZeroPlan) -> list[MemoryTerm]:
    """Weights that are gathered by ZeRO-3 or turned back from 4 bits are freed layer by layer,
    between activations that stay. The shares were fitted to ten trainings of 135M to 350M: without
    them these were planned 2 to 26 % too low. Weights of wide models are given back at once; those
    of `hidden_size` x `hidden_size` decide."""
    w, n = setting.weight_bytes, setting.num_processes
    if w * setting.architecture.hidden_size**2 >= GIVEN_BACK:
        return []
    if zero.stage == 3 and (n > 1 or zero.offload_parameters):
        weights = setting.num_parameters
    else:
        weights = setting.quantized.num_parameters
    if not weights:
        return []
    moved = min(weights, MAX_LIVE)
    share = WEIGHTS_HEAP_FULL if setting.full else WEIGHTS_HEAP
    formula = f"{share} x {w} B x {moved:,} parameters that come and go"
    measured = "measured: benchmarks/memory_truth.py"
    return [term("heap between weights", share * w * moved, formula, measured)]


def _start_up(setting: Setting, zero: ZeroPlan, steady: list[MemoryTerm]) -> MemoryTerm:
    """What loading takes beyond the steady sum, on a CPU."""
    loading, why = _loading(setting, zero)
    libraries = setting.hardware.processes_per_node * CPU_BASE
    beyond = loading + libraries - sum(each.num_bytes for each in steady)
    return term("start-up beyond the above", max(0, beyond), why, LOADED_BY)


def gpu_host_terms(setting: Setting, zero: ZeroPlan) -> list[MemoryTerm]:
    """Host memory of a node with GPUs beside offload. Training rows are mapped from their file, and
    take none that must be there."""
    n = setting.hardware.processes_per_node
    libraries = f"{n} processes x {GPU_HOST_BASE / GIB:g} GiB"
    usual = "usual with CUDA; not measured here"
    return [
        term("libraries and interpreter", n * GPU_HOST_BASE, libraries, usual),
        max(transient(setting, zero), key=lambda each: each.num_bytes),
        term(
            "shared memory",
            shared_memory_bytes(n),
            "/dev/shm: NCCL between the processes of a node",  # noqa: S108 - a name, no file
            "a bound; no dataloader workers are used",
        ),
    ]


def transient(setting: Setting, zero: ZeroPlan) -> tuple[MemoryTerm, ...]:
    """What the host of a node with GPUs holds while it loads the weights, saves a checkpoint,
    resumes from one: never two at once, so the largest counts."""
    loading, why = _loading(setting, zero)
    source = f"{LOADED_BY}: from_pretrained before the move to the GPU"
    return (
        term("loading the weights", loading, why, source),
        _saving(setting, zero),
        _resuming(setting, zero),
    )


def _loading(setting: Setting, zero: ZeroPlan) -> tuple[float, str]:
    """Bytes of a node that hold weights while they load, and their formula."""
    w, total = setting.weight_bytes, setting.architecture.num_parameters
    quantized = setting.quantized.num_parameters
    if quantized:
        n = setting.hardware.processes_per_node
        each = weights_formula(total, quantized, w)
        why = f"{n} processes x ({each}): each loads and quantizes the whole model"
        return n * frozen_bytes(setting), why
    if zero.stage == 3:
        once = "once a node: under ZeRO-3 only its first process reads the files"
        return w * total, f"{w} B x {total:,}, {once}"
    n = setting.hardware.processes_per_node
    return n * w * total, f"{n} processes x {w} B x {total:,}: each loads the whole model"


def _saving(setting: Setting, zero: ZeroPlan) -> MemoryTerm:
    """Each process copies one tensor's memory after the other to the host, through two pinned
    buffers, and writes it.

    The largest of ZeRO is the flat fp32 share, which offload has on the host already; process 0 has
    the flat weights of stages 1 and 2 beside it. Of LoRA the whole matrices are gathered too.
    """
    n, trained = setting.hardware.processes_per_node, setting.num_trainable
    share = _largest_saved(setting, zero)
    if zero.stage in (1, 2):
        flat = setting.weight_bytes * trained
    else:
        flat = 0
    if setting.full:
        gathered = 0
    else:
        gathered = 4 * trained
    largest = f"{share:,.0f} B of the largest fp32 tensor"
    if gathered:
        largest += f" + 4 B x {trained:,} gathered"
    formula = f"{n} x (2 x {PINNED_BUFFER >> 20} MiB pinned + {largest})"
    if flat > share:
        formula += f", and on process 0 {flat:,} B of weights in its place"
    pinned = n * 2 * PINNED_BUFFER
    copies = n * (share + gathered) + max(0, flat - share)
    source = (
        "components/train/checkpoints/device_copy.py; torch 2.13 serialization.py: a tensor at a "
        "time"
    )
    return term("saving a checkpoint", pinned + copies, formula, source)


def _largest_saved(setting: Setting, zero: ZeroPlan) -> float:
    """Bytes of the largest fp32 tensor that a process copies to the host."""
    trained = setting.num_trainable
    if zero.stage == 0:
        return 4 * min(trained, setting.architecture.largest_layer_parameters)
    if zero.offload_optimizer:
        return 0
    share = 4 * trained / setting.num_processes
    if zero.stage == 3:
        return min(share, 4 * SUB_GROUP)
    return share


def _resuming(setting: Setting, zero: ZeroPlan) -> MemoryTerm:
    """The shards are mapped files, whose pages the kernel may drop; only a share that the number of
    processes does not divide is copied, to be padded. What offload keeps on the host is counted as
    such."""
    n, trained = setting.num_processes, setting.num_trainable
    is_padded = zero.stage in (1, 2) and n > 1
    if is_padded:
        padded = 4 * trained / n
    else:
        padded = 0
    formula = f"shards of 12 B x {trained:,} trained / {n} are mapped, not read"
    if padded:
        formula += f"; {padded:,.0f} B to pad the last"
    source = (
        "components/train/checkpoints/resume.py; DeepSpeed stage_1_and_2.py: _get_padded_tensor"
    )
    return term("resuming", padded, formula, source)
