"""Where traces go."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from proxy.config.tracing import Tracing

ENDPOINT = "http://collector:4318/v1/traces"


def test_an_address_is_enough() -> None:
    """Everything is recorded then, and a client's word holds."""
    tracing = Tracing(endpoint=ENDPOINT)
    assert (tracing.sample, tracing.follow_clients, tracing.service_name) == (1.0, True, "mcp-manager")


@pytest.mark.parametrize(
    "given",
    [{}, {"endpoint": "collector:4318"}, {"sample": 1.1}, {"sample": -1}, {"queue": 0}, {"timeout": "0"}, {"x": 1}],
)
def test_what_makes_no_sense_is_refused(given: dict[str, object]) -> None:
    """As everywhere."""
    with pytest.raises(ValidationError):
        Tracing.model_validate({"endpoint": ENDPOINT, **given} if given else {})


def test_the_collectors_credential_is_a_secret() -> None:
    """It is in no repr."""
    tracing = Tracing.model_validate({"endpoint": ENDPOINT, "headers": {"Authorization": "Bearer s3cret"}})
    assert "s3cret" not in repr(tracing)
    assert tracing.headers["Authorization"].get_secret_value() == "Bearer s3cret"
