"""The client of a Tally cluster: submit, wait, list, cancel, and reports about objectives.

Not here: connections and repetitions (`transport`), the fields of the answers (`models`)."""

from __future__ import annotations

import base64
import datetime
import functools
import os
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .errors import Busy, JobCancelled, JobFailed, NotFound, TallyError, Unavailable, UnmetExpectation, WaitTimeout
from .models import Job, Worker
from .transport import Transport, tls_context, token_source

if TYPE_CHECKING:
    import pandas

Path = str | os.PathLike[str]
Date = str | datetime.date
# Entries of a page of a list: the most that the API has.
PAGE = 200


def date_text(date: Date) -> str:
    """A date as the API has it, `YYYYMMDD`."""
    return date.strftime("%Y%m%d") if isinstance(date, datetime.date) else date


def option_content(value: bytes | str | os.PathLike[str]) -> str:
    """The content of an option: bytes and text as they are, a path by its file."""
    if isinstance(value, os.PathLike):
        value = pathlib.Path(value).read_bytes()
    return base64.b64encode(value.encode() if isinstance(value, str) else value).decode()


class Client:
    """A client of the coordinators of a cluster, of which one leads. It can be used by several threads.

    `url` is that of `--http-listen` of a coordinator, such as `https://coordinator.example.org:9090`, or several of them. A
    `token` (or the content of `token_file`) or a client `certificate` with its `key` identifies the client. `ca` is the file of
    the authority that signed the certificates of the coordinators. What is not given is taken from the environment:
    `TALLY_URL` (separated by commas), `TALLY_TOKEN` or `TALLY_TOKEN_FILE`, `TALLY_TLS_CA`, `TALLY_TLS_CERT`, `TALLY_TLS_KEY`.

    `timeout` is the limit of each attempt in seconds. While no coordinator leads or the limit of requests is reached, a
    request is repeated for `patience` seconds.
    """

    def __init__(self, url: str | Sequence[str] | None = None, *, token: str | None = None, token_file: Path | None = None,
                 ca: Path | None = None, certificate: Path | None = None, key: Path | None = None,
                 verify_hostname: bool = True, timeout: float = 30.0, patience: float = 30.0):
        environment = {name: value for name, value in os.environ.items() if value}
        if token is None and token_file is None:
            token = environment.get("TALLY_TOKEN")
            token_file = None if token else environment.get("TALLY_TOKEN_FILE")
        if certificate is None:
            certificate, key = environment.get("TALLY_TLS_CERT"), environment.get("TALLY_TLS_KEY")
        ca = ca or environment.get("TALLY_TLS_CA")
        if url is None:
            url = environment.get("TALLY_URL", "")
        urls = [each.strip() for each in url.split(",") if each.strip()] if isinstance(url, str) else url
        tls = functools.partial(tls_context, ca, certificate, key, verify_hostname)
        self._transport = Transport(urls, token_source(token, token_file), tls, timeout, patience)
        self._patience = patience

    def submit(self, *, date: Date, tables: Mapping[str, str], output: str, dataset: str | None = None,
               dataset_options: Mapping[str, bytes | str | os.PathLike[str]] | None = None,
               target_file_size: int | None = None, expectations: Sequence[str] = (), ready_marker: str | None = None) -> Job:
        """Submits a job, and returns it without waiting for its end.

        `tables` has the roots of the input tables by name; they and `output` are URLs, or absolute paths on the machines of
        the cluster. An option of the dataset is its content, or the path of a file that is read here. If the same job runs
        already, it is returned, with `existing`.

        Raises `Conflict` if another job writes the same day, and `Uncertain` if the connection broke after the request was
        sent: then submit again, which joins a job that was accepted."""
        body: dict[str, Any] = {"date": date_text(date), "tables": dict(tables), "output": output}
        more = {
            "dataset": dataset,
            "dataset_options": {name: option_content(value) for name, value in (dataset_options or {}).items()},
            "target_file_size": target_file_size,
            "expectations": list(expectations),
            "ready_marker": ready_marker,
        }
        body |= {name: value for name, value in more.items() if value not in (None, [], {})}
        status, answer = self._transport.ask("POST", "/jobs", body=body, repeatable=False)
        return Job.of(answer, existing=status == 200)

    def job(self, job: Job | str) -> Job:
        """The job with this id, an unambiguous prefix of it, or `latest`."""
        return self._job(job, self._patience)

    def jobs(self, limit: int | None = None) -> list[Job]:
        """All jobs that the cluster knows, newest first, or the newest `limit` of them."""
        return [Job.of(each) for each in self._list("/jobs", "jobs", limit)]

    def workers(self) -> list[Worker]:
        """All workers."""
        return [Worker.of(each) for each in self._list("/workers", "workers", None)]

    def cancel(self, job: Job | str) -> Job:
        """Cancels a job. Has no effect on a job that has ended or is being published."""
        _, answer = self._transport.ask("POST", f"/jobs/{name_of(job)}/cancel")
        return Job.of(answer)

    def wait(self, job: Job | str, *, timeout: float | None = None, on_progress: Callable[[Job], object] | None = None,
             interval: float = 1.0, lost_after: float = 120.0) -> Job:
        """Waits until the job is done, and returns it with its summary.

        `on_progress` is called with the job whenever it was asked for, every `interval` seconds. While no coordinator leads,
        the wait goes on for `lost_after` seconds.

        Raises `JobFailed`, `UnmetExpectation`, `JobCancelled`; `WaitTimeout` after `timeout` seconds, when the job continues;
        `Unavailable` if no coordinator answers for too long."""
        until = None if timeout is None else time.monotonic() + timeout
        # The first answer names a job of which only a prefix was given, or says that there is none.
        seen = self.job(job)
        answered = time.monotonic()
        while True:
            if on_progress:
                on_progress(seen)
            if seen.ended:
                return result(seen)
            pause = interval
            if until is not None:
                left = until - time.monotonic()
                if left <= 0:
                    hint = f"wait again, or cancel it: job {seen.id}"
                    raise WaitTimeout(f"job {seen.id} did not end within {timeout:g} s; it continues", seen, hint)
                pause = min(interval, left)
            time.sleep(pause)
            try:
                left = self._patience if until is None else max(until - time.monotonic(), 0.0)
                seen = self._job(seen, min(left, self._patience))
                answered = time.monotonic()
            except (Unavailable, Busy, NotFound):
                # A coordinator that does not know an accepted job is not the leader that accepted it.
                if time.monotonic() - answered >= lost_after:
                    raise

    def report(self, *, output: str, start: Date, end: Date, baseline: Date | None = None,
               dataset: str | None = None) -> pandas.DataFrame:
        """The objectives of the days from `start` to `end`, both included, as a data frame of pandas: see `frames.report_frame`.

        `baseline` is the day that changes refer to; without it, `start`. Needs the package pandas."""
        from . import frames

        frames.check_pandas()
        return frames.report_frame(self.report_json(output=output, start=start, end=end, baseline=baseline, dataset=dataset))

    def report_json(self, *, output: str, start: Date, end: Date, baseline: Date | None = None,
                    dataset: str | None = None) -> dict[str, Any]:
        """The same as the JSON of the API, without pandas."""
        query = {"output": output, "from": date_text(start), "to": date_text(end)}
        query |= {"baseline": date_text(baseline)} if baseline is not None else {}
        query |= {"dataset": dataset} if dataset is not None else {}
        return self._transport.ask("GET", "/objectives", query)[1]

    def _job(self, job: Job | str, patience: float) -> Job:
        _, answer = self._transport.ask("GET", f"/jobs/{name_of(job)}", patience=patience)
        return Job.of(answer)

    def _list(self, path: str, field: str, limit: int | None) -> list[Mapping[str, Any]]:
        found: list[Mapping[str, Any]] = []
        token = None
        while limit is None or len(found) < limit:
            size = PAGE if limit is None else min(PAGE, limit - len(found))
            query: dict[str, str | int] = {"page_size": size} | ({"page_token": token} if token else {})
            _, page = self._transport.ask("GET", path, query)
            found += page[field]
            token = page["next_page_token"]
            if token is None:
                break
        return found


def name_of(job: Job | str) -> str:
    """The id of a job in a path. Ids have only letters, digits and hyphens."""
    name = job.id if isinstance(job, Job) else job
    if not name or not all(letter.isascii() and (letter.isalnum() or letter == "-") for letter in name):
        raise TallyError(f"{name!r} is not the id of a job")
    return name


def result(job: Job) -> Job:
    """The job if its day is published."""
    if job.state == "done":
        return job
    if job.state == "cancelled":
        raise JobCancelled(f"job {job.id} was cancelled: the output is unchanged", job)
    kind = UnmetExpectation if job.unmet_expectation else JobFailed
    raise kind(f"job {job.id} failed: {job.reason or 'no reason was given'}", job)
