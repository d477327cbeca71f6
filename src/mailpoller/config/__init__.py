"""From YAML to checked configuration."""

from mailpoller.config.loader import load
from mailpoller.config.model import AlertsConfig, Config, QuarantineQueueConfig, ServiceConfig
from mailpoller.config.problems import ConfigErrors, Problem

__all__ = ["AlertsConfig", "Config", "ConfigErrors", "Problem", "QuarantineQueueConfig", "ServiceConfig", "load"]
