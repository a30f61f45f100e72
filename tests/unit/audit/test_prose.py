"""Secrets that a sentence tells are found in many languages; sentences about secrets stay as they are."""

from __future__ import annotations

import pytest

from proxy.audit.prose import STEMS, STEMS_ABROAD, redact_sentences


def without(text: str) -> str:
    """As the caller does it."""
    low = text.lower()
    return redact_sentences(text, {stem for stem in (*STEMS, *STEMS_ABROAD, "key") if stem in low})


@pytest.mark.parametrize(
    ("before", "secret", "after"),
    [
        ("log in as admin with password ", "hunter2", ""),
        ("The password for the router is ", "Blue-42", "."),
        ("the password was “", "Messer Gabel 7", "”."),
        ("Das Passwort lautet ", "Gartenzaun!9", ""),
        ("Le mot de passe est ", "Chat0nGris", ""),
        ("La contraseña es ", "Gat0Negro", ""),
        ("A senha é ", "Abacax1!", ""),
        ("la password è ", "P1zzaM1a", ""),
        ("lösenordet är ", "Älg-4711", ""),
        ("Пароль от сервера — ", "qwe!RTY9", ""),
        ("密码是 ", "Panda#99", ""),
        ("パスワードは ", "Sakura123", " です"),
        ("비밀번호: ", "Hangang77", ""),
        ("**Password:** ", "Mark-D0wn", ""),
        ("Zugangsdaten: admin / ", "Klee4Blatt", ""),
        ("u: admin p: ", "Sch0epfer", ""),
    ],
)
def test_a_sentence_tells_a_password(before: str, secret: str, after: str) -> None:
    """What is around it stays."""
    assert without(f"{before}{secret}{after}") == f"{before}[redacted:password]{after}"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ('the passphrase is "correct horse battery"', 'the passphrase is "[redacted:password]"'),
        ("set the PIN to 4471", "set the PIN to [redacted:pin]"),
        ("Ihr Bestätigungscode lautet: 554120", "Ihr Bestätigungscode lautet: [redacted:otp]"),
        ("482911 is your login code", "[redacted:otp] is your login code"),
        ("PUK: 48219930", "PUK: [redacted:otp]"),
        ("your one-time code is 123456", "your one-time code is [redacted:otp]"),
        ("seed phrase: " + "ladder vivid orbit canyon " * 3, "seed phrase: [redacted:recovery] "),
        ("Recovery codes: 8f3k-22lq, 91mz-0pxx", "Recovery codes: [redacted:recovery]"),
    ],
)
def test_phrases_and_codes_are_told_as_well(text: str, kept: str) -> None:
    """Of one use, or to get back in."""
    assert without(text) == kept


@pytest.mark.parametrize(
    "text",
    [
        "I forgot my password",
        "The password is required",
        "passwords must have 8 characters",
        "password: string",
        "the password is hashed with SHA256",
        "Das Passwort muss 12 Zeichen lang sein",
        "密码长度至少为8位",
        "La clave del éxito es la constancia",
        "Забыли пароль?",
        "exit code 137",
        "zip code 94107",
        "pin 13 is the LED",
        "scored 4 / 5",
        "sign in with Google",
        "log the password into 1password",
        "seed the table with words",
    ],
)
def test_sentences_about_passwords_stay(text: str) -> None:
    """Most of them are."""
    assert without(text) == text
