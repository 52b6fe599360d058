"""Sends tasks to the worker of app.py, and prints what they gave."""

from __future__ import annotations

import time

from app import page, pages, thumbnail


def main() -> None:
    begin = time.monotonic()
    results = [page.delay(f"user {n}") for n in range(20)]
    results += [pages.delay(["home", "news"]), thumbnail.delay("home")]
    for result in results:
        print(result.get(timeout=60))
    print(f"{len(results)} tasks of 0.2 s each in {time.monotonic() - begin:.1f} s")


if __name__ == "__main__":
    main()
