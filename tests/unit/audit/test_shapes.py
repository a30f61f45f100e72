"""Secrets in running text are found where they are written like values; all of it in linear time."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.audit.shapes import redact


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("postgres://a:hunter2@db/x", "postgres://a:[redacted:password]@db/x"),
        ("https://bob@example.com/", "https://bob@example.com/"),
        ("https://${U}:${P}@example.com/", "https://${U}:${P}@example.com/"),
        ("DB_PASSWORD=hunter2\nPORT=1", "DB_PASSWORD=[redacted:password]\nPORT=1"),
        ('{"password": "hunter2", "a": 1}', '{"password": "[redacted:password]", "a": 1}'),
        ("password: hunter\n", "password: [redacted:password]\n"),
        ("the password: string", "the password: string"),
        ("password = getpass()", "password = getpass()"),
        ("if token is None:", "if token is None:"),
        ("Password=a b;Encrypt=yes", "Password=[redacted:password] b;Encrypt=yes"),
        ("Authorization: Bearer $TOKEN", "Authorization: Bearer $TOKEN"),
        ("Basic dXNlcjpodW50ZXIy", "Basic [redacted:basic]"),
        ("Basic vocabulary", "Basic vocabulary"),
        ("Cookie: a=1; b=2\nHost: x", "Cookie: [redacted:cookie]\nHost: x"),
        ("tool --password hunter2 -v", "tool --password [redacted:password] -v"),
        ("curl -u bob:hunter2 x", "curl -u bob:[redacted:password] x"),
        ("mysql -u root -phunter2 app", "mysql -u root -p[redacted:password] app"),
        ("machine x login bob password hunter2", "machine x login bob password [redacted:password]"),
        ("secret: file:webhook.secret", "secret: [redacted:secret]"),
        ("<password>hunter2</password>", "<password>[redacted:password]</password>"),
        ('<add key="ApiKey" value="a1b2c3d4" />', '<add key="ApiKey" value="[redacted:api_key]" />'),
        ("auth=('bob', 'hunter2')", "auth=('bob', '[redacted:password]')"),
        ("your one-time code is 123456", "your one-time code is [redacted:otp]"),
        ("the key to use, an API key: a1B2c3D4e5F6g7H8i9J0k", "the key to use, an API key: [redacted:api_key]"),
        ("PASSWORD a1B2c3D4e5F6g7H8i9J0k", "PASSWORD [redacted:password]"),
        ("see a1B2c3D4e5F6g7H8i9J0k", "see a1B2c3D4e5F6g7H8i9J0k"),
        ("the token of commit 9fceb02d0ae598e95dc970b74767f19372d61af8",) * 2,
        ("redis-cli -h cache -a hunter2 ping", "redis-cli -h cache -a [redacted:password] ping"),
        ("token=self._token", "token=self._token"),
        ("password = input('Password: ')", "password = input('Password: ')"),
        ("Passwort: hunter2", "Passwort: [redacted:password]"),
        ("define('DB_PASSWORD', 'hunter2');", "define('DB_PASSWORD', '[redacted:password]');"),
        ('setPassword("hunter2")', 'setPassword("[redacted:password]")'),
        ('get_password("db")', 'get_password("db")'),
        ("Password -> hunter2", "Password -> [redacted:password]"),
        ("public key: MCowBQYDK2VwAyEA", "public key: MCowBQYDK2VwAyEA"),
        ("pass: ok", "pass: ok"),
        ("ALTER ROLE bob PASSWORD 'tiger';", "ALTER ROLE bob PASSWORD [redacted:password];"),
        ("identified by 'tiger'", "identified by [redacted:password]"),
        ("the password 'field' and PASSWORD '?'", "the password 'field' and PASSWORD '?'"),
        ("requirepass tiger", "requirepass [redacted:password]"),
        ("short", "short"),
    ],
)
def test_a_value_goes_and_what_is_around_it_stays(text: str, kept: str) -> None:
    """Code and prose about secrets pass."""
    assert redact(text) == kept


@given(st.text(max_size=300))
def test_nothing_raises_and_nothing_is_found_twice(text: str) -> None:
    """What is clean stays as it is."""
    clean = redact(text)
    assert redact(clean) == clean or len(redact(clean)) <= len(clean) + 64


#: What each pattern would have to try again and again, were it not bounded.
HOSTILE = (
    "a",
    "-",
    "_",
    "0",
    " ",
    "\t",
    "=",
    "/",
    "\\",
    '"',
    '\\"',
    "eyJ",
    "eyJaaaaaaaaa.",
    "-eyJ",
    "sk-",
    "sk-ant-",
    "xoxb-",
    "://",
    "a://",
    "a:b@://",
    "password=",
    "password: ",
    "password is ",
    "token: ",
    "1 ",
    "4111 ",
    "4-",
    "1234567",
    "--password ",
    "--a",
    "-u a:",
    "login a password ",
    "mysql ",
    "mysql -p",
    "-----BEGIN ",
    "-----BEGIN PRIVATE KEY-----",
    "Bearer a",
    "basic aaaaaaaaaaaa",
    "cookie:a",
    "Authorization: ",
    "$2b$",
    "DE12",
    "DE12 ABCD ",
    "api ",
    "\\n",
    "1//0",
    "A3-",
    "ATATT3",
    "M" + "a" * 20 + ".",
    "a.",
    "a_",
    "SG.aaaaaaaaaaaaaaaa.",
    "1/1234567890123456:",
    "dp.pt.",
    "AAAA",
    "hooks.slack.com/services/",
    "<a>",
    "<password>",
    "password ",
    "password a1B2c3D4e5F6g7H8i9J0k ",
    "auth=('",
    'key="a" ',
    "one-time code ",
    "redis-cli -a",
    "openssl -k",
    "passw" + "a" * 30,
    "bot123456789:",
    "password a ",
    'passphrase is "',
    "password\n ",
    "PASS a1\n",
    "AUTH a\n",
    "name: a_token\n value: ",
    '"name":"A_TOKEN","value":',
    'variable "a_token" {',
    "kind: Secret\ndata:\n  a: b\n",
    "data:\n ",
    "password:\n a1!\n",
    "password,a\nb,c1!\n",
    "|password|a|\n",
    "insert into a (password) values ('",
    "insert into a(",
    "into a (b) values (",
    "REJfUEFTU1dPUkQ9YWJj",
    "REJfUEFTU1dPUkQ9YWJj\n",
    "%22password%22",
    "&quot;password",
    "\\u0022password",
    "&lt;",
    "aa_",
    "ab_cd_efgh1X",
    "aa_aa-",
    "-----END PRIVATE KEY-----",
    "aa\n-----END RSA PRIVATE KEY-----",
    "login a / b1!",
    "PIN to ",
    "PIN is 1234",
    "seed phrase: ",
    "seed abandon ",
    "recovery codes: ",
    "recovery codes: a1b2c3d4, ",
    "a1b2c3d4, ",
    "echo a | sudo -S ",
    "echo a ",
    "a:1:b:c:",
    "host:5432:a:b:c1\n",
    "AC00000000000000000000000000000000",
    "community a",
    "credential('",
    "secret 0 ",
    "net user a ",
    "htpasswd -b ",
    "sqlplus a/",
    "thin:a/",
    "--from-literal=a=",
    "-u a -p ",
    "ldapsearch -w ",
    "http -a b:",
    "A_TOKEN ",
    "A_",
    "/token/",
    "/token/aaaaaaaaaaaaaaaaaaaa",
    "?code=",
    "mot de passe ",
    "пароль ",
    "пароль это ",
    "密码是 a1!",
    "密码",
    "PWD={a",
    "PWD={a;b}",
    "(hex) ",
    "password (",
    "name (a) ",
    "[redacted:x] ",
    "nsec1",
    "5KKKKKKKKKKKKKKKKKKKKKKKKKKKKKK",
    "v4.local.",
    "MDAxaaaa",
    "authorization: digest ",
    "authorization: a ",
    "<password a",
    "<a b>",
    "<a ",
    '"kty"',
    '"kty" "d":"',
    "İpassword ",
    "password a a a",
    "crypt('",
    "key 1 ",
    "into ",
)


@pytest.mark.parametrize("piece", HOSTILE)
def test_twice_the_text_takes_twice_the_time(piece: str) -> None:
    """Sixteen times the text takes far less than the 256-fold of a quadratic search, and never a millisecond a KiB."""
    short, long = ((piece * (size // len(piece) + 1))[:size] for size in (2_000, 32_000))

    def seconds(text: str) -> float:
        best = 1.0
        for _ in range(3):
            began = time.process_time()
            redact(text)
            best = min(best, time.process_time() - began)
        return best

    assert seconds(long) < max(16 * 4 * seconds(short), 0.01)
    assert seconds(long) < 0.3
