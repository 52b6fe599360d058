"""Every link of a built site leads somewhere, and no page fetches anything from elsewhere.

`python docs/site/check.py FOLDER`: exit code 1, and a line for each that does not. rustdoc's own pages below `rust/` are
not looked at (rustdoc does that itself), but links to them are.
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# What a browser fetches by itself: an address elsewhere there is the network at view time.
FETCHED = {
    "img": "src",
    "script": "src",
    "link": "href",
    "iframe": "src",
    "source": "src",
    "object": "data",
}


class Page(HTMLParser):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.links: set[str] = set()
        self.elsewhere: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attrs if value is not None}
        self.names.update(given[each] for each in ("id", "name") if each in given)
        for name in ("href", "src", "data"):
            address = given.get(name)
            if address is None or (name == "data" and tag != "object"):
                continue
            parts = urlsplit(address)
            if not parts.scheme and not parts.netloc:
                self.links.add(address)
            elif parts.scheme not in ("data", "mailto") and FETCHED.get(tag) == name:
                self.elsewhere.add(address)


def broken(site: Path) -> list[str]:
    pages = {
        path: Page(path)
        for path in sorted(site.rglob("*.html"))
        if path.relative_to(site).parts[0] not in ("rust", "_static")
    }
    if not pages:
        return [f"{site} has no pages"]
    found = []
    for path, page in pages.items():
        where = path.relative_to(site)
        found += [f"{where}: fetches {each}" for each in sorted(page.elsewhere)]
        for link in sorted(page.links):
            parts = urlsplit(link)
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path.resolve()
            if not target.is_file():
                found.append(f"{where}: no such file: {link}")
            elif (
                parts.fragment
                and target in pages
                and unquote(parts.fragment) not in pages[target].names
            ):
                found.append(f"{where}: no such place: {link}")
    return found


if __name__ == "__main__":
    complaints = broken(Path(sys.argv[1]).resolve())
    print(
        "\n".join(complaints) or "every link leads somewhere, and nothing is fetched from elsewhere"
    )
    sys.exit(bool(complaints))
