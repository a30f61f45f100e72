"""The method table: what each method may do, and what it is aimed at."""

import pytest

from proxy.mcp.methods import METHODS, UNKNOWN, Access, metric_label


@pytest.mark.parametrize(
    ("method", "access", "kind", "field", "mirror"),
    [
        ("initialize", Access.SESSION, "", "", ""),
        ("logging/setLevel", Access.SESSION, "", "", ""),
        ("notifications/cancelled", Access.SESSION, "", "", ""),
        ("ping", Access.READ, "", "", ""),
        ("tools/list", Access.READ, "", "", ""),
        ("server/discover", Access.READ, "", "", ""),
        ("subscriptions/listen", Access.READ, "", "", ""),
        ("completion/complete", Access.READ, "", "ref", ""),
        ("resources/subscribe", Access.READ, "resource", "uri", ""),
        ("resources/directory/read", Access.READ, "resource", "uri", ""),
        ("skills/get", Access.READ, "resource", "uri", ""),
        ("resources/read", Access.READ, "resource", "uri", "required"),
        ("prompts/get", Access.READ, "prompt", "name", "required"),
        ("tools/call", Access.EXECUTE, "tool", "name", "required"),
        ("tasks/get", Access.EXECUTE, "task", "taskId", "checked"),
        ("tasks/update", Access.EXECUTE, "task", "taskId", "checked"),
        ("tasks/cancel", Access.EXECUTE, "task", "taskId", "checked"),
        ("tasks/result", Access.EXECUTE, "task", "taskId", ""),
        ("tasks/list", Access.EXECUTE, "", "", ""),
    ],
)
def test_a_method_has_its_row(method: str, access: Access, kind: str, field: str, mirror: str) -> None:
    """Access, target and mirroring are those of the specification's tables."""
    row = METHODS[method]
    assert (row.access, row.kind, row.field, row.mirror) == (access, kind, field, mirror)


def test_what_is_unknown_executes() -> None:
    """Policy fails closed: a method nobody listed needs the right to execute."""
    assert UNKNOWN.access is Access.EXECUTE
    assert "tools/Call" not in METHODS


def test_only_discover_is_never_throttled_and_only_listen_stays_open() -> None:
    """A refused discover demotes clients; a listen stream ends when its client leaves."""
    assert [name for name, row in METHODS.items() if not row.throttled] == ["server/discover"]
    assert [name for name, row in METHODS.items() if row.long_lived] == ["subscriptions/listen"]


def test_whatever_is_mirrored_has_a_named_target() -> None:
    """`Mcp-Name` repeats a plain member of params, so such a row names one and its kind."""
    mirrored = [row for row in METHODS.values() if row.mirror]
    assert len(mirrored) == 6
    assert all(row.kind and row.field in ("name", "uri", "taskId") for row in mirrored)


def test_metric_labels_come_from_a_closed_set() -> None:
    """Known methods label themselves, responses and strangers share a word each."""
    assert metric_label("tools/call") == "tools/call"
    assert metric_label("tools/call\n") == "other"
    assert metric_label("") == "response"
