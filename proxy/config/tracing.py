"""Where traces go.

Owns shapes only. Without this section nothing is traced, and `traceparent` and `tracestate` pass as they came.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from proxy.config.fields import FieldName, FieldValue, Model, Text, Url
from proxy.config.units import PositiveDuration


class Tracing(Model):
    """Spans of requests for OpenTelemetry. Needs the extra `otel`."""

    endpoint: Url
    """Where they are sent as OTLP over HTTP, such as http://collector:4318/v1/traces."""
    headers: dict[FieldName, FieldValue] = {}  # noqa: RUF012 (pydantic gives every model its own)
    """Sent with them: the place for the collector's credential."""
    sample: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of traces that are recorded, of those that begin here."""
    follow_clients: bool = True
    """What a client's `traceparent` says of sampling holds; else `sample` decides for its traces, too."""
    service_name: Text = "mcp-manager"
    """`service.name` of the spans."""
    queue: Annotated[int, Field(ge=1, le=100_000)] = 2048
    """Spans that wait to be sent; beyond that the oldest are lost."""
    every: PositiveDuration = 5.0
    """How often they are sent, at the latest."""
    timeout: PositiveDuration = 5.0
    """How long one batch may take, repeats included."""
