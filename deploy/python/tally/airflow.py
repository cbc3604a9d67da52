"""An operator of Apache Airflow 3 that computes a day on a Tally cluster.

Not here: the requests (`client`)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from airflow.sdk import BaseHook, BaseOperator, Connection, Context
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from .client import Client
from .errors import Forbidden, InvalidRequest, TallyError, Unauthenticated, Uncertain, UnmetExpectation
from .models import Job

# Failures that another attempt would repeat.
FINAL = (Forbidden, InvalidRequest, Unauthenticated, UnmetExpectation)
# Submissions until one has a certain answer.
SUBMISSIONS = 3
# The seconds between two lines about the progress of a job.
REPORT_EVERY = 30.0


def client_of(connection: Connection) -> Client:
    """The client that a connection of Airflow describes.

    Its schema (`http` or `https`), host and port are the URL, its password is the token. Its extra can have `url` (several,
    separated by commas, instead of host and port), `ca`, `certificate` and `key` (files), and `verify_hostname`."""
    extra = connection.extra_dejson
    url = extra.get("url")
    if not url:
        if not connection.host:
            raise AirflowFailException(f"the connection {connection.conn_id} has neither a host nor a url in its extra")
        port = f":{connection.port}" if connection.port else ""
        url = f"{connection.schema or 'http'}://{connection.host}{port}"
    return Client(
        url,
        token=connection.password or None,
        ca=extra.get("ca"),
        certificate=extra.get("certificate"),
        key=extra.get("key"),
        verify_hostname=extra.get("verify_hostname", True),
    )


class TallyOperator(BaseOperator):
    """Submits a job, waits for its end, and returns its summary, which Airflow pushes to XCom. The id of the job is pushed as
    `job_id` before the wait.

    A retry submits the same job: if the job of the attempt before still runs, it follows that. If the task is killed or times
    out, the job is cancelled, unless `cancel_on_kill` is false. A refused submission and a day that does not meet an
    expectation fail the task without a retry.

    :param tables: roots of the input tables by name: URLs, or absolute paths on the machines of the cluster
    :param output_url: root of the output; `output` is a name of Airflow
    :param date: day, `YYYYMMDD`; for example `{{ (logical_date - macros.timedelta(days=1)) | ds_nodash }}`
    :param dataset: name of the dataset; by default that of the cluster
    :param dataset_options: contents of the dataset's options, by name
    :param expectations: conditions that the day must meet to be published
    :param ready_marker: name of a file that exists only while the day is whole
    :param target_file_size: target size of part files, in bytes
    :param tally_conn_id: the connection of Airflow, see `client_of`
    :param poll_interval: seconds between two requests for the state of the job
    """

    template_fields: Sequence[str] = (
        "tables", "output_url", "date", "dataset", "dataset_options", "expectations", "ready_marker", "tally_conn_id",
    )
    ui_color = "#e6eef7"

    def __init__(self, *, tables: Mapping[str, str], output_url: str, date: str, dataset: str | None = None,
                 dataset_options: Mapping[str, str] | None = None, expectations: Sequence[str] = (),
                 ready_marker: str | None = None, target_file_size: int | None = None, tally_conn_id: str = "tally_default",
                 poll_interval: float = 5.0, cancel_on_kill: bool = True, **kwargs: Any):
        super().__init__(**kwargs)
        self.tables = tables
        self.output_url = output_url
        self.date = date
        self.dataset = dataset
        self.dataset_options = dataset_options
        self.expectations = expectations
        self.ready_marker = ready_marker
        self.target_file_size = target_file_size
        self.tally_conn_id = tally_conn_id
        self.poll_interval = poll_interval
        self.cancel_on_kill = cancel_on_kill
        self._running: tuple[Client, Job] | None = None
        self._reported = float("-inf")

    def execute(self, context: Context) -> dict[str, Any]:
        """Runs the job, and returns its summary."""
        try:
            client = client_of(BaseHook.get_connection(self.tally_conn_id))
            job = self._submit(client)
            self._running = (client, job)
            context["ti"].xcom_push(key="job_id", value=job.id)
            self.log.info("job %s %s", job.id, "is already running: following it" if job.existing else "was accepted")
            done = client.wait(job, on_progress=self._report, interval=self.poll_interval)
        except FINAL as error:
            raise AirflowFailException(str(error)) from error
        except TallyError as error:
            raise AirflowException(str(error)) from error
        for warning in done.summary.warnings:
            self.log.warning("job %s: %s", done.id, warning)
        return dict(done.summary.raw)

    def _submit(self, client: Client) -> Job:
        """The job. After a broken connection it is submitted again, which joins a job that was accepted."""
        left = SUBMISSIONS
        while True:
            left -= 1
            try:
                return client.submit(
                    date=self.date,
                    tables=self.tables,
                    output=self.output_url,
                    dataset=self.dataset,
                    dataset_options=self.dataset_options,
                    expectations=self.expectations,
                    ready_marker=self.ready_marker,
                    target_file_size=self.target_file_size,
                )
            except Uncertain as error:
                if left == 0:
                    raise
                self.log.warning("%s", error)

    def _report(self, job: Job) -> None:
        """Writes the progress of the job to the log of the task, at most every `REPORT_EVERY` seconds."""
        now = time.monotonic()
        if job.ended or now - self._reported >= REPORT_EVERY:
            self._reported = now
            stages = ", ".join(f"{stage.name} {stage.done}/{stage.tasks}" for stage in job.stages)
            self.log.info("job %s: %s %s", job.id, job.state.replace("_", " "), f"({stages})" if stages else "")

    def on_kill(self) -> None:
        """Cancels the job of a task that is killed or times out."""
        if self._running is None or not self.cancel_on_kill:
            return
        client, job = self._running
        self.log.info("cancelling job %s", job.id)
        try:
            client.cancel(job)
        except TallyError as error:
            self.log.error("job %s was not cancelled: %s", job.id, error)
