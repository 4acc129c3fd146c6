"""What the machine lacks for tests that were skipped, said at the end of a run: a plugin of conftest.py."""

from collections.abc import Iterable

# What a test says that it lacks -> the package of Debian and Ubuntu that has it
PACKAGES = {"Chromium": "chromium", "Noto Color Emoji": "fonts-noto-color-emoji", "Java": "default-jre-headless"}


def advice(reasons: Iterable[str]) -> str | None:
    """How to run the tests that were skipped for these reasons; None if no package would help."""
    lacking = [package for reason in reasons for name, package in PACKAGES.items() if name in reason]
    if not lacking:
        return None
    packages = " ".join(dict.fromkeys(sorted(lacking)))
    return f"To run {len(lacking)} of the skipped tests, on Debian and Ubuntu: apt-get install {packages}"


def pytest_terminal_summary(terminalreporter) -> None:
    skipped = terminalreporter.stats.get("skipped", ())
    line = advice(report.longrepr[2] for report in skipped if isinstance(report.longrepr, tuple))
    if line is not None:
        terminalreporter.write_line(line, yellow=True)
