"""Method and size of the model -> the peak learning rate, where the spec leaves it open.

The rates are those of published recipes for models of 7 billion parameters or more.
"""

from components.render_config.decision import Decision
from components.shared.figures import plain
from components.shared.spec.run_spec import RunSpec

ALPACA = "Stanford Alpaca (github.com/tatsu-lab/stanford_alpaca, README): 2e-5 for 7B, 1e-5 for 13B"
QLORA = "QLoRA (arXiv 2305.14314, table 9): 2e-4 for 7B and 13B, 1e-4 for 33B and 65B"
FULL_LARGE = 10e9
"""Parameters from which full training starts at half the rate: between Alpaca's two sizes."""
LORA_LARGE = 20e9
"""Parameters from which LoRA starts at half the rate: between QLoRA's 13B and 33B."""
FAR = 10
"""A rate this many times the usual one, or as many times less, is warned of."""
SMALLEST = 1e9
"""Parameters below which no rate is warned of: the recipes are of larger models."""


AS_ASKED = "as the spec asks (training.lr_peak)"


def choose_learning_rate(spec: RunSpec, num_parameters: int) -> Decision[float]:
    """The spec's rate, or the usual one of the method; a warning where the two are far apart."""
    asked, full = spec.training.lr_peak, spec.training.method == "full"
    usual, source = _usual(num_parameters, full=full)
    if full:
        how = "full training"
    else:
        how = "LoRA"
    size = f"{plain(num_parameters / 1e9)}B parameters"
    if asked == "auto":
        return Decision(usual, f"training.lr_peak is auto: for {how} of {size}, as in {source}")
    far = max(asked / usual, usual / asked) >= FAR * (1 - 1e-9)
    if not far or num_parameters < SMALLEST:
        return Decision(asked, AS_ASKED)
    caution = (
        f"training.lr_peak: {asked:g} is far from {usual:g}, which is usual for {how} of {size}, "
        f"as in {source}. Fix: set training.lr_peak: auto, which takes that"
    )
    return Decision(asked, AS_ASKED, (caution,))


def _usual(num_parameters: int, *, full: bool) -> tuple[float, str]:
    if full:
        return (1e-5 if num_parameters >= FULL_LARGE else 2e-5), ALPACA
    return (1e-4 if num_parameters >= LORA_LARGE else 2e-4), QLORA
