"""What came of a pytest run, out of its junit.xml: `PASSED FAILED SKIPPED` on the standard output, and
into the second file the same, with how many tests did not run for which reason.

usage: counts.py JUNIT-XML FILE
"""

from __future__ import annotations

import collections
import sys
import xml.etree.ElementTree as tree


def kind(message: str) -> str:
    """Reasons that differ in words or places, under one heading that follows a number."""
    if "PostgreSQL is not installed" in message or "account `postgres`" in message:
        return "need PostgreSQL"
    if "Redis is not installed" in message:
        return "need Redis"
    if "slow" in message:
        return "are slow (`make test-all` runs them)"
    if "sampled" in message:
        return "run on another CPython this time"
    if "registry" in message:
        return "need the package registry"
    if "is not installed for Python" in message:
        return f"need {message.split()[0]}"
    if "Python 3." in message or "CPython" in message or "3.1" in message:
        return "are for other versions of Python"
    return f"say: {message.splitlines()[0][:70]}"


def main(junit: str, file: str) -> None:
    suite = tree.parse(junit).getroot().find("testsuite")
    assert suite is not None
    number = {key: int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")}
    failed = number["failures"] + number["errors"]
    passed = number["tests"] - failed - number["skipped"]
    reasons = collections.Counter(
        kind(skip.get("message") or "for no reason given") for skip in suite.iter("skipped")
    )
    with open(file, "w") as out:
        print("passed", passed, file=out)
        print("failed", failed, file=out)
        for reason, count in reasons.most_common():
            print("skipped", count, reason, file=out)
    print(passed, failed, number["skipped"])


main(*sys.argv[1:])
