"""The client of a Tally cluster. It needs only the standard library.

`Client` sends requests, the exceptions say why one has no result. `tally.airflow` has an operator for Apache Airflow."""

from .client import Client
from .errors import (
    Busy,
    Conflict,
    Forbidden,
    InvalidRequest,
    JobCancelled,
    JobError,
    JobFailed,
    NotFound,
    RequestError,
    TallyError,
    Unauthenticated,
    Unavailable,
    Uncertain,
    UnmetExpectation,
    WaitTimeout,
)
from .models import Job, Stage, Summary, Worker

__all__ = [
    "Busy",
    "Client",
    "Conflict",
    "Forbidden",
    "InvalidRequest",
    "Job",
    "JobCancelled",
    "JobError",
    "JobFailed",
    "NotFound",
    "RequestError",
    "Stage",
    "Summary",
    "TallyError",
    "Unauthenticated",
    "Unavailable",
    "Uncertain",
    "UnmetExpectation",
    "WaitTimeout",
    "Worker",
]
