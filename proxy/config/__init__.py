"""The configuration: models that are its reference, and a loader that reports everything wrong at once.

The one door is `load`; `Config` and its parts are in `models.py`. Nothing here knows what the proxy does with a value.
"""

from proxy.config.loader import load, parse
from proxy.config.models import Config
from proxy.config.problems import ConfigError, Problem

__all__ = ["Config", "ConfigError", "Problem", "load", "parse"]
