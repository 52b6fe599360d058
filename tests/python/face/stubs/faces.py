"""A module with sync faces, and with things that are none."""

import fiberback
import shop

Shop = fiberback.syncify(shop.Shop)
first = fiberback.syncify(shop.first)
open_shop = fiberback.syncify(shop.open_shop)
main_street = Shop("main street")
LIMIT: int = 3


def label(number: int, *, prefix: str = "no. ") -> str:
    return f"{prefix}{number}"


class Corner(Shop):  # type: ignore[misc]
    def open_at(self, hour: int) -> bool:
        return hour > 8
