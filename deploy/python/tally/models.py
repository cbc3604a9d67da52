"""The objects of the HTTP API as typed, immutable values. Fields that this version does not know are in `raw`.

Not here: the requests (`client`), data frames (`frames`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import datetime
from typing import Any

# States of a job that has ended.
ENDED = frozenset({"done", "failed", "cancelled"})


def time_of(text: str | None) -> datetime | None:
    """A time of the API, which is in UTC."""
    # Before Python 3.11, `fromisoformat` does not accept the letter Z.
    return datetime.fromisoformat(text.replace("Z", "+00:00")) if text else None


@dataclasses.dataclass(frozen=True)
class Stage:
    """The tasks of a stage of a job, by state."""

    name: str
    tasks: int
    pending: int
    running: int
    done: int
    failed_attempts: int


@dataclasses.dataclass(frozen=True)
class Summary:
    """The result of a job whose day is published."""

    job_id: str
    date: str
    rows: int
    files: int
    seconds: float
    bytes_read: int
    peak_memory_bytes: int
    warnings: tuple[str, ...]
    # With all fields, such as the totals of the dataset.
    raw: Mapping[str, Any] = dataclasses.field(repr=False)

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Summary:
        named = {name: raw[name] for name in ("job_id", "date", "rows", "files", "seconds", "bytes_read", "peak_memory_bytes")}
        return cls(**named, warnings=tuple(raw["warnings"]), raw=raw)


@dataclasses.dataclass(frozen=True)
class Job:
    """A job. `existing` says, after a submission, that the job was running before it."""

    id: str
    state: str
    phase: str
    dataset: str
    date: str
    inputs: tuple[str, ...]
    output: str
    submitted_at: datetime | None
    ended_at: datetime | None
    elapsed_seconds: float
    remaining_seconds: float | None
    input_rows: int
    rows_done: int
    stages: tuple[Stage, ...]
    cancelling: bool
    reason: str | None
    unmet_expectation: bool
    summary: Summary | None
    existing: bool = False
    raw: Mapping[str, Any] = dataclasses.field(repr=False, default_factory=dict)

    @property
    def ended(self) -> bool:
        """Whether the job has ended, in any way."""
        return self.state in ENDED

    @classmethod
    def of(cls, raw: Mapping[str, Any], existing: bool = False) -> Job:
        same = ("state", "phase", "dataset", "date", "output", "elapsed_seconds", "remaining_seconds", "input_rows", "rows_done",
                "cancelling", "reason", "unmet_expectation")
        fields = [field.name for field in dataclasses.fields(Stage)]
        return cls(
            id=raw["job_id"],
            inputs=tuple(raw["inputs"]),
            submitted_at=time_of(raw["submitted_at"]),
            ended_at=time_of(raw["ended_at"]),
            stages=tuple(Stage(**{name: stage[name] for name in fields}) for stage in raw["stages"]),
            summary=Summary.of(raw["summary"]) if raw["summary"] else None,
            existing=existing,
            raw=raw,
            **{name: raw[name] for name in same},
        )


@dataclasses.dataclass(frozen=True)
class Worker:
    """A worker that is, or was, attached."""

    id: str
    state: str
    version: str
    slots: int
    running: int
    memory_limit: int
    memory_used: int
    heartbeat_age_seconds: float
    silent: bool
    raw: Mapping[str, Any] = dataclasses.field(repr=False)

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Worker:
        same = ("state", "version", "slots", "running", "memory_limit", "memory_used", "heartbeat_age_seconds", "silent")
        return cls(id=raw["worker_id"], raw=raw, **{name: raw[name] for name in same})
