"""Secrets: tokens of providers in the texts that they turn up in, keys of objects, headers, URLs, files, cards."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any

from tests.unit.audit.corpus import ALNUM, BASE32, BASE64, DIGITS, HEX, LOWER, UPPER, URL64, Case, Draw

Token = Callable[[Draw], str]

#: Provider and kind -> a token as the provider documents it, or as published scanners know it.
TOKENS: dict[str, Token] = {
    "aws access key": lambda d: "AKIA" + d.of(UPPER + "234567", 16),
    "aws temporary key": lambda d: "ASIA" + d.of(UPPER + "234567", 16),
    "aws bearer key": lambda d: "ABIA" + d.of(UPPER + "234567", 16),
    "aws context key": lambda d: "ACCA" + d.of(UPPER + "234567", 16),
    "aws mws": lambda d: "amzn.mws." + d.uuid(),
    "aws bedrock key": lambda d: "ABSK" + d.of(BASE64, 128),
    "gcp api key": lambda d: "AIza" + d.of(URL64, 35),
    "gcp access token": lambda d: "ya29." + d.of(URL64, 120, 200),
    "gcp client secret": lambda d: "GOCSPX-" + d.of(URL64, 28),
    "gcp refresh token": lambda d: "1//0" + d.of(URL64, 60, 100),
    "azure client secret": lambda d: d.of(ALNUM, 3) + "8Q~" + d.of(ALNUM + "~._-", 33) + "a",
    "azure devops token": lambda d: d.of(ALNUM, 76) + "AZDO" + d.of(ALNUM, 4),
    "github personal": lambda d: "ghp_" + d.of(ALNUM, 36),
    "github oauth": lambda d: "gho_" + d.of(ALNUM, 36),
    "github user": lambda d: "ghu_" + d.of(ALNUM, 36),
    "github server": lambda d: "ghs_" + d.of(ALNUM, 36),
    "github refresh": lambda d: "ghr_" + d.of(ALNUM, 76),
    "github fine-grained": lambda d: f"github_pat_{d.of(ALNUM, 22)}_{d.of(ALNUM, 59)}",
    "gitlab personal": lambda d: "glpat-" + d.of(URL64, 20),
    "gitlab routable": lambda d: f"glpat-{d.of(URL64, 27)}.{d.of(LOWER + DIGITS, 9)}",
    "gitlab deploy": lambda d: "gldt-" + d.of(URL64, 20),
    "gitlab runner": lambda d: "glrt-" + d.of(URL64, 20),
    "gitlab trigger": lambda d: "glptt-" + d.of(HEX, 40),
    "gitlab job": lambda d: f"glcbt-{d.of(HEX, 2)}_{d.of(URL64, 20)}",
    "gitlab feed": lambda d: "glft-" + d.of(URL64, 20),
    "gitlab registration": lambda d: "GR1348941" + d.of(URL64, 20),
    "slack bot": lambda d: f"xoxb-{d.of(DIGITS, 12)}-{d.of(DIGITS, 13)}-{d.of(ALNUM, 24)}",
    "slack user": lambda d: f"xoxp-{d.of(DIGITS, 12)}-{d.of(DIGITS, 12)}-{d.of(DIGITS, 12)}-{d.of(HEX, 32)}",
    "slack app": lambda d: f"xapp-1-A{d.of(UPPER + DIGITS, 10)}-{d.of(DIGITS, 13)}-{d.of(HEX, 64)}",
    "slack legacy": lambda d: f"xoxs-{d.of(DIGITS, 10)}-{d.of(DIGITS, 10)}-{d.of(DIGITS, 10)}-{d.of(HEX, 10)}",
    "slack refresh": lambda d: "xoxe-1-" + d.of(ALNUM, 146),
    "slack rotating": lambda d: "xoxe.xoxp-1-" + d.of(ALNUM, 163),
    "slack webhook": lambda d: (
        f"hooks.slack.com/services/T{d.of(UPPER + DIGITS, 8)}/B{d.of(UPPER + DIGITS, 10)}/{d.of(ALNUM, 24)}"
    ),
    "stripe live": lambda d: "sk_live_" + d.of(ALNUM, 24),
    "stripe long": lambda d: "sk_live_51" + d.of(ALNUM, 97),
    "stripe test": lambda d: "sk_test_" + d.of(ALNUM, 24),
    "stripe restricted": lambda d: "rk_live_" + d.of(ALNUM, 24),
    "stripe webhook": lambda d: "whsec_" + d.of(ALNUM, 32),
    "openai old": lambda d: f"sk-{d.of(ALNUM, 20)}T3BlbkFJ{d.of(ALNUM, 20)}",
    "openai project": lambda d: f"sk-proj-{d.of(URL64, 74)}T3BlbkFJ{d.of(URL64, 74)}",
    "openai service account": lambda d: f"sk-svcacct-{d.of(URL64, 58)}T3BlbkFJ{d.of(URL64, 58)}",
    "openai admin": lambda d: f"sk-admin-{d.of(URL64, 58)}T3BlbkFJ{d.of(URL64, 58)}",
    "deepseek": lambda d: "sk-" + d.of(HEX, 32),
    "openrouter": lambda d: "sk-or-v1-" + d.of(HEX, 64),
    "anthropic": lambda d: f"sk-ant-api03-{d.of(URL64, 93)}AA",
    "anthropic admin": lambda d: f"sk-ant-admin01-{d.of(URL64, 93)}AA",
    "anthropic oauth": lambda d: f"sk-ant-oat01-{d.of(URL64, 86)}",
    "npm": lambda d: "npm_" + d.of(ALNUM, 36),
    "pypi": lambda d: "pypi-AgEIcHlwaS5vcmc" + d.of(URL64, 150),
    "test pypi": lambda d: "pypi-AgENdGVzdC5weXBpLm9yZw" + d.of(URL64, 150),
    "rubygems": lambda d: "rubygems_" + d.of(HEX, 48),
    "crates.io": lambda d: "cio" + d.of(ALNUM, 32),
    "nuget": lambda d: "oy2" + d.of(LOWER + DIGITS, 43),
    "clojars": lambda d: "CLOJARS_" + d.of(LOWER + DIGITS, 60),
    "docker personal": lambda d: "dckr_pat_" + d.of(URL64, 27),
    "docker organisation": lambda d: "dckr_oat_" + d.of(ALNUM, 32),
    "hugging face": lambda d: "hf_" + d.of(ALNUM, 34),
    "groq": lambda d: "gsk_" + d.of(ALNUM, 52),
    "xai": lambda d: "xai-" + d.of(ALNUM, 80),
    "replicate": lambda d: "r8_" + d.of(ALNUM, 37),
    "perplexity": lambda d: "pplx-" + d.of(ALNUM, 48),
    "nvidia": lambda d: "nvapi-" + d.of(URL64, 64),
    "elevenlabs": lambda d: "sk_" + d.of(HEX, 48),
    "langsmith": lambda d: f"lsv2_pt_{d.of(HEX, 32)}_{d.of(HEX, 10)}",
    "tavily": lambda d: "tvly-" + d.of(ALNUM, 32),
    "firecrawl": lambda d: "fc-" + d.of(HEX, 32),
    "sendgrid": lambda d: f"SG.{d.of(URL64, 22)}.{d.of(URL64, 43)}",
    "brevo": lambda d: f"xkeysib-{d.of(HEX, 64)}-{d.of(ALNUM, 16)}",
    "mailgun": lambda d: "key-" + d.of(HEX, 32),
    "mailchimp": lambda d: f"{d.of(HEX, 32)}-us{d.of('123456789', 1)}",
    "mailersend": lambda d: "mlsn." + d.of(HEX, 64),
    "resend": lambda d: f"re_{d.of(ALNUM, 8)}_{d.of(ALNUM, 24)}",
    "twilio key": lambda d: "SK" + d.of(HEX, 32),
    "telegram bot": lambda d: f"{d.of('123456789', 1)}{d.of(DIGITS, 9)}:AA{d.of(URL64, 32)}x",
    "discord bot": lambda d: f"M{d.of(ALNUM, 25)}.{d.of(URL64, 6)}.{d.of(URL64, 37)}a",
    "discord webhook": lambda d: f"discord.com/api/webhooks/{d.of('123456789', 18)}/{d.of(URL64, 68)}",
    "shopify access": lambda d: "shpat_" + d.of(HEX, 32),
    "shopify custom": lambda d: "shpca_" + d.of(HEX, 32),
    "shopify secret": lambda d: "shpss_" + d.of(HEX, 32),
    "square access": lambda d: "sq0atp-" + d.of(URL64, 22),
    "square secret": lambda d: "sq0csp-" + d.of(URL64, 43),
    "square production": lambda d: "EAAA" + d.of(URL64, 60),
    "facebook": lambda d: "EAAC" + d.of(ALNUM, 150),
    "braintree": lambda d: f"access_token$production${d.of(LOWER + DIGITS, 16)}${d.of(HEX, 32)}",
    "plaid": lambda d: "access-production-" + d.uuid(),
    "flutterwave": lambda d: f"FLWSECK_TEST-{d.of(HEX, 32)}-X",
    "digitalocean": lambda d: "dop_v1_" + d.of(HEX, 64),
    "digitalocean oauth": lambda d: "doo_v1_" + d.of(HEX, 64),
    "heroku": lambda d: "HRKU-AA" + d.of(URL64, 58),
    "fly": lambda d: "fo1_" + d.of(URL64, 43),
    "fly macaroon": lambda d: "fm2_" + d.of(BASE64, 200),
    "netlify": lambda d: "nfp_" + d.of(ALNUM, 36),
    "cloudflare origin": lambda d: f"v1.0-{d.of(HEX, 24)}-{d.of(HEX, 146)}",
    "databricks": lambda d: "dapi" + d.of(HEX, 32),
    "dynatrace": lambda d: f"dt0c01.{d.of(UPPER + DIGITS, 24)}.{d.of(UPPER + DIGITS, 64)}",
    "grafana cloud": lambda d: "glc_" + d.of(BASE64, 80),
    "grafana service": lambda d: f"glsa_{d.of(ALNUM, 32)}_{d.of(HEX, 8)}",
    "new relic": lambda d: "NRAK-" + d.of(UPPER + DIGITS, 27),
    "sentry user": lambda d: "sntryu_" + d.of(HEX, 64),
    "linear": lambda d: "lin_api_" + d.of(ALNUM, 40),
    "notion": lambda d: f"ntn_{d.of(DIGITS, 11)}{d.of(ALNUM, 35)}",
    "notion old": lambda d: "secret_" + d.of(ALNUM, 43),
    "figma": lambda d: "figd_" + d.of(URL64, 40),
    "atlassian": lambda d: "ATATT3" + d.of(URL64 + "=", 186),
    "bitbucket": lambda d: "ATBB" + d.of(ALNUM, 32),
    "postman": lambda d: f"PMAK-{d.of(HEX, 24)}-{d.of(HEX, 34)}",
    "airtable": lambda d: f"pat{d.of(ALNUM, 14)}.{d.of(HEX, 64)}",
    "hubspot": lambda d: "pat-na1-" + d.uuid(),
    "asana": lambda d: f"1/{d.of('123456789', 16)}:{d.of(HEX, 32)}",
    "vault service": lambda d: "hvs." + d.of(URL64, 90),
    "vault batch": lambda d: "hvb." + d.of(URL64, 150),
    "terraform cloud": lambda d: f"{d.of(ALNUM, 14)}.atlasv1.{d.of(URL64, 67)}",
    "pulumi": lambda d: "pul-" + d.of(HEX, 40),
    "doppler": lambda d: "dp.pt." + d.of(ALNUM, 43),
    "1password secret key": lambda d: (
        f"A3-{d.of(UPPER + DIGITS, 6)}-{d.of(UPPER + DIGITS, 6)}-" + "-".join(d.of(UPPER + DIGITS, 5) for _ in range(4))
    ),
    "1password service account": lambda d: "ops_eyJ" + d.of(BASE64, 300),
    "supabase": lambda d: "sbp_" + d.of(HEX, 40),
    "supabase secret": lambda d: f"sb_secret_{d.of(URL64, 22)}_{d.of(URL64, 8)}",
    "planetscale": lambda d: "pscale_tkn_" + d.of(URL64, 43),
    "mapbox secret": lambda d: f"sk.eyJ1Ijoi{d.of(ALNUM, 60)}.{d.of(URL64, 22)}",
    "age": lambda d: "AGE-SECRET-KEY-1" + d.of("QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L", 58),
    "dropbox": lambda d: "sl." + d.of(URL64, 135),
    "twitter bearer": lambda d: "A" * 22 + d.of(ALNUM + "%", 80),
    "circleci": lambda d: f"CCIPAT_{d.of(ALNUM, 22)}_{d.of(HEX, 40)}",
    "buildkite": lambda d: "bkua_" + d.of(HEX, 40),
    "sonarqube": lambda d: "squ_" + d.of(HEX, 40),
    "artifactory": lambda d: "AKCp" + d.of(ALNUM, 69),
    "alibaba": lambda d: "LTAI" + d.of(ALNUM, 20),
    "prefect": lambda d: "pnu_" + d.of(ALNUM, 36),
    "tailscale": lambda d: f"tskey-auth-{d.of(ALNUM, 16)}-{d.of(ALNUM, 32)}",
    "sourcegraph": lambda d: f"sgp_{d.of(HEX, 16)}_{d.of(HEX, 40)}",
    "openshift": lambda d: "sha256~" + d.of(URL64, 43),
    "octopus": lambda d: "API-" + d.of(UPPER + DIGITS, 26),
    "duffel": lambda d: "duffel_live_" + d.of(URL64, 43),
    "readme": lambda d: "rdme_" + d.of(LOWER + DIGITS, 70),
    "our key": lambda d: f"mcpm_{d.of(ALNUM, 12)}_{d.of(ALNUM, 43)}_{d.of(HEX, 8)}",
    "bcrypt": lambda d: "$2b$12$" + d.of(ALNUM + "./", 53),
    "sha512-crypt": lambda d: f"$6${d.of(ALNUM, 16)}${d.of(ALNUM + './', 86)}",
    "argon2": lambda d: f"$argon2id$v=19$m=65536,t=3,p=4${d.of(BASE64, 22)}${d.of(BASE64, 43)}",
    "jwt hs256": lambda d: ".".join(
        (d.url64('{"alg":"HS256","typ":"JWT"}'), d.url64(json.dumps({"sub": d.of(DIGITS, 10)})), d.of(URL64, 43))
    ),
    "jwt rs256": lambda d: ".".join(
        (d.url64('{"alg":"RS256","kid":"1"}'), d.url64(json.dumps({"sub": d.of(ALNUM, 30)})), d.of(URL64, 342))
    ),
    "jwe": lambda d: ".".join(
        (d.url64('{"alg":"RSA-OAEP","enc":"A256GCM"}'), *(d.of(URL64, size) for size in (342, 16, 80, 22)))
    ),
}

#: Where a token turns up.
PLACES: tuple[Callable[[str], Any], ...] = (
    lambda secret: secret,
    lambda secret: {"text": f"use {secret} for now"},
    lambda secret: {"command": f"curl -H 'X-Custom: {secret}' https://api.example.com/v1"},
    lambda secret: {"body": json.dumps({"note": secret})},
    lambda secret: [{"line": f'client = Client("{secret}")'}],
    lambda secret: {"log": f"2026-01-01T00:00:00Z INFO using {secret}\nnext line"},
    lambda secret: {"escaped": json.dumps(json.dumps({"a": f"\n{secret}\n"}))},
    lambda secret: {secret: "as a key"},
)


def tokens(draw: Draw) -> Iterator[Case]:
    """Each token in one of the places."""
    for number, (name, make) in enumerate(TOKENS.items()):
        secret = make(draw)
        yield Case(name, PLACES[number % len(PLACES)](secret), (secret,))


#: Keys of objects, and what stands beside them.
NAMED: tuple[tuple[str, Token], ...] = (
    ("password", Draw.password),
    ("Password", Draw.password),
    ("passwd", Draw.password),
    ("user_password", Draw.password),
    ("newPassword", Draw.password),
    ("password_confirmation", Draw.password),
    ("dbPassword", Draw.password),
    ("DB_PASS", Draw.password),
    ("MYSQL_PWD", Draw.password),
    ("PGPASSWORD", Draw.password),
    ("passphrase", lambda d: "correct horse battery staple"),
    ("smtp.password", Draw.password),
    ("secret", lambda d: d.of(ALNUM, 20)),
    ("client_secret", lambda d: d.of(ALNUM, 32)),
    ("clientSecret", lambda d: d.of(ALNUM, 40)),
    ("app-secret", lambda d: d.of(HEX, 32)),
    ("SECRET_KEY", lambda d: d.of(ALNUM + "!@#%^&*(-_=+)", 50)),
    ("aws_secret_access_key", lambda d: d.of(BASE64, 40)),
    ("token", lambda d: d.of(HEX, 40)),
    ("access_token", lambda d: d.of(ALNUM, 32)),
    ("accessToken", lambda d: d.of(URL64, 43)),
    ("refresh_token", lambda d: d.of(ALNUM, 64)),
    ("id_token", lambda d: d.of(URL64, 43)),
    ("auth-token", lambda d: d.of(HEX, 32)),
    ("X-Auth-Token", lambda d: d.of(HEX, 32)),
    ("csrf_token", lambda d: d.of(HEX, 64)),
    ("TWILIO_AUTH_TOKEN", lambda d: d.of(HEX, 32)),
    ("api_key", lambda d: d.of(HEX, 32)),
    ("apiKey", lambda d: d.of(ALNUM, 24)),
    ("APIKEY", lambda d: d.of(ALNUM, 24)),
    ("X-API-Key", lambda d: d.of(ALNUM, 36)),
    ("x-functions-key", lambda d: d.of(URL64, 54) + "=="),
    ("DATADOG_API_KEY", lambda d: d.of(HEX, 32)),
    ("DD_APP_KEY", lambda d: d.of(HEX, 40)),
    ("HEROKU_API_KEY", Draw.uuid),
    ("encryption_key", lambda d: d.base64(32)),
    ("account_key", lambda d: d.base64(64)),
    ("signing_key", lambda d: d.of(HEX, 64)),
    ("private_key", lambda d: d.base64(48)),
    ("master_key", lambda d: d.of(HEX, 64)),
    ("MAILJET_KEY", lambda d: d.of(HEX, 32)),
    ("key", lambda d: d.of(ALNUM, 40)),
    ("credentials", lambda d: f"{d.of(LOWER, 6)}:{d.of(ALNUM, 12)}"),
    ("Authorization", lambda d: f"AWS4-HMAC-SHA256 Signature={d.of(HEX, 64)}"),
    ("authorization", lambda d: f"Custom {d.of(ALNUM, 30)}"),
    ("proxy-authorization", lambda d: f"Digest response={d.of(HEX, 32)}"),
    ("cookie", lambda d: f"sid={d.of(ALNUM, 26)}; theme=dark"),
    ("Set-Cookie", lambda d: f"session={d.of(URL64, 40)}; HttpOnly"),
    ("session_id", lambda d: d.of(ALNUM, 32)),
    ("JSESSIONID", lambda d: d.of(UPPER + DIGITS, 32)),
    ("signature", lambda d: d.of(HEX, 64)),
    ("code_verifier", lambda d: d.of(URL64, 64)),
    ("cvv", lambda d: d.of(DIGITS, 3)),
    ("pin", lambda d: d.of(DIGITS, 4)),
    ("otp", lambda d: d.of(DIGITS, 6)),
    ("ssn", lambda d: f"{d.of('123456', 3)}-{d.of('1234', 2)}-{d.of('123456789', 4)}"),
    ("cardNumber", lambda d: d.luhn("4", 16)),
    ("seed_phrase", lambda d: "abandon ability able about above absent absorb"),
    ("recovery_codes", lambda d: f"{d.of(DIGITS, 4)}-{d.of(DIGITS, 4)}"),
    ("password_hash", lambda d: d.of(HEX, 64)),
    ("webhook_secret", lambda d: d.of(ALNUM, 24)),
    ("storageKey", lambda d: d.base64(64)),
    ("GH_PAT", lambda d: d.of(HEX, 40)),
)


def named(draw: Draw) -> Iterator[Case]:
    """Secrets beside a key that names them."""
    for name, make in NAMED:
        secret = make(draw)
        yield Case(f"key {name}", {"id": 7, name: secret}, (secret,))


def nested(draw: Draw) -> Iterator[Case]:
    """Secrets that an outer key names, or the member beside them, or the item before."""
    d = draw
    one, two = d.password(), d.of(ALNUM, 24)
    yield Case("object of credentials", {"credentials": {"username": "bob", "value": one}}, (one,))
    yield Case("list of secrets", {"secrets": [one, two]}, (one, two))
    yield Case("secrets by name", {"secrets": {"first": one, "second": {"third": two}}}, (one, two))
    yield Case("environment list", {"env": [{"name": "DB_PASSWORD", "value": one}]}, (one,))
    yield Case("environment object", {"env": {"LOG": "debug", "STRIPE_SECRET": two}}, (two,))
    yield Case("header list", {"headers": [["Accept", "*/*"], ["X-Api-Key", two]]}, (two,))
    yield Case("header objects", {"headers": [{"key": "Authorization", "value": f"Custom {two}"}]}, (two,))
    yield Case("arguments of a command", {"args": ["--user", "bob", "--password", one]}, (one,))
    yield Case("arguments with a token", ["deploy", "--api-token", two, "--force"], (two,))
    yield Case("password of digits only", {"password": 12345678}, ("12345678",))
    yield Case("default of a schema", {"password": {"type": "string", "default": one}}, (one,))
    private = {name: d.of(URL64, 43) for name in ("d", "p", "q")}
    yield Case("private web key", {"kty": "RSA", "n": "AQAB", **private}, tuple(private.values()))
    yield Case("symmetric web key", {"kty": "oct", "k": two}, (two,))
    yield Case("deep", {"a": [{"b": {"c": [{"client_secret": two}]}}]}, (two,))
    yield Case("nested json twice", {"x": json.dumps({"y": json.dumps({"password": one})})}, (one,))


def headers(draw: Draw) -> Iterator[Case]:
    """Values of Authorization fields, wherever they stand."""
    d = draw
    opaque, user = d.of(URL64, 40), base64.b64encode(f"{d.of(LOWER, 6)}:{d.password()}".encode()).decode()
    for name, text in {
        "bearer value": "Bearer {}",
        "bearer lower case": "bearer {}",
        "bearer in curl": "curl -H 'Authorization: Bearer {}' https://x.test",
        "bearer in prose": "send Bearer {} with it",
        "bearer header lines": "Host: x.test\nAuthorization: Bearer {}\nAccept: */*",
        "token scheme": "Authorization: Token {}",
        "unknown scheme": "Authorization: Custom {}",
        "no scheme": "Authorization: {}",
        "okta scheme": "Authorization: SSWS {}",
        "api key header": "X-Api-Key: {}",
        "cookie line": "Cookie: sid={}; a=b",
        "set-cookie line": "Set-Cookie: id={}; Secure; HttpOnly",
        "python headers": 'headers = {{"Authorization": "Bearer {}"}}',
        "private token header": 'curl --header "PRIVATE-TOKEN: {}" https://git.example.com',
    }.items():
        yield Case(name, {"value": text.format(opaque)}, (opaque,))
    for name, text in {
        "basic value": "Basic {}",
        "basic header": "Authorization: Basic {}",
        "basic in code": "h['x']='Basic {}'",
    }.items():
        yield Case(name, {"text": text.format(user)}, (user,))


def urls(draw: Draw) -> Iterator[Case]:
    """Passwords in URLs, and what signs them."""
    d = draw
    for scheme in (
        "postgres",
        "postgresql+asyncpg",
        "mysql",
        "mongodb+srv",
        "redis",
        "rediss",
        "amqp",
        "ldap",
        "smtp",
        "ftp",
        "https",
        "sftp",
        "clickhouse",
    ):
        secret = d.of(ALNUM, 12)
        yield Case(f"password in {scheme}", {"url": f"{scheme}://app:{secret}@db.example.com:5432/x"}, (secret,))
    secret = d.of(ALNUM, 8) + "#/p?" + d.of(ALNUM, 4)
    yield Case("password with signs", f"connect to postgres://app:{secret}@db/x please", (secret,))
    secret = d.of(HEX, 40)
    yield Case("token as user", f"git clone https://{secret}@git.example.com/a.git", (secret,))
    yield Case("redis without user", f"redis://:{secret}@cache:6379/0", (secret,))
    for name in (
        "access_token",
        "token",
        "api_key",
        "apikey",
        "client_secret",
        "sig",
        "X-Amz-Signature",
        "X-Amz-Security-Token",
        "password",
        "auth_token",
        "key",
    ):
        secret = d.of(ALNUM, 40)
        yield Case(f"query {name}", {"url": f"https://example.com/p?a=1&{name}={secret}&b=2"}, (secret,))


#: Templates of texts in which a password or an opaque secret is assigned.
TEXTS: dict[str, str] = {
    "env file": "DEBUG=1\nDB_PASSWORD={}\nPORT=80",
    "export": "export API_TOKEN={}",
    "quoted env": 'SECRET_KEY="{}"',
    "docker": "docker run -e MYSQL_ROOT_PASSWORD={} mysql",
    "yaml": "user: app\npassword: {}\nhost: db",
    "yaml quoted": "  secret: '{}'",
    "json text": '{{"user": "a", "password": "{}"}}',
    "escaped json": '"{{\\"password\\":\\"{}\\"}}"',
    "python": 'password = "{}"',
    "python call": 'connect(user="a", password="{}")',
    "javascript": "const apiKey = '{}';",
    "go": 'token := "{}"',
    "ruby": "secret => '{}'",
    "toml": 'api_key = "{}"',
    "properties": "spring.datasource.password={}",
    "ini": "[db]\npasswd = {}1x\n",
    "ado": "Server=db;User Id=a;Password={};Encrypt=yes",
    "odbc": "Driver=x;Uid=a;Pwd={};",
    "azure storage": "DefaultEndpointsProtocol=https;AccountName=a;AccountKey={};EndpointSuffix=core",
    "azure bus": "Endpoint=sb://x.test/;SharedAccessKeyName=Root;SharedAccessKey={}",
    "libpq": "host=db user=a password={} dbname=x",
    "long option": "tool --password {} --verbose",
    "long option with equals": "tool --api-key={} run",
    "curl user": "curl -u admin:{} https://x.test",
    "mysql short": "mysql -u root -p{} app",
    "sshpass": "sshpass -p {} ssh host",
    "netrc": "machine x.test login bob password {}",
    "prose is": "my password is {} by the way",
    "prose colon": "The password: {}, keep it safe",
    "npmrc": "//registry.npmjs.org/:_authToken={}",
    "pip": "index-url = https://user:{}@pypi.example.com/simple",
    "xml attribute": '<add key="x" password="{}" />',
    "powershell": "$password = '{}'",
    "sql": "ALTER USER app PASSWORD='{}'",
    "helm": "helm install --set auth.password={} x",
    "form": "grant_type=password&username=bob&password={}",
    "aws credentials": "[default]\naws_secret_access_key = {}",
    "terraform": 'secret_key = "{}"',
}


def texts(draw: Draw) -> Iterator[Case]:
    """Assignments, options, connection strings."""
    for number, (name, text) in enumerate(TEXTS.items()):
        secret = draw.password() if number % 2 else draw.of(ALNUM, 24)
        yield Case(name, {"content": text.format(secret)}, (secret,))


def files(draw: Draw) -> Iterator[Case]:
    """Private keys in armour, whole and cut off."""
    for kind in ("", "RSA ", "EC ", "DSA ", "OPENSSH ", "ENCRYPTED "):
        lines = [draw.of(BASE64, 64) for _ in range(8)]
        text = f"-----BEGIN {kind}PRIVATE KEY-----\n" + "\n".join(lines) + f"\n-----END {kind}PRIVATE KEY-----\n"
        yield Case(f"pem {kind or 'pkcs8'}", {"file": f"before\n{text}after"}, tuple(lines))
    lines = [draw.of(BASE64, 64) for _ in range(8)]
    body = "\n".join(lines)
    yield Case(
        "pgp", f"-----BEGIN PGP PRIVATE KEY BLOCK-----\n\n{body}\n-----END PGP PRIVATE KEY BLOCK-----", tuple(lines)
    )
    yield Case("pem cut off", f"-----BEGIN RSA PRIVATE KEY-----\n{body}", tuple(lines))
    yield Case(
        "pem in one line",
        {"k": f"-----BEGIN PRIVATE KEY-----\\n{lines[0]}\\n-----END PRIVATE KEY-----\\n"},
        (lines[0],),
    )
    yield Case(
        "putty",
        f"PuTTY-User-Key-File-3: ssh-rsa\nPrivate-Lines: 1\n{lines[0]}\nPrivate-MAC: {draw.of(HEX, 64)}",
        (lines[0],),
    )
    account = {
        "type": "service_account",
        "private_key_id": "1",
        "private_key": f"-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n",
    }
    yield Case("service account", account, tuple(lines))
    yield Case("service account as text", {"file": json.dumps(account)}, tuple(lines))


CARDS = (
    ("visa", "4", 16),
    ("mastercard", "53", 16),
    ("mastercard two", "2345", 16),
    ("amex", "37", 15),
    ("amex 34", "34", 15),
    ("discover", "6011", 16),
    ("discover 65", "65", 16),
    ("diners", "36", 14),
    ("diners 300", "300", 14),
    ("jcb", "3530", 16),
    ("unionpay", "62", 16),
    ("maestro", "6759", 18),
    ("visa nineteen", "4", 19),
)


def cards(draw: Draw) -> Iterator[Case]:
    """Numbers of cards, in every way in which they are written."""
    for name, beginning, length in CARDS:
        number = draw.luhn(beginning, length)
        yield Case(f"card {name}", {"note": f"paid with {number} yesterday"}, (number,))
    for separator in (" ", "-"):
        number = draw.luhn("4", 16)
        written = separator.join(number[start : start + 4] for start in range(0, 16, 4))
        yield Case(f"card in groups of four by '{separator}'", {"text": f"card: {written}."}, (written,))
    number = draw.luhn("37", 15)
    yield Case(
        "amex in groups", f"{number[:4]} {number[4:10]} {number[10:]}", (f"{number[:4]} {number[4:10]} {number[10:]}",)
    )
    number = draw.luhn("52", 16)
    yield Case("card as a number", {"amount": 5, "account": int(number)}, (number,))
    for country, body in (
        ("DE", draw.of(DIGITS, 18)),
        ("GB", "WEST" + draw.of(DIGITS, 14)),
        ("FR", draw.of(DIGITS, 23)),
        ("NL", "ABNA" + draw.of(DIGITS, 10)),
    ):
        rearranged = "".join(str(int(character, 36)) for character in f"{body}{country}00")
        iban = f"{country}{98 - int(rearranged) % 97:02d}{body}"
        grouped = " ".join(iban[start : start + 4] for start in range(0, len(iban), 4))
        yield Case(f"iban {country}", {"to": iban}, (iban,))
        yield Case(f"iban {country} in groups", f"please pay to {grouped}", (grouped,))


def secrets(seed: int) -> list[Case]:
    """All of them."""
    draw = Draw(seed)
    return [case for make in (tokens, named, nested, headers, urls, texts, files, cards) for case in make(draw)]


#: What only tests of other things use.
__all__ = ["BASE32", "TOKENS", "secrets"]
