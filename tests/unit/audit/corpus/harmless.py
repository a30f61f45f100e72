"""Look-alikes: identities, hashes, numbers, encoded content, code, prose and schemas that speak about secrets."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any

from tests.unit.audit.corpus import ALNUM, BASE32, BASE64, DIGITS, HEX, LOWER, UPPER, URL64, Case, Draw

Make = Callable[[Draw], Any]


def isbn(draw: Draw) -> str:
    """ISBN-13, with its own check digit."""
    body = "978" + draw.of(DIGITS, 9)
    return body + str(-sum(int(digit) * (3 if place % 2 else 1) for place, digit in enumerate(body)) % 10)


#: Name -> an identity that is no secret.
IDENTITIES: dict[str, Make] = {
    "uuid": Draw.uuid,
    "uuid upper": lambda d: d.uuid().upper(),
    "uuid plain": lambda d: d.of(HEX, 32),
    "urn": lambda d: f"urn:uuid:{d.uuid()}",
    "git commit": lambda d: d.of(HEX, 40),
    "git short": lambda d: d.of(HEX, 7),
    "sha256": lambda d: d.of(HEX, 64),
    "image digest": lambda d: f"nginx@sha256:{d.of(HEX, 64)}",
    "md5": lambda d: d.of(HEX, 32),
    "subresource integrity": lambda d: "sha384-" + d.base64(48),
    "sha512 of a lock file": lambda d: f"sha512-{d.base64(64)}",
    "go sum": lambda d: f"github.com/a/b v1.2.3 h1:{d.base64(32)}",
    "etag": lambda d: f'W/"{d.of(HEX, 32)}"',
    "object id": lambda d: d.of(HEX, 24),
    "ulid": lambda d: "01" + d.of("0123456789ABCDEFGHJKMNPQRSTVWXYZ", 24),
    "nano id": lambda d: d.of(URL64, 21),
    "ksuid": lambda d: d.of(ALNUM, 27),
    "snowflake": lambda d: "1" + d.of(DIGITS, 17),
    "arn": lambda d: f"arn:aws:secretsmanager:eu-west-1:{d.of(DIGITS, 12)}:secret:prod/db-{d.of(ALNUM, 6)}",
    "role arn": lambda d: f"arn:aws:iam::{d.of(DIGITS, 12)}:role/token-exchange",
    "instance": lambda d: "i-0" + d.of(HEX, 16),
    "ami": lambda d: "ami-0" + d.of(HEX, 16),
    "stripe customer": lambda d: "cus_" + d.of(ALNUM, 14),
    "stripe publishable": lambda d: "pk_live_" + d.of(ALNUM, 24),
    "stripe price": lambda d: "price_1" + d.of(ALNUM, 23),
    "stripe intent": lambda d: "pi_3" + d.of(ALNUM, 23),
    "slack channel": lambda d: "C0" + d.of(UPPER + DIGITS, 9),
    "slack user": lambda d: "U0" + d.of(UPPER + DIGITS, 9),
    "twilio account": lambda d: "AC" + d.of(HEX, 32),
    "google project": lambda d: f"projects/{d.of(DIGITS, 12)}/secrets/api-key/versions/latest",
    "google client": lambda d: f"{d.of(DIGITS, 12)}-{d.of(LOWER + DIGITS, 32)}.apps.googleusercontent.com",
    "youtube": lambda d: "https://youtu.be/" + d.of(URL64, 11),
    "google sheet": lambda d: f"https://docs.google.com/spreadsheets/d/1{d.of(URL64, 43)}/edit",
    "notion page": lambda d: f"https://www.notion.so/acme/Token-rotation-{d.of(HEX, 32)}",
    "figma file": lambda d: f"https://www.figma.com/file/{d.of(ALNUM, 22)}/Password-page",
    "gist": lambda d: f"https://gist.github.com/bob/{d.of(HEX, 32)}",
    "commit url": lambda d: f"https://github.com/a/b/commit/{d.of(HEX, 40)}",
    "ipfs": lambda d: "Qm" + d.of(ALNUM, 44),
    "ethereum address": lambda d: "0x" + d.of(HEX, 40),
    "onion": lambda d: d.of(BASE32, 56) + ".onion",
    "ssh public key": lambda d: f"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{d.of(BASE64, 43)} bob@host",
    "ssh fingerprint": lambda d: "SHA256:" + d.of(BASE64, 43),
    "age recipient": lambda d: "age1" + d.of(LOWER + DIGITS, 58),
    "public key": lambda d: f"-----BEGIN PUBLIC KEY-----\n{d.of(BASE64, 64)}\n-----END PUBLIC KEY-----",
    "certificate": lambda d: f"-----BEGIN CERTIFICATE-----\n{d.of(BASE64, 64)}\n-----END CERTIFICATE-----",
    "vapid public": lambda d: "B" + d.of(URL64, 86),
    "mapbox public": lambda d: f"pk.{d.of(ALNUM, 40)}",
    "container": lambda d: f"docker://{d.of(HEX, 64)}",
    "trace": lambda d: f"00-{d.of(HEX, 32)}-{d.of(HEX, 16)}-01",
    "mac address": lambda d: ":".join(d.of(HEX, 2) for _ in range(6)),
    "ipv6": lambda d: "2001:db8:" + ":".join(d.of(HEX, 4) for _ in range(6)),
    "semantic version": lambda d: f"v1.{d.of('123456789', 1)}.0-rc.1+{d.of(HEX, 7)}",
    "wheel": lambda d: f"token_bucket-1.{d.of('12345', 1)}.0-py3-none-any.whl",
    "kubernetes pod": lambda d: f"secret-agent-{d.of(HEX, 10)}-{d.of(LOWER, 5)}",
    "hash in a file name": lambda d: f"main.{d.of(HEX, 20)}.js",
    "temporary folder": lambda d: f"/var/folders/{d.of(ALNUM, 2)}/{d.of(LOWER + DIGITS, 30)}/T/key",
    "session of tmux": lambda d: "dev-session:1.0",
    "jira": lambda d: f"SEC-{d.of('123456789', 4)}",
    "cve": lambda d: f"CVE-2026-{d.of('123456789', 5)}",
    "color": lambda d: "#" + d.of(HEX, 6),
    "long identifier": lambda d: "GetSecretValueRequestMarshallerFactoryBean",
    "screaming identifier": lambda d: "MAX_PASSWORD_RESET_ATTEMPTS_PER_HOUR",
    "kebab identifier": lambda d: "task-risk-disk-desk-ask-mask-flask-sk-learn-something-long-here",
    "path": lambda d: "/etc/ssl/private/server.key",
    "windows path": lambda d: r"C:\Users\bob\AppData\Roaming\npm\node_modules",
    "scoped package": lambda d: "@types/jsonwebtoken@9.0.6",
}

#: Name -> a number, or text with one, that pays for nothing.
NUMBERS: dict[str, Make] = {
    "order failing luhn": lambda d: f"order {d.luhn('4', 16, right=False)}",
    "master failing luhn": lambda d: d.luhn("53", 16, right=False),
    "amex failing luhn": lambda d: f"no {d.luhn('37', 15, right=False)}",
    "groups failing luhn": lambda d: "{}{}{}{} {}{}{}{} {}{}{}{} {}{}{}{}".format(*d.luhn("4", 16, right=False)),
    "luhn, but of no issuer": lambda d: f"invoice {d.luhn('9', 16)}",
    "luhn, of no issuer, 1": lambda d: d.luhn("1", 16),
    "luhn, of no issuer, 7": lambda d: d.luhn("7", 16),
    "luhn, but fourteen digits": lambda d: f"customer {d.luhn('4', 14)}",
    "luhn, but fifteen digits": lambda d: d.luhn("4", 15),
    "luhn, but seventeen digits": lambda d: d.luhn("51", 17),
    "luhn, but twelve digits": lambda d: d.luhn("4", 12),
    "luhn, eleven digits": lambda d: d.luhn("4", 11),
    "luhn, twenty digits": lambda d: d.luhn("4", 20),
    "imei": lambda d: f"IMEI {d.luhn('35', 15)}",
    "sim card": lambda d: d.luhn("89", 20),
    "npi": lambda d: d.luhn("1", 10),
    "canadian number": lambda d: d.luhn("5", 9),
    "isbn": isbn,
    "isbn hyphens": lambda d: "ISBN 978-3-16-148410-0",
    "gtin": lambda d: f"590{d.of(DIGITS, 10)}",
    "phone": lambda d: f"+49 30 {d.of(DIGITS, 8)}",
    "phone plain": lambda d: f"+4915{d.of(DIGITS, 9)}",
    "phone us": lambda d: f"(555) {d.of(DIGITS, 3)}-{d.of(DIGITS, 4)}",
    "phone with dashes": lambda d: "1-800-555-0199",
    "milliseconds": lambda d: "17" + d.of(DIGITS, 11),
    "microseconds": lambda d: "17" + d.of(DIGITS, 14),
    "nanoseconds": lambda d: "17" + d.of(DIGITS, 17),
    "date and time": lambda d: "20261122131500",
    "iso time": lambda d: "2026-11-22T13:15:00.123456Z",
    "amount": lambda d: "1,234,567,890,123,456.00",
    "float": lambda d: "3.14159265358979",
    "float like a card": lambda d: f"0.{d.luhn('4', 16)}",
    "bytes": lambda d: d.of("123456789", 1) + d.of(DIGITS, 14),
    "coordinates": lambda d: "52.520008, 13.404954",
    "tracking": lambda d: f"1Z{d.of(UPPER + DIGITS, 16)}",
    "tracking dhl": lambda d: "00340434" + d.of(DIGITS, 12),
    "version": lambda d: "10.0.19045.3803",
    "binary": lambda d: d.of("01", 24),
    "plate": lambda d: "B-AB 1234",
    "iban with a wrong check": lambda d: "DE00" + d.of(DIGITS, 18),
    "iban of no country": lambda d: "QQ12" + d.of(DIGITS, 18),
    "iban too short": lambda d: "DE12" + d.of(DIGITS, 10),
    "part number": lambda d: f"4000-{d.of(DIGITS, 4)}-77",
    "serial": lambda d: f"SN{d.of(UPPER + DIGITS, 12)}",
    "matrix": lambda d: "1234 5678 1234 5678 1234 5678",
    "years": lambda d: "1990 1991 1992 1993 1994",
    "port range": lambda d: "8000-9000",
    "chip": lambda d: "4111-2222",
}

#: Name -> an integer of JSON.
INTEGERS: dict[str, Make] = {
    "timestamp": lambda d: 1_760_000_000_000 + d.rng.randrange(10**9),
    "order number": lambda d: int(d.luhn("4", 16, right=False)),
    "snowflake number": lambda d: 10**17 + d.rng.randrange(10**16),
    "large": lambda d: 2**53,
    "negative": lambda d: -int(d.luhn("4", 15)),
}

#: Keys of objects that name no secret, and what stands beside them.
KEYS: tuple[tuple[str, Any], ...] = (
    ("max_tokens", 4096),
    ("tokens", 17),
    ("token_count", 12),
    ("total_tokens", 99),
    ("tokenizer", "gpt2-medium"),
    ("token_type", "Bearer"),
    ("tokens", ["the", "quick", "fox"]),
    ("token", 5),
    ("token", True),
    ("token", None),
    ("token", ""),
    ("token", "the"),
    ("tokenize", "yes please"),
    ("next_page_token", "CAUQAAoUChQxNzYwMDAwMDAw"),
    ("nextPageToken", "EAAaBlBUOkNBVQ12345678"),
    ("continuationToken", "eyab12cd34ef56gh78ij90"),
    ("progressToken", "8f14e45f-ceea-467f"),
    ("progressToken", 3),
    ("stop_token", "</s>"),
    ("eos_token", "<|endoftext|>"),
    ("cursor", "b64:MTc2MDAwMDAwMDAwMA"),
    ("password", ""),
    ("password", None),
    ("password", True),
    ("password", "********"),
    ("password", "${DB_PASSWORD}"),
    ("password", "{{ vault.db }}"),
    ("password", "<password>"),
    ("password_policy", "at least 12 characters, 1 digit"),
    ("password_min_length", 12),
    ("passwordExpiresAt", "2026-12-31"),
    ("password_field", "login_pw_2"),
    ("password_hint", "name of 1st pet"),
    ("forgot_password_url", "https://example.com/forgot?step=1"),
    ("passenger", "Bob Miller 2"),
    ("passport_country", "DE"),
    ("compass", "NNE 22.5"),
    ("bypass", "rule-17"),
    ("secretary", "Jane Doe 7"),
    ("secret_name", "prod/db-password-1"),
    ("secretArn", "arn:aws:x:y"),
    ("is_secret", False),
    ("secrets_count", 3),
    ("has_secret", True),
    ("key", "name"),
    ("key", "user:1234:profile"),
    ("key", "Enter"),
    ("key", "C# minor"),
    ("keyboard", "qwertz-de-105"),
    ("monkey", "Koko the 3rd"),
    ("primary_key", "order_id"),
    ("foreign_key", "customer_id"),
    ("sort_key", "2026-11-22#0001"),
    ("partition_key", "tenant#42"),
    ("public_key", "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE"),
    ("keywords", "api key, token, password"),
    ("api_key_id", "key_01HZX3"),
    ("key_id", "AB12CD34EF56"),
    ("keyPath", "/etc/keys/a.pem"),
    ("cache_key", "v1/users/42/avatar"),
    ("idempotency_key", "order-2026-000123"),
    ("translation_key", "login.password.label"),
    ("author", "J. R. R. Tolkien"),
    ("authors", ["Ann Leckie"]),
    ("authority", "https://login.example.com/common"),
    ("auth", "none"),
    ("auth", "oauth2"),
    ("auth_type", "basic"),
    ("authorized", True),
    ("authorization_url", "https://example.com/oauth/authorize"),
    ("token_endpoint", "https://example.com/oauth/token"),
    ("credentials", "same-origin"),
    ("credential_type", "password"),
    ("credentials_file", "~/.aws/credentials"),
    ("session", "Morning session, room 12"),
    ("sessions", 4),
    ("session_count", 9),
    ("cookie", "chocolate chip"),
    ("cookies_enabled", True),
    ("pin", "GPIO17"),
    ("pinned", True),
    ("pin", 7),
    ("pwd", "/home/bob/project"),
    ("pwd", "C:\\work"),
    ("code", "def f(x):\n    return x + 1"),
    ("hash", "d41d8cd98f00b204e9800998ecf8427e"),
    ("checksum", "sha1:2fd4e1c67a2d28fced849ee1bb76e7391b93eb12"),
    ("salt", "pinch of"),
    ("seed", 42),
    ("nonce", 7),
    ("state", "California"),
    ("signature", "Kind regards, Bob"),
    ("signature", "def f(a: int) -> str"),
    ("bearer", "ring"),
    ("access", "read-write"),
    ("pass", True),
    ("first_pass", False),
    ("otp_enabled", True),
    ("verifier", "Bob"),
    ("sid", "short"),
    ("assertion", "x equals 5"),
    ("pan", "left"),
    ("pat", "Patricia"),
    ("cvv_required", True),
)

#: Texts that people and programs write about secrets.
TEXTS: tuple[str, ...] = (
    "Please reset my password, I forgot it.",
    "The password must be at least 12 characters long and contain 1 digit.",
    "Password: must contain 8 to 64 characters.",
    "What is the token limit of this model? I think it is 128k tokens.",
    "Explain the difference between a token and a secret.",
    "Her secret was safe with him.",
    "The secret is patience.",
    "token: string",
    "password: str",
    "password: str = Field(min_length=8)",
    "password: required",
    "  password: string;",
    "api_key: Optional[str] = None",
    "secret?: string | undefined",
    "def login(user: str, password: str) -> Token:",
    "const { token, password } = req.body;",
    "password = getpass.getpass()",
    "token = get_token(user)",
    "api_key = os.environ['API_KEY']",
    "token = response.json()['token']",
    "self.password = password",
    "if password == confirm_password:",
    "password = None",
    "token = ''",
    "secret = settings.SECRET",
    "apiKey: process.env.API_KEY,",
    "SELECT id, password_hash FROM users WHERE token IS NULL",
    "CREATE TABLE t (password text NOT NULL, token varchar(64))",
    "ALTER TABLE users ADD COLUMN api_key text",
    "GRANT SELECT ON tokens TO app",
    "export API_KEY=$(cat /run/secrets/key)",
    "export TOKEN=$GITHUB_TOKEN",
    "docker run -e PASSWORD=${PASSWORD} app",
    "--password-file /run/secrets/db",
    'curl -H "Authorization: Bearer $TOKEN" https://x.test',
    'curl -u "$USER:$PASS" https://x.test',
    "Authorization: Bearer <token>",
    "Use Bearer authentication, not Basic authentication.",
    "The bearer of this letter is my friend.",
    "Basic understanding of algebra",
    "Basic English vocabulary",
    "Token authentication was introduced in version 2",
    "Authorization: see section 4",
    "Cookie: what browsers keep",
    "Digest authentication considered harmful",
    "https://example.com/reset-password?step=2",
    "https://user@example.com/path",
    "http://localhost:8080/login?next=/token",
    "postgres://localhost:5432/app",
    "mailto:bob@example.com",
    "git@github.com:acme/token-service.git",
    "redis://cache:6379/0",
    "https://example.com/a:b@c/d",
    "jdbc:postgresql://db:5432/app?user=app",
    "ssh://git@host:2222/x.git",
    "https://${USER}:${PASSWORD}@example.com",
    "s3://bucket/key=1/part-0001",
    "The word 'password' has 8 letters.",
    "Passwords were leaked: 3 of 4 users changed theirs.",
    "My favourite key is C sharp minor, opus 27.",
    "Press any key: Enter, Space or Esc",
    "key: value",
    "key = value",
    "The api key was revoked yesterday.",
    "API key: see the vault",
    "api key: ask Bob",
    "token was invalid",
    "the token is expired",
    "the password is wrong",
    "Your secret is required.",
    "secret santa: Friday at 5",
    "Error: invalid token at line 3: unexpected '}'",
    "SyntaxError: Unexpected token < in JSON at position 0",
    "CSRF token missing or incorrect.",
    "Token used too late, 1760000000 < 1760000300",
    'WARNING: password authentication failed for user "app"',
    "FATAL: password authentication failed",
    "permission denied: secret/data/prod",
    "sk-learn is a library; task-1234567890 is a task",
    "npm_config_registry=https://registry.npmjs.org/",
    "pypi-publish is an action",
    "ghp_ is how such tokens begin",
    "AKIA is a prefix",
    "xoxb- tokens belong to bots",
    "eyJ is how JSON begins in base64",
    "-----BEGIN is how armour begins",
    "He was born on 1990-01-01 and paid 4 times.",
    "Call 0800 123 4567 between 9 and 17.",
    "Chapter 4111: the 1111 tests",
    "Room 3782 822463 10006",
    "pins 4-8 are digital",
    "pass the salt",
    "compass: north",
    "mysql -u root -p",
    "ssh -p 2222 host",
    "tar -p -xf a.tar",
    "git push --force-with-lease",
    "kubectl get secret db -o yaml",
    "gh auth token",
    "vault read secret/db",
    "passwd: all authentication tokens updated successfully.",
    "session: 12 rooms, 400 people",
    "class TokenBucket(Bucket): pass",
    "for token in tokens: print(token)",
    "import secrets, tokenize",
    "type Token = { kind: string; value: string }",
    "message Secret { string name = 1; bytes value = 2; }",
    "password\tuser\thost",
    "| token | purpose |",
    "# Password policy",
    "- [ ] rotate secrets",
    "login and password: both are needed",
    "auth: basic",
    "pwd: /home/bob",
    "PWD=/home/bob",
    "OLDPWD=/tmp",
    "TOKEN_TTL=3600",
    "PASSWORD_RESET_URL=https://example.com/reset",
    "SECRET_NAME=prod-db",
    "token_type=bearer&expires_in=3600",
    "grant_type=password&scope=read",
    "response_type=code&client_id=web-app-1",
    "https://example.com/?page_token=2&key=name",
    "sort=key&order=asc",
    "max_tokens=256",
    "x=1;token_count=5",
    "cookie=accepted",
)


def schemas() -> Iterator[Case]:
    """Schemas and descriptions of tools with properties that would hold secrets."""
    text = {"type": "string", "description": "API token, see https://example.com/tokens"}
    properties = {
        "token": text,
        "password": {"type": "string", "minLength": 8},
        "api_key": {"type": ["string", "null"]},
        "secret": {"$ref": "#/defs/S"},
    }
    yield Case("schema", {"type": "object", "properties": properties, "required": ["token", "password"]})
    yield Case("schema required alone", {"required": ["token", "password"]})
    yield Case(
        "tool", {"name": "login", "description": "Sends user and password.", "inputSchema": {"properties": properties}}
    )
    yield Case(
        "schema as text",
        {"schema": json.dumps({"properties": {"token": {"type": "string"}, "password": {"type": "string"}}})},
    )
    yield Case("schema with any of", {"properties": {"credentials": {"anyOf": [{"type": "string"}, {"type": "null"}]}}})
    yield Case("open api", {"securitySchemes": {"apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"}}})
    yield Case(
        "form",
        {"fields": [{"name": "password", "type": "password", "label": "Password"}, {"name": "token", "hidden": True}]},
    )
    yield Case("columns", {"columns": ["id", "password_hash", "token", "created_at"]})
    yield Case("pairs of names", {"pairs": [["a", "b"], ["token", ""]]})
    yield Case(
        "environment by reference",
        {"env": [{"name": "DB_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}}]},
    )
    yield Case("environment by variable", {"env": {"GITHUB_TOKEN": "${GITHUB_TOKEN}", "API_KEY": "$API_KEY"}})
    yield Case("usage", {"usage": {"input_tokens": 12, "output_tokens": 300, "cached_tokens": 4, "total_tokens": 312}})
    yield Case(
        "public web key", {"kty": "RSA", "n": "sXchDaQebHnPiGvyDOAT4saGEUetSyo9MKLOoWFsueri23bOdgWp4Dy1Wl", "e": "AQAB"}
    )


def encoded(draw: Draw) -> Iterator[Case]:
    """Content in base64 and the like."""
    image = base64.b64encode(b"\x89PNG\r\n\x1a\n" + draw.rng.randbytes(900)).decode()
    yield Case("image", {"type": "image", "data": image, "mimeType": "image/png"})
    yield Case("data url", {"src": f"data:image/png;base64,{image}"})
    yield Case("jpeg", {"data": "/9j/4AAQSkZJRg" + draw.base64(600)})
    yield Case("pdf", {"blob": "JVBERi0xLjQK" + draw.base64(600)})
    yield Case("hex dump", {"text": " ".join(draw.of(HEX, 2) for _ in range(64))})
    yield Case("gzip", {"body": "H4sIAAAAAAAA" + draw.base64(300)})
    yield Case("wrapped base64", "\n".join(draw.of(BASE64, 76) for _ in range(5)))
    yield Case("embedding", {"vector": [draw.rng.uniform(-1, 1) for _ in range(50)]})
    yield Case("source map", {"mappings": "AAAA,SAASA,MAAMC;AACA" + draw.of(UPPER, 60)})
    yield Case("svg path", {"d": "M10 80 C 40 10, 65 10, 95 80 S 150 150, 180 80"})
    yield Case("minified", "function a(b){var c=b.token,d=b.key;return c?d:null}")
    yield Case("content hash", {"content_hash": hashlib.sha256(draw.rng.randbytes(8)).hexdigest()})
    yield Case(
        "lock file",
        {"integrity": f"sha512-{draw.base64(64)}", "resolved": "https://registry.npmjs.org/a/-/a-1.0.0.tgz"},
    )


def harmless(seed: int) -> list[Case]:
    """All of them."""
    draw = Draw(seed)
    found = [Case(name, {"id": make(draw)}) for name, make in IDENTITIES.items()]
    found += [Case(name, {"note": make(draw)}) for name, make in NUMBERS.items()]
    found += [Case(name, {"n": make(draw)}) for name, make in INTEGERS.items()]
    found += [Case(f"{name}={value!r}", {name: value}) for name, value in KEYS]
    found += [Case(text, {"text": text}) for text in TEXTS]
    return [*found, *schemas(), *encoded(draw)]
