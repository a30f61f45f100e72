"""The peppers that key the hashes of API keys: those of the configuration, else one that is made once and kept.

Owns the name of the file. The command line and the server must know the same peppers, so both ask here; what a pepper
does is `identity/keys.py`'s.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from proxy.config.keyfile import load_or_create
from proxy.identity.keys import PepperRing

if TYPE_CHECKING:
    from proxy.config.models import Config

FILE: Final = "pepper.key"
#: Version of the pepper in the file.
_VERSION: Final = 1


def pepper_ring(config: Config) -> PepperRing:
    """`auth.peppers`, or the pepper in `state_dir`, which is made on first use. Raises OSError for a bad file."""
    peppers = {version: secret.get_secret_value().encode() for version, secret in config.auth.peppers.items()}
    return PepperRing(peppers or {_VERSION: load_or_create(Path(config.state_dir) / FILE)})
