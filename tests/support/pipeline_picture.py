"""docs/images/pipeline-light.svg and pipeline-dark.svg: the pipeline on one screen."""

STEPS = (
    ("prepare_dataset", "dataset/", "rows, quality report"),
    ("render_config", "plan/", "steps, ZeRO, LoRA, job"),
    ("launch_training", "checkpoints/", "one per epoch, in S3"),
    ("export_adapter", "adapter/", "loaded and compared"),
    ("evaluate", "evaluation/", "gate, answers"),
    ("write_report", "report/", "one page"),
)
COLOURS = {
    "light": {"line": "#57606a", "box": "#f6f8fa", "text": "#1f2328", "accent": "#0b5cad"},
    "dark": {"line": "#8b949e", "box": "#161b22", "text": "#e6edf3", "accent": "#79c0ff"},
}
WIDTH, HEIGHT, BOX, GAP, TOP = 980, 190, 146, 16, 60


def picture(scheme: str) -> str:
    """An SVG of WIDTH x HEIGHT, its background transparent."""
    colours = COLOURS[scheme]
    title = "spec.yaml goes through six steps to a verified adapter and a report"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{title}" font-family="system-ui, sans-serif">',
        _text(10, 24, "spec.yaml", colours["accent"], 16, bold=True),
        _text(122, 24, "model, data, method, hardware", colours["text"], 13),
        f'<path d="M 80 34 V {TOP - 4}" stroke="{colours["line"]}" stroke-width="1.5"/>',
    ]
    for number, (step, folder, what) in enumerate(STEPS):
        x = 10 + number * (BOX + GAP)
        parts += [
            f'<rect x="{x}" y="{TOP}" width="{BOX}" height="72" rx="8" fill="{colours["box"]}" '
            f'stroke="{colours["line"]}"/>',
            _text(x + 9, TOP + 22, step, colours["text"], 13, bold=True),
            _text(x + 9, TOP + 43, folder, colours["accent"], 13),
            _text(x + 9, TOP + 61, what, colours["text"], 11),
        ]
        if number < len(STEPS) - 1:
            parts.append(_arrow(x + BOX, colours["line"]))
    below = (
        "The same steps run on a laptop, in Kubeflow Pipelines, on a schedule, or from Git. "
        "A killed run resumes from its newest checkpoint."
    )
    parts += [_text(10, TOP + 104, below, colours["text"], 13), "</svg>"]
    return "\n".join(parts) + "\n"


def _text(x: float, y: float, text: str, colour: str, size: float, *, bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    return f'<text x="{x}" y="{y}" fill="{colour}" font-size="{size}"{weight}>{text}</text>'


def _arrow(x: int, colour: str) -> str:
    y = TOP + 36
    return (
        f'<path d="M {x + 2} {y} H {x + GAP - 3} m -4 -4 l 4 4 l -4 4" fill="none" '
        f'stroke="{colour}" stroke-width="1.5"/>'
    )
