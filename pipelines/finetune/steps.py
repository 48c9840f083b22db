"""Names of the pipeline's steps, for those who follow a run: the pipeline itself takes half a
second to import."""

STEPS = (
    "prepare_dataset",
    "render_config",
    "launch_training",
    "export_adapter",
    "evaluate",
    "write_report",
)
TASKS = ("claim_run", *STEPS, "end_run")
