"""What one configuration says otherwise than another: by section, name and key, secrets masked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from mailpoller.config import sections
from mailpoller.config.checked import Config
from mailpoller.config.dump import effective
from mailpoller.config.fields import references_of
from mailpoller.config.model import RELOADED_KEYS
from mailpoller.config.sections import Section
from mailpoller.core.component import Block
from mailpoller.core.record import record
from mailpoller.core.source_config import SourceConfig

_LONGEST = 200
"""Characters of a value that are shown."""


@record
class KeyChange:
    """A key of a block, and what it was and is, as ``mailpoller config`` shows it; None: it is not there."""

    key: str
    before: str | None
    after: str | None


@record
class Change:
    """A block that came, went, or says something else. ``name`` is empty for a section of one block.

    ``keys`` of one that changed; none if all that changed is a secret, which is not shown. ``restart``: it comes into
    force when the service is started anew."""

    section: str
    name: str
    what: Literal["added", "changed", "removed"]
    keys: tuple[KeyChange, ...] = ()
    restart: bool = False

    @property
    def part(self) -> str:
        """``mailbox support``; the section alone where there is one block of it."""
        return f"{sections.noun_of(self.section)} {self.name}" if self.name else self.section


def changes(before: Config, after: Config) -> list[Change]:
    """All of them, section by section; removed ones last of each."""
    shown = effective(before), effective(after)
    found: list[Change] = []
    for section in sections.TABLE:
        if section.key not in after.made:
            continue
        old, new = (_blocks(config, section, tree) for config, tree in zip((before, after), shown, strict=True))
        for name, (block, tree) in new.items():
            if name not in old:
                found.append(Change(section.key, name, "added", restart=section.on_reload == "restart"))
            elif old[name][0] != block:
                found += _changed(section, name, list(_keys(old[name][1], tree)))
        found += [
            Change(section.key, name, "removed", restart=section.on_reload == "restart")
            for name in old
            if name not in new
        ]
    return found


def taken_over(before: Config, after: Config) -> Config:
    """``after``, but for what only a restart brings into force: that is as it was before."""
    made = {
        section.key: before.made[section.key]
        for section in sections.TABLE
        if section.on_reload == "restart" and section.key in before.made
    }
    live = {key: getattr(after.service, key) for key in RELOADED_KEYS}
    made[sections.SERVICE.key] = before.service.model_copy(update=live)
    return after.but(**made)  # and with what stands around a block: none of that needs a restart


def left_behind(config: Config) -> Iterator[tuple[str, str, str]]:
    """Names that lead nowhere, of blocks that were left as they were: (the block's section, section, name)."""
    for at, block in config.blocks():
        for _, section, name in references_of(block):
            if name not in config.made[section]:
                yield at[0], section, name


def _changed(section: Section[Any], name: str, keys: list[KeyChange]) -> list[Change]:
    if section is not sections.SERVICE:
        return [Change(section.key, name, "changed", tuple(keys), restart=section.on_reload == "restart")]
    live = tuple(key for key in keys if key.key in RELOADED_KEYS)
    fixed = tuple(key for key in keys if key.key not in RELOADED_KEYS)
    return [Change(section.key, name, "changed", some, some is fixed) for some in (live, fixed) if some]


def _blocks(config: Config, section: Section[Any], tree: Mapping[str, Any]) -> dict[str, tuple[Any, Mapping[str, Any]]]:
    """name -> (what is compared, what is shown)."""
    made = config.made.get(section.key)
    if (around := config.around.get(section.key)) is not None:
        return {"": ((around, made), tree[section.key])}
    if made is None:
        return {}
    if isinstance(made, Block):
        return {"": (made, tree[section.key])}
    if section.shape == "named":
        return {name: (_compared(config, section, name), one) for name, one in tree[section.key].items()}
    shown = tree[section.key]
    return {name: (_compared(config, section, name), one) for name, one in zip(made, shown, strict=True)}


def _compared(config: Config, section: Section[Any], name: str) -> Any:
    block = config.made[section.key][name]
    if section is not sections.MAILBOXES:
        return block
    return written_out(block), config.overrides.get(name)


def written_out(mailbox: SourceConfig) -> SourceConfig:
    """The mailbox without saying from whom it has what it says: two that say the same are equal."""
    return mailbox.model_copy(update={"extends": None})


def _keys(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[KeyChange]:
    for key in dict.fromkeys((*before, *after)):
        if before.get(key) != after.get(key):
            yield KeyChange(key, _shown(before.get(key)), _shown(after.get(key)))


def _shown(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, Mapping):
        text = "{" + ", ".join(f"{key}: {_shown(child)}" for key, child in value.items()) + "}"
    elif isinstance(value, list):
        text = "[" + ", ".join(str(_shown(child)) for child in value) + "]"
    else:
        text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
