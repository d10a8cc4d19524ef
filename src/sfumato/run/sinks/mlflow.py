"""MLflow: a run of the experiment `sfumato` (MLFLOW_EXPERIMENT_NAME), where MLFLOW_TRACKING_URI says, else files in
RUN/mlflow (`mlflow ui --backend-store-uri RUN/mlflow`)."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Metric

from sfumato.config.tree import flatten
from sfumato.run.folder import Run
from sfumato.run.sinks.identity import keep, kept


class MLflow:
    """Resumes the same run of MLflow; a number is overwritten by a later one of the same step."""

    def __init__(self, run: Run, config: Mapping[str, Any], resumed_at: int) -> None:
        uri = os.environ.get("MLFLOW_TRACKING_URI") or (run.path / "mlflow").resolve().as_uri()
        if "MLFLOW_TRACKING_URI" not in os.environ:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        self._client = mlflow.MlflowClient(tracking_uri=uri)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "sfumato")
        known = kept(run, "mlflow")
        if known is None:
            experiment = self._client.get_experiment_by_name(name)
            number = experiment.experiment_id if experiment else self._client.create_experiment(name)
            known = self._client.create_run(number, run_name=run.path.resolve().name).info.run_id
            keep(run, "mlflow", known)
            for key, value in flatten(config).items():
                self._client.log_param(known, key, str(value)[:500])
        else:
            self._client.update_run(known, status="RUNNING")
        self._id: str = known

    def numbers(self, values: Mapping[str, float], images: int) -> None:
        """Log them with the images seen as the step."""
        now = int(1000 * time.time())
        metrics = [Metric(name, value, now, images) for name, value in values.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def picture(self, name: str, file: Path, images: int) -> None:
        """Keep the file among the run's artifacts."""
        self._client.log_artifact(self._id, str(file), artifact_path=name)

    def text(self, name: str, text: str, images: int) -> None:
        """Keep the text among the run's artifacts."""
        self._client.log_text(self._id, text, f"{name}/{images:012d}.txt")

    def close(self) -> None:
        """Mark the run as ended."""
        self._client.set_terminated(self._id)
