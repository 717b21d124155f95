"""Whether a Service is served: endpoints that answer, and a client that asks through a real node's rules."""

from framework.traffic.backends import Backends
from framework.traffic.client import ATTEMPT_S_MAX, Asking, Client
from framework.traffic.records import parse_connects

__all__ = ["ATTEMPT_S_MAX", "Asking", "Backends", "Client", "parse_connects"]
