"""What a request, or a job, can end with instead of a result. Each error has the server's message and hint.

Not here: when a request is repeated (`transport`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .models import Job


class TallyError(Exception):
    """The base of all errors of this package. `hint` says what to do, if that is known."""

    def __init__(self, message: str, hint: str | None = None):
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message


class Unavailable(TallyError):
    """No leading coordinator answered in time: it cannot be reached, or another one is about to lead."""


class Uncertain(Unavailable):
    """The connection broke after a submission was sent: a job may have been accepted. To submit again is safe: it joins the
    running job."""


class RequestError(TallyError):
    """The coordinator refused a request. `status` is that of HTTP, `kind` the name of the failure in the API."""

    def __init__(self, message: str, hint: str | None = None, status: int = 0, kind: str = "failed"):
        super().__init__(message, hint)
        self.status = status
        self.kind = kind


class InvalidRequest(RequestError):
    """A setting or a parameter is unknown or invalid."""


class Unauthenticated(RequestError):
    """The request has neither a certificate nor a known token."""


class Forbidden(RequestError):
    """The token or certificate does not have the role, or the connection must be encrypted."""


class NotFound(RequestError):
    """There is no such job."""


class Conflict(RequestError):
    """Another job writes the same day of the output, from other inputs or with other settings."""


class Busy(RequestError):
    """The limit of requests, jobs or reports is reached."""


class JobError(TallyError):
    """A job ended without a published day. `job` is the job."""

    def __init__(self, message: str, job: Job, hint: str | None = None):
        super().__init__(message, hint)
        self.job = job


class JobFailed(JobError):
    """The job failed; the output is unchanged."""


class UnmetExpectation(JobFailed):
    """The day does not meet an expectation, so it is not published."""


class JobCancelled(JobError):
    """The job was cancelled; the output is unchanged."""


class WaitTimeout(JobError):
    """The time limit for the wait is over. The job continues."""


# The errors by the kinds of the API. Others are `RequestError`, so that a newer server can have more kinds.
KINDS: dict[str, type[RequestError]] = {
    "usage": InvalidRequest,
    "unauthenticated": Unauthenticated,
    "forbidden": Forbidden,
    "not_found": NotFound,
    "conflict": Conflict,
    "too_many_requests": Busy,
}
