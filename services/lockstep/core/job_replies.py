"""What a partition answers about jobs, as values; `replies` has the rest.

Here belongs one class for each reply, without behaviour. Never here: rules.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lockstep.core.amendments import Amendment
from lockstep.core.ids import EntityKey, EntityNumber
from lockstep.core.jobs import Job, Transfer

if TYPE_CHECKING:
    from lockstep.core.replies import Delivered


@dataclass(frozen=True, slots=True)
class JobIs:
    """How a job stands."""

    job: Job


@dataclass(frozen=True, slots=True)
class JobsAre:
    """Jobs, the newest first."""

    jobs: tuple[Job, ...]


@dataclass(frozen=True, slots=True)
class OpenJobs:
    """Jobs with parts that have not ended, each with its queue."""

    jobs: tuple[tuple[EntityKey, Job], ...]


@dataclass(frozen=True, slots=True)
class JobLook:
    """The next messages of a job.

    Attributes:
        job: How it stands.
        cursor: Up to where messages were looked at; None = there are no more.
        sequences: Those that it takes, as far as the core can see, rising.
        delivered: The same with what it takes to read them, where the job needs that.
    """

    job: Job
    cursor: int | None
    sequences: array[int]
    delivered: Delivered | None = None


@dataclass(frozen=True, slots=True)
class TransferIs:
    """What a transfer takes along.

    Attributes:
        job: The job that it is of.
        source: The number of the queue that the messages are in.
        revision: The last change of definitions that this partition knows.
        target: The queue that they go to.
        transfer: The transfer; None = it is over.
        delivered: The messages with what it takes to read them; None = it is over.
        amendments: What is changed about each when it arrives, its trail included (RSB-4).
    """

    job: Job
    source: EntityNumber
    revision: int
    target: EntityKey
    transfer: Transfer | None = None
    delivered: Delivered | None = None
    amendments: tuple[Amendment, ...] = ()


@dataclass(frozen=True, slots=True)
class TransferTaken:
    """What became of a transfer where it went.

    Attributes:
        refused: The places of the messages that do not fit the queue, counted from 0; the others are there.
        error: Why none was taken; "" = they were.
    """

    refused: tuple[int, ...] = ()
    error: str = ""
