"""Uses of the stub of `faces`. In each line that ends in `# refused`, and in no other, mypy finds an error."""

import decimal
from typing import assert_type

import faces
import shop


async def async_hook(order: shop.Order) -> None: ...


def sync_hook(order: object) -> None: ...


def wrong_hook(order: int) -> None: ...


with faces.Shop("url", hooks=[sync_hook]) as store:
    assert_type(store, faces.Shop)
    found = store.find("key")
    if found is not None:
        assert_type(found.number, int)
        assert_type(found.price(), decimal.Decimal)
        assert_type(found.shop, faces.Shop)
        found.close()
        found.closes()  # refused
    assert_type(len(store.find(1, True)), int)
    store.find(1, True).price()  # refused
    store.find(1.5)  # refused
    assert_type(store.count(open=False), int)
    store.count(False)  # refused
    for order in store.orders():
        assert_type(order.number, int)
        with store.checkout(order) as page:
            for item in page:
                assert_type(item.number, int)
            assert_type(faces.first(page).number, int)
            print(page.next().items)  # refused
    store.on_order(sync_hook)
    store.on_order(async_hook)
    store.on_order(wrong_hook)  # refused
    assert_type(store.upload(part for part in [b"a"]), int)
    store.upload([1])  # refused
    assert_type(store.read(), bytes)
    assert_type(store.stock, int)
    store.name = "new"
    store.stock = 2  # refused
    assert_type(store.asyn, shop.Shop)
    assert_type(store.home.number, int)
    assert_type(store.set({"a"}), set[str])


async def wrongly_async() -> None:
    await store.find(1)  # refused
    async for _ in store.orders():  # refused
        pass
    async with store:  # refused
        pass


assert_type(faces.Shop.connect("url"), faces.Shop)
faces.Shop.connect(url="url")  # refused
assert_type(faces.Shop.ping("url"), bool)
assert_type(faces.Shop.limit, int)
assert_type(faces.open_shop("url"), faces.Shop)
assert_type(faces.main_street.url, str)
assert_type(faces.LIMIT, int)
assert_type(faces.label(1, prefix=""), str)
assert_type(faces.Corner("url").open_at(9), bool)
assert_type(faces.Corner("url").count(), int)
faces.open_shop(1)  # refused
print(faces.unheard_of)  # refused
