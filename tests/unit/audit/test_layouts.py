"""Secrets whose name stands over them, before them, beside them or around them are found."""

from __future__ import annotations

import pytest

from proxy.audit.layouts import redact_layouts

NAMES = {"pass", "secret", "token", "key", "value", "into "}


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (
            "- name: DB_PASSWORD\n  value: tiger\n- name: MODE\n  value: prod",
            "- name: DB_PASSWORD\n  value: [redacted:password]\n- name: MODE\n  value: prod",
        ),
        (
            '<Key>Password</Key><Value A="b">tiger</Value>',
            '<Key>Password</Key><Value A="b">[redacted:password]</Value>',
        ),
        (
            'variable "db_password" {\n  default = "tiger"\n}',
            'variable "db_password" {\n  default = "[redacted:password]"\n}',
        ),
        (
            "kind: Secret\ndata:\n  url: YTpi\n  pin: MQ==\ntype: x",
            "kind: Secret\ndata:\n  url: [redacted:secret]\n  pin: [redacted:secret]\ntype: x",
        ),
        ('{"kty": "oct", "k": "Q-vuKLXVFmJkl_j3eBqV"}', '{"kty": "oct", "k": "[redacted:private_key]"}'),
        ("Password:\n  t1ger", "Password:\n  [redacted:password]"),
        ("password: |\n  t1ger\nport: 1", "password: |\n  [redacted:password]\nport: 1"),
        ("email,password,role\na@x.example,tiger,admin", "email,password,role\na@x.example,[redacted:password],admin"),
        (
            "| user | password |\n|---|---|\n| bob | t1ger |",
            "| user | password |\n|---|---|\n| bob | [redacted:password] |",
        ),
        (
            " id | password \n----+---------\n  1 | t1ger\n",
            " id | password \n----+---------\n  1 | [redacted:password]\n",
        ),
        ("| Password | `t1ger` |", "| Password | `[redacted:password]` |"),
        ("<td>Password</td><td>t1ger</td>", "<td>Password</td><td>[redacted:password]</td>"),
        (
            "INSERT INTO u (mail, password) VALUES ('a', 'tiger'), ('b', 'lion');",
            "INSERT INTO u (mail, password) VALUES ('a', '[redacted:password]'), ('b', '[redacted:password]');",
        ),
        ("page.fill('#password', 'tiger')", "page.fill('#password', '[redacted:password]')"),
        ("getByLabel('Password').fill('tiger')", "getByLabel('Password').fill('[redacted:password]')"),
        ("add_argument('--password', default='tiger')", "add_argument('--password', default='[redacted:password]')"),
        ("process.env.SECRET || 'tiger'", "process.env.SECRET || '[redacted:secret]'"),
    ],
)
def test_a_name_elsewhere_tells_what_a_value_is(text: str, kept: str) -> None:
    """In the layouts of configuration, data bases, terminals and pages."""
    assert redact_layouts(text, NAMES) == kept


@pytest.mark.parametrize(
    "text",
    [
        "name,type,description\npassword,string,the password",
        "| Field | Type |\n|---|---|\n| password | string |",
        "password:\n  type: string\n",
        "secrets:\n  - db\n",
        "- name: LOG\n  value: debug",
        "kind: ConfigMap\ndata:\n  a: b",
        "return (token,\n        value,\n        other)",
        "'raise',\n'pass',\n'while',",
        "| Password | required |",
        "INSERT INTO u (name) VALUES ('bob')",
        'variable "region" {\n  default = "eu"\n}',
    ],
)
def test_tables_and_blocks_about_secrets_stay(text: str) -> None:
    """As do those about something else."""
    assert redact_layouts(text, NAMES) == text
