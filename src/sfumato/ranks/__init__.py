"""Several processes that do one job: where each is, what they say to one another, who watches over them."""

from __future__ import annotations

from sfumato.ranks.place import Place, find_place
from sfumato.ranks.world import Lost, World, together

__all__ = ["Lost", "Place", "World", "find_place", "together"]
