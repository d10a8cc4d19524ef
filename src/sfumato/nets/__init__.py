"""Networks: (x_t, time, condition) in, a prediction of the same shape out."""

from sfumato.nets.memory import keep_memory
from sfumato.nets.protocol import Interface, Network, NetworkConfig
from sfumato.nets.registry import NETWORKS

__all__ = ["NETWORKS", "Interface", "Network", "NetworkConfig", "keep_memory"]
