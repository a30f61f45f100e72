"""What is kept of requests, as configured: the audit trail, its spool on disk, and what of a call's content goes in.

Owns shapes only, with every key's default and meaning; docs/audit.md and docs/spool.md explain them. Without `postgres`
there is nowhere to keep a record, and all this is idle.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from proxy.config.fields import Model, Name
from proxy.config.risk import Risk
from proxy.config.units import Size

AuditGrade = Literal["none", "usage", "standard", "strict"]


class Spool(Model):
    """The files that records wait in until PostgreSQL has them, in `state_dir`/spool."""

    max_size: Annotated[Size, Field(ge=1 << 16)] = 1 << 30
    """Bytes on disk of all processes together: of 600,000 calls or so."""
    segment: Annotated[Size, Field(ge=1 << 12, le=1 << 30)] = 16 << 20
    """Bytes of one file; it is deleted when PostgreSQL has all of it."""
    memory: Annotated[Size, Field(le=1 << 30)] = 64 << 20
    """Bytes that may wait in memory when the disk is full or fails, before requests of grade `standard` are refused."""

    @model_validator(mode="after")
    def _a_segment_fits(self) -> Spool:
        if self.segment > self.max_size:
            raise ValueError("'segment' is not more than 'max_size'")
        return self


class Record(Model):
    """What is kept of requests in PostgreSQL."""

    audit: AuditGrade = "standard"
    """What happens when a call cannot be recorded: `strict` refuses it with 503 (and waits for the disk before each
    call), `standard` keeps some in memory first, `usage` lets it pass and counts it. `none`: nothing is recorded."""
    tenants: dict[Name, AuditGrade] = {}  # noqa: RUF012 (pydantic gives every model its own)
    """The same for single tenants, by their short names."""
    arguments: Literal["none", "hashed", "sanitised"] = "none"
    """What is kept of the arguments of calls: nothing, a keyed digest, or also what is left without secrets."""
    results: Literal["none", "sanitised"] = "none"
    """What is kept of results: nothing, or what is left without secrets."""
    max_content: Annotated[Size, Field(ge=256, le=64 << 10)] = 8 << 10
    """Bytes of arguments, and likewise of a result, that are kept; of more only the size is."""
    risk: Risk = Risk()
    """What makes a call risky."""
    spool: Spool = Spool()
    """Where records wait for PostgreSQL."""
