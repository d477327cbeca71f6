"""From YAML to checked configuration."""

from mailpoller.config.checked import Config
from mailpoller.config.dump import effective
from mailpoller.config.loader import load
from mailpoller.config.model import AlertsConfig, QuarantineConfig, ServiceConfig
from mailpoller.config.problems import ConfigErrors, Problem

__all__ = [
    "AlertsConfig",
    "Config",
    "ConfigErrors",
    "Problem",
    "QuarantineConfig",
    "ServiceConfig",
    "effective",
    "load",
]
