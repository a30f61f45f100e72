"""Environment variables and secret files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.files import SECRET_BYTES, Files, read_bounded, substitute

ENV = {"A": "alpha", "EMPTY": "", "TRICK": "${A}", "_x9": "under"}


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("no variable", "no variable"),
        ("$A $ {A} $", "$A $ {A} $"),
        ("<${A}>", "<alpha>"),
        ("${A}${A}", "alphaalpha"),
        ("${EMPTY}", ""),
        ("${EMPTY:-default}", "default"),
        ("${NONE:-default}", "default"),
        ("${NONE:-}", ""),
        ("${NONE:-a:-b$c}", "a:-b$c"),
        ("${A:-default}", "alpha"),
        ("${_x9}", "under"),
        ("${TRICK}", "${A}"),
        ("$${A}", "${A}"),
        ("$$${A}", "$${A}"),
    ],
)
def test_a_variable_is_replaced_once(text: str, result: str) -> None:
    """`$${` stands for itself, a default for what is missing or empty, and what is put in is not read again."""
    assert substitute(text, ENV) == result


@pytest.mark.parametrize(
    "text", ["${", "${A", "${}", "${ A }", "${A-b}", "${A:b}", "${9}", "${a.b}", "${\u00e4}", "${" + "A" * 200 + "}"]
)
def test_other_forms_are_refused(text: str) -> None:
    """A slip must not end up in a header."""
    with pytest.raises(ValueError, match=r"a variable looks like \$\{NAME\}"):
        substitute(text, ENV)


def test_a_missing_variable_is_named() -> None:
    """That is what has to be set."""
    with pytest.raises(ValueError, match="the environment variable NO_SUCH is not set"):
        substitute("x${NO_SUCH}x", ENV)


@given(st.text(alphabet="${}:-AB\n "))
def test_any_text_is_replaced_or_refused(text: str) -> None:
    """Without `${` nothing changes, and nothing but ValueError is raised."""
    try:
        result = substitute(text, {"A": "1", "B": "2"})
    except ValueError:
        assert "${" in text
    else:
        assert "${" in text or result == text


@pytest.mark.parametrize(
    ("content", "secret"),
    [(b"abc", "abc"), (b"abc\n", "abc"), (b"abc\r\n", "abc"), (b"abc\n\n", "abc\n"), (b"", ""), (b" a ", " a ")],
)
def test_a_secret_loses_the_newline_at_its_end_only(tmp_path: Path, content: bytes, secret: str) -> None:
    """What an editor or `echo` adds is not part of it."""
    (tmp_path / "secret").write_bytes(content)
    assert Files(tmp_path).read_secret("secret") == secret


def test_a_secret_is_bounded_text(tmp_path: Path) -> None:
    """64 KiB of UTF-8."""
    (tmp_path / "large").write_bytes(b"x" * (SECRET_BYTES + 1))
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="the secret file cannot be read: larger than 64 KiB"):
        Files(tmp_path).read_secret("large")
    with pytest.raises(ValueError, match="not UTF-8 text"):
        Files(tmp_path).read_secret("binary")


def test_devices_and_pipes_are_not_read(tmp_path: Path) -> None:
    """One would never end, the other would be waited for."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(ValueError, match="not a regular file"):
            read_bounded(path, 10)


def test_links_are_followed(tmp_path: Path) -> None:
    """Kubernetes mounts secrets as links."""
    (tmp_path / "real").write_text("abc")
    (tmp_path / "link").symlink_to("real")
    assert Files(tmp_path).read_secret("link") == "abc"


def test_every_file_asked_for_is_remembered_once(tmp_path: Path) -> None:
    """Readable or not: the watch looks at all of them."""
    files = Files(tmp_path)
    (tmp_path / "a").write_text("abc")
    for name in ("a", "a"):
        files.read_secret(name)
    with pytest.raises(ValueError, match="No such file"):
        files.read_secret("/no/such")
    assert files.seen == (str(tmp_path / "a"), "/no/such")


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    """Not even when a file is refused."""
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with pytest.raises(ValueError, match="cannot be read"):
            read_bounded(tmp_path, 10)
    assert len(os.listdir("/proc/self/fd")) == before
