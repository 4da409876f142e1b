"""Plait: a distributed message broker. This package is its Python client.

    async with plait.connect("127.0.0.1:4150") as client:
        orders = await client.queue("orders")
        await orders.publish(b"one")
        async for message in orders.consume():
            await message.ack()

Works on asyncio and trio; `plait.blocking` is the same for programs without an event loop. Every name is
loaded when it is first used, so that importing `plait` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from plait.version import __version__ as __version__

if TYPE_CHECKING:
    from plait import blocking as blocking
    from plait.client.client import Backlog as Backlog
    from plait.client.client import Client as Client
    from plait.client.client import Description as Description
    from plait.client.client import Queue as Queue
    from plait.client.client import Receipt as Receipt
    from plait.client.client import Topic as Topic
    from plait.client.client import connect as connect
    from plait.client.consumer import Consumer as Consumer
    from plait.client.group import GroupSubscription as GroupSubscription
    from plait.client.messages import Leased as Leased
    from plait.client.messages import Message as Message
    from plait.client.messages import Received as Received
    from plait.client.producer import Producer as Producer
    from plait.client.reader import Reader as Reader
    from plait.client.subscription import Subscription as Subscription
    from plait.wire.errors import AlreadyExists as AlreadyExists
    from plait.wire.errors import BadRequest as BadRequest
    from plait.wire.errors import BatchInvalid as BatchInvalid
    from plait.wire.errors import Closed as Closed
    from plait.wire.errors import InternalError as InternalError
    from plait.wire.errors import LeaseLost as LeaseLost
    from plait.wire.errors import LimitReached as LimitReached
    from plait.wire.errors import NameInvalid as NameInvalid
    from plait.wire.errors import NotFound as NotFound
    from plait.wire.errors import NotLeader as NotLeader
    from plait.wire.errors import OffsetOutOfRange as OffsetOutOfRange
    from plait.wire.errors import OutcomeUnknown as OutcomeUnknown
    from plait.wire.errors import Overloaded as Overloaded
    from plait.wire.errors import PlaitError as PlaitError
    from plait.wire.errors import ProducerFenced as ProducerFenced
    from plait.wire.errors import RecordTooLarge as RecordTooLarge
    from plait.wire.errors import SequenceOutOfOrder as SequenceOutOfOrder
    from plait.wire.errors import SettingInvalid as SettingInvalid
    from plait.wire.errors import StaleGeneration as StaleGeneration
    from plait.wire.errors import StorageDamaged as StorageDamaged
    from plait.wire.errors import StorageFull as StorageFull
    from plait.wire.errors import TimedOut as TimedOut
    from plait.wire.errors import Unavailable as Unavailable
    from plait.wire.errors import UnsupportedVersion as UnsupportedVersion
    from plait.wire.errors import WrongKind as WrongKind

_HOMES = {
    "plait.client.client": ("Backlog", "Client", "Description", "Queue", "Receipt", "Topic", "connect"),
    "plait.client.consumer": ("Consumer",),
    "plait.client.group": ("GroupSubscription",),
    "plait.client.messages": ("Leased", "Message", "Received"),
    "plait.client.producer": ("Producer",),
    "plait.client.reader": ("Reader",),
    "plait.client.subscription": ("Subscription",),
    "plait.wire.errors": (
        "AlreadyExists",
        "BadRequest",
        "BatchInvalid",
        "Closed",
        "InternalError",
        "LeaseLost",
        "LimitReached",
        "NameInvalid",
        "NotFound",
        "NotLeader",
        "OffsetOutOfRange",
        "OutcomeUnknown",
        "Overloaded",
        "PlaitError",
        "ProducerFenced",
        "RecordTooLarge",
        "SequenceOutOfOrder",
        "SettingInvalid",
        "StaleGeneration",
        "StorageDamaged",
        "StorageFull",
        "TimedOut",
        "Unavailable",
        "UnsupportedVersion",
        "WrongKind",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(["__version__", "blocking", *_HOME_OF])


def __getattr__(name: str) -> object:
    if name == "blocking":
        return import_module("plait.blocking")
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'plait' has no attribute {name!r}")
    found: object = getattr(import_module(home), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return list(__all__)
