"""The quarantine: mail that a person must decide about, held below the state directory."""

from mailpoller.quarantine.config import StoreConfig
from mailpoller.quarantine.store import Store

__all__ = ["Store", "StoreConfig"]
