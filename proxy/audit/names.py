"""Which names hold secrets: keys of objects, environment variables, header fields, options of commands.

Owns the words. A name says what kind of value to expect, and what it must look like to be taken for a secret: nearly
anything beside `password`, something random beside `key`, digits beside `cvv`. Names that speak *about* a secret
(`token_type`, `password_policy`, `next_page_token`) hold none.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from math import log2
from typing import Final, NamedTuple

#: Characters of a name that are looked at, and names whose verdict is remembered.
_LONGEST: Final = 128
_MOST: Final = 4096
_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\dA-Z_]+|\d+")

#: Last words that say nothing about what the value is.
_TRAILING: Final = frozenset(
    """value plain plaintext raw base64 b64 hex pem der jwk hash hashed string str text old new current confirm
    confirmation confirmed repeat again private prod production dev test staging live env default base seed""".split()  # noqa: SIM905
)
#: Before `token`: a place in a list, a piece of text, or how much was read; no credential.
_PLACES: Final = frozenset(
    """page next prev previous continuation continue pagination progress sync resume cursor stop start end pad padding
    eos bos unk mask sep cls max min num total prompt completion input output used remaining cached reasoning per
    special change batch first last nlp design lookahead""".split()  # noqa: SIM905
)
#: Before `token`: nothing else is meant.
_STRONG: Final = frozenset("auth access api bearer refresh session security".split())  # noqa: SIM905
#: Before `code`: one that lets somebody in.
_CODES: Final = frozenset("unlock access security verification confirmation login auth mfa otp door".split())  # noqa: SIM905
#: Before `key`: a secret one.
_KEYS: Final = frozenset(
    """api secret private access encryption encrypt decryption signing sign auth authentication master session account
    shared storage service ssh hmac deploy admin client consumer app application write root recovery seal unseal webhook
    bot subscription host function jwt aes rsa gpg pgp tls ssl license licence product ingest server project wallet
    vault merchant upload rest integration developer dev partner security crypto symmetric write preshared
    """.split()  # noqa: SIM905
)
#: Ends of names that are written in one word.
_ENDS: Final = (
    ("password", "password"), ("passwd", "password"), ("passphrase", "password"), ("passcode", "password"),
    ("apikey", "api_key"), ("secretkey", "api_key"), ("privatekey", "private_key"), ("accesskey", "api_key"),
    ("authkey", "api_key"), ("masterkey", "api_key"), ("signingkey", "api_key"), ("encryptionkey", "api_key"),
    ("clientsecret", "secret"), ("appsecret", "secret"), ("accesstoken", "token"), ("authtoken", "token"),
    ("refreshtoken", "token"), ("idtoken", "token"), ("bearertoken", "token"), ("sessiontoken", "token"),
    ("securitytoken", "token"), ("apitoken", "token"), ("bottoken", "token"), ("csrftoken", "token"),
    ("usertoken", "token"), ("sessionid", "session"), ("sessid", "session"), ("sessionkey", "session"),
    ("presharedkey", "password"), ("keysecret", "secret"), ("writekey", "api_key"),
    *((f"{of}{word}", "password")
      for of in "store key trust db user root admin smtp mail bind ssh ftp ldap vnc rsync".split()  # noqa: SIM905
      for word in ("pass", "pw", "pwd")),
)  # fmt: skip
#: Password in other languages, each as it is written and without its accents.
ABROAD: Final = tuple(
    """passwort passwortes kennwort contraseña clave senha wachtwoord lösenord lösenordet adgangskode adgangskoden
    passord passordet hasło hasła haslo heslo geslo jelszó parola şifre şifresi salasana лозинка парола пароль пароля
    пароли паролем гасло κωδικός סיסמה סיסמא הסיסמה 密码 密碼 口令 パスワード 暗証番号 비밀번호 암호 पासवर्ड รหัสผ่าน
    """.split()  # noqa: SIM905
)
#: What stands in examples and templates instead of a secret, or is a setting.
_HARMLESS: Final = frozenset(
    """string str text required optional none null nil undefined true false yes no on off hidden masked redacted secret
    password token bytes any boolean number integer object array include omit same-origin basic bearer digest oauth
    oauth2 apikey api_key api-key ntlm negotiate iam empty unset default auto prompt ok pass passed
    fail failed %s %d %r ? ~ 0 1""".split()  # noqa: SIM905
)
_TEMPLATES: Final = ("your_", "your-", "your ", "insert_", "replace_", "replace-", "enter_",
                     "$", "<", "{{", "%(", "%{", "[redacted", "***", "...", "•", "process.env", "os.environ", "env:",
                     "env.", "secrets.", "vault:", "!vault", "!ref", "!sub", "!secret", "!env",
                     "op://", "arn:aws:", "projects/")  # fmt: skip


class Kind(NamedTuple):
    """What a name promises."""

    name: str
    """Stands in the place of the secret."""
    holds: Callable[[str], bool]
    """Whether a text looks like one."""
    numbers: bool = False
    """Whether a number can be one."""


def looks_random(text: str) -> bool:
    """Whether a text is more like drawn by lot than written: long, of mixed characters, not a UUID and no words."""
    if len(text) < 16 or " " in text or "://" in text or text[:1] in "/.~" or _UUID.fullmatch(text):
        return False
    if _RUN.search(text) is None:  # words and numbers with signs between them
        return False
    if _DIGIT.search(text) is None and sum(map(len, _HUMP.findall(text))) * 4 >= len(text) * 3:  # CamelCase, or words
        return False
    joined = "_" in text if text.isupper() else not text.islower()
    if joined and sum(map(len, _PART.findall(text))) * 5 >= len(text) * 4:  # the same with a few numbers
        return False
    return entropy(text) >= (3.0 if len(text) < 24 else 3.2)


def entropy(text: str) -> float:
    """Bits per character, by how often each character stands in the text."""
    counts = [text.count(character) for character in set(text)]
    return -sum(count / len(text) * log2(count / len(text)) for count in counts)


_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_RUN: Final = re.compile(r"[A-Za-z0-9]{10}")
_DIGIT: Final = re.compile("[0-9]")
_HUMP: Final = re.compile("[A-Z]?[a-z]{2,}|[A-Z]{4,}")
_PATH: Final = re.compile(r"[~.]{0,2}(?:/[\w.@-]+){2,}/?")
_PART: Final = re.compile(r"[A-Z]?[a-z]{3,}|[A-Z]{5,}|(?<!\d)\d{1,3}(?!\d)|_")
_VERSION: Final = re.compile(r"[\^~<>=v]{0,2}\d+\.\d+\.\d+(?:[-+.][\w.]+)?")
_PLACE: Final = re.compile(r"%\w+%|#[0-9a-f]{3,8}")
_ENVIRONMENT: Final = re.compile(r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+")
_SIMPLE: Final = re.compile(r"[A-Za-z]+|\d{1,4}")
_SOCIAL: Final = re.compile(r"\d{3}-?\d{2}-?\d{4}")


def is_template(text: str) -> bool:
    """Whether a text stands for a value that is somewhere else, or says of what kind it is."""
    low = text.strip().lower()
    return (
        not low
        or low in _HARMLESS
        or low.strip("[](){}") in _HARMLESS
        or low.startswith(_TEMPLATES)
        or not low.strip("*x.-_ ")
        or _PLACE.fullmatch(low) is not None
    )


def is_word(text: str) -> bool:
    """A word of a language, or a name in a program: letters, with dots and the like between them."""
    letters = text.replace("_", "").replace("-", "").replace(".", "").replace("[]", "")
    return letters.isalpha() and not looks_random(text)


def _anything(text: str) -> bool:
    if is_template(text) or _VERSION.fullmatch(text) is not None or _ENVIRONMENT.fullmatch(text) is not None:
        return False
    return _PATH.fullmatch(text) is None or looks_random(text)


def _no_path(text: str) -> bool:
    return not is_template(text) and not text.startswith(("/", "~", "./", "../")) and text[1:3] not in (":\\", ":/")


def _token(text: str) -> bool:
    """A word of a language is one for those who take texts apart."""
    return not is_template(text) and " " not in text and len(text) >= 5 and (
        len(text) >= 16 or _SIMPLE.fullmatch(text) is None)  # fmt: skip


def _random(text: str) -> bool:
    return not is_template(text) and looks_random(text)


def _strong(text: str) -> bool:
    """Beside a name of two words that means nothing else, a short one counts also."""
    if is_template(text) or _ENVIRONMENT.fullmatch(text) is not None:
        return False
    return " " not in text and len(text) >= (16 if text.isalpha() else 4)


def _code(text: str) -> bool:
    """One-time codes, and what they are made from (RFC 6238)."""
    return _digits(4, 10)(text) or (5 <= len(text) <= 64 and " " not in text and any(map(str.isdigit, text)))


def _digits(least: int, most: int) -> Callable[[str], bool]:
    return lambda text: least <= len(text) <= most and text.isascii() and text.isdigit()


def _card(text: str) -> bool:
    plain = text.replace(" ", "").replace("-", "")
    return 12 <= len(plain) <= 19 and plain.isascii() and plain.isdigit()


def _social(text: str) -> bool:
    return _SOCIAL.fullmatch(text) is not None


def _words(text: str) -> bool:
    return len(text.split()) >= 3 or _random(text) or sum(map(str.isdigit, text)) >= 4


_PASSWORD: Final = Kind("password", _anything, numbers=True)
_SECRET: Final = Kind("secret", _anything, numbers=True)
_TOKEN: Final = Kind("token", _token)
_STRONG_TOKEN: Final = Kind("token", _strong)
_API_KEY: Final = Kind("api_key", _strong)
_WEAK_KEY: Final = Kind("key", _random)
#: The word before `token` -> what it promises, if that is not what any token does.
_ABOUT_TOKENS: Final = {**dict.fromkeys(_PLACES), **dict.fromkeys(_STRONG, _STRONG_TOKEN)}
_BY_KIND: Final = {
    "password": _PASSWORD, "secret": _SECRET, "token": _TOKEN, "api_key": _API_KEY,
    "private_key": Kind("private_key", _anything), "session": Kind("session", _random),
}  # fmt: skip
_PASSWORDS: Final = (
    "password", "passwords", "passwd", "passphrase", "passcode", "userpass", "psk", "motdepasse", "contrasena",
    "losenord", "jelszo", "sifre", *ABROAD,
)  # fmt: skip
#: The last word of a name -> what it promises.
_LAST: Final = {
    **dict.fromkeys(_PASSWORDS, _PASSWORD),
    "pass": Kind("password", lambda text: _anything(text) and not (text.isdigit() and len(text) < 5)),
    **dict.fromkeys(("pwd", "pw"), Kind("password", _no_path)),
    **dict.fromkeys(("secret", "secrets"), _SECRET),
    **dict.fromkeys(("credential", "credentials", "creds"), Kind("credentials", _anything)),
    "token": _TOKEN, "pat": Kind("token", _random), "tokens": Kind("token", _random),
    "apikey": _API_KEY, "apikeys": _API_KEY, "authorization": Kind("authorization", _anything),
    **dict.fromkeys(("auth", "bearer", "jwt", "session", "sid", "signature", "sig", "verifier", "assertion", "sas",
                     "csrf", "xsrf"),
                    Kind("token", _random)),
    **dict.fromkeys(("cookie", "cookies"), Kind("cookie", lambda text: "=" in text or looks_random(text))),
    **dict.fromkeys(("ticket", "samlresponse", "samlrequest"), Kind("token", _random)),
    **dict.fromkeys(("securityanswer", "secretanswer"), _PASSWORD),
    **dict.fromkeys(("accountnumber", "routingnumber"), Kind("account", _digits(6, 17), numbers=True)),
    **dict.fromkeys(("cvv", "cvv2", "cvc", "cvc2"), Kind("cvv", _digits(3, 4), numbers=True)),
    **dict.fromkeys(("pin", "pincode"), Kind("pin", _digits(4, 12), numbers=True)),
    **dict.fromkeys(("otp", "totp", "mfacode", "otpcode", "twofactorcode", "verificationcode", "timecode"),
                    Kind("otp", _code, numbers=True)),
    **dict.fromkeys(("ssn", "socialsecuritynumber"), Kind("ssn", _social, numbers=True)),
    **dict.fromkeys(("cardnumber", "creditcard", "creditcardnumber", "ccnumber", "ccnum", "pan"),
                    Kind("card", _card, numbers=True)),
    **dict.fromkeys(("mnemonic", "seedphrase", "recoveryphrase", "recoverycode", "recoverycodes", "backupcode",
                     "backupcodes"), Kind("recovery", _words, numbers=True)),
}  # fmt: skip

_known: dict[str, Kind | None] = {}


def kind_of(name: str) -> Kind | None:
    """What a name promises; None when it promises no secret. Remembered: 0.1 µs the second time."""
    try:
        return _known[name]
    except KeyError:
        if len(_known) >= _MOST:
            _known.clear()
        kind = _judged(name[:_LONGEST])
        if len(name) <= _LONGEST:
            _known[name] = kind
        return kind


def _judged(name: str) -> Kind | None:
    words = [word.lower() for word in _WORD.findall(name)]
    while len(words) > 1 and (words[-1] in _TRAILING or words[-1].isdigit()):
        words.pop()
    if not words:
        return None
    last, before = words[-1], words[-2] if len(words) > 1 else ""
    joined = "".join(words)
    if last in ("token", "tokens") and (before in _ABOUT_TOKENS or joined.startswith("publickey")):
        return _ABOUT_TOKENS.get(before)
    if last == "data" and before == "key":  # `client-key-data`
        return _BY_KIND["private_key"] if joined != "keydata" else _WEAK_KEY
    if last in ("key", "keys"):
        return _judged_key(before, joined)
    found = _LAST.get(last) or _LAST.get(joined) or _LAST.get(before + last)
    if last == "code" and before in _CODES:
        return _LAST["otp"]
    if found is None and last == "id" and before in ("session", "secret"):
        return Kind(before, _random)
    return found or next((_BY_KIND[kind] for end, kind in _ENDS if joined.endswith(end)), None)


def _judged_key(before: str, joined: str) -> Kind | None:
    """`primary_key` and `sort_key` are names of columns: only what is random beside them is a key."""
    if before == "private":
        return _BY_KIND["private_key"]
    if before in _KEYS or joined.endswith(("apikey", "secretkey", "accesskey")):
        return _API_KEY
    return None if before == "public" else _WEAK_KEY
