"""The queue type ``webhook``: each event is a POST to a web service, whose 2xx is the receipt.

``config`` holds the YAML block and ``url`` the one key of it that may hide a secret; ``sink`` what the engine talks to.
``post`` speaks HTTP, ``guard`` says which addresses it may connect to, ``answers`` what a status means. ``shapes`` and
``presets`` make requests of deliveries, ``signature`` signs them.
"""

from mailpoller.core.component import Runtime
from mailpoller.core.ports import Sink
from mailpoller.sinks.webhook.config import WebhookSettings

__all__ = ["WebhookQueueConfig"]


class WebhookQueueConfig(WebhookSettings):
    """POST every message to a web service, which has taken it when it answers 2xx."""

    def build(self, name: str, runtime: Runtime) -> Sink:
        """The queue ``name``. Opens nothing."""
        from mailpoller.sinks.webhook.sink import WebhookQueue

        return WebhookQueue(self, runtime)
