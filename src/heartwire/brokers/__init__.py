"""What carries messages to many clients: in this process (`memory`), later also between processes.

`base.Broker` holds the delivery promise; every adapter is held to it by tests/brokers.
"""

from heartwire.brokers.base import Broker, LocalDelivery, whole
from heartwire.brokers.memory import MemoryBroker

__all__ = ["Broker", "LocalDelivery", "MemoryBroker", "whole"]
