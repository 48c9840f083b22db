"""What hagane asks of a KFP server -> the objects of the server's published client."""

from collections.abc import Mapping
from typing import Any

import kfp_server_api

from pipelines.kfp_api.versions import UploadedVersion


def run_of(
    version: UploadedVersion,
    *,
    name: str,
    experiment_id: str | None,
    parameters: Mapping[str, Any],
    service_account: str | None,
) -> kfp_server_api.V2beta1Run:
    """One run of an uploaded version, to start now."""
    return kfp_server_api.V2beta1Run(
        display_name=name,
        experiment_id=experiment_id,
        pipeline_version_reference=_reference(version),
        runtime_config=kfp_server_api.V2beta1RuntimeConfig(parameters=dict(parameters)),
        service_account=service_account or None,
    )


def recurring_run_of(
    version: UploadedVersion,
    *,
    name: str,
    description: str,
    experiment_id: str | None,
    parameters: Mapping[str, Any],
    service_account: str | None,
    cron: str,
    concurrency: int,
    catch_up: bool,
    enabled: bool,
) -> kfp_server_api.V2beta1RecurringRun:
    """Runs of an uploaded version by a cron expression in KFP's own time zone."""
    schedule = kfp_server_api.V2beta1CronSchedule(cron=cron)
    return kfp_server_api.V2beta1RecurringRun(
        display_name=name,
        description=description,
        experiment_id=experiment_id,
        pipeline_version_reference=_reference(version),
        runtime_config=kfp_server_api.V2beta1RuntimeConfig(parameters=dict(parameters)),
        service_account=service_account or None,
        max_concurrency=str(concurrency),
        no_catchup=not catch_up,
        mode="ENABLE" if enabled else "DISABLE",
        trigger=kfp_server_api.V2beta1Trigger(cron_schedule=schedule),
    )


def _reference(version: UploadedVersion) -> kfp_server_api.V2beta1PipelineVersionReference:
    return kfp_server_api.V2beta1PipelineVersionReference(
        pipeline_id=version.pipeline_id,
        pipeline_version_id=version.version_id,
    )
