"""Trying something step by step, for ``check --live``: what takes the steps, and the steps that several plug-ins
share."""

from mailpoller.wire.probe.approach import Approach, WebApproach
from mailpoller.wire.probe.steps import Step, stages, token_step

__all__ = ["Approach", "Step", "WebApproach", "stages", "token_step"]
