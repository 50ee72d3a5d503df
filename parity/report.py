"""What a comparison found, as a table."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from parity.compare import Finding

Status = Literal["passed", "failed", "not covered"]
DTYPES = ("float32", "float64")


@dataclass(frozen=True)
class CaseReport:
    """One recorded case beside ours."""

    name: str
    title: str
    """What it is of."""
    findings: list[Finding] = field(default_factory=list)
    uncovered: list[str] = field(default_factory=list)
    """Scenarios or functions that this project does not compute yet, or the whole class."""
    problem: str = ""
    """Why nothing could be compared."""

    @property
    def failures(self) -> list[Finding]:
        """What is over its tolerance or missing."""
        return [finding for finding in self.findings if not finding.passed]

    @property
    def status(self) -> Status:
        """A case of which nothing was compared has not passed."""
        if self.problem or self.failures:
            return "failed"
        return "passed" if self.findings else "not covered"


def lines(report: CaseReport, verbose: bool) -> Iterator[str]:
    """The table of one case.

    Args:
        report: what was found.
        verbose: a row for each parameter instead of one for all, with absolute errors and shares of the tolerance.
    """
    yield f"{report.name}  ({report.title}): {report.status}{': ' + report.problem if report.problem else ''}"
    rows = _rows(report.findings, verbose)
    width = max((len(name) for _, name in rows), default=0)
    scenario_width = max((len(scenario) for scenario, _ in rows), default=0)
    if rows:
        heads = "  ".join(f"{dtype:>{_column(verbose)}}" for dtype in DTYPES)
        yield f"  {'':{scenario_width}}  {'largest relative error':{width}}  {heads}"
    for (scenario, name), findings in rows.items():
        cells = "  ".join(f"{_cell([one for one in findings if _is_of(one, dtype)], verbose):>{_column(verbose)}}" for dtype in DTYPES)
        yield f"  {scenario:{scenario_width}}  {name:{width}}  {cells}{_complaint(findings)}"
    for name in report.uncovered:
        yield f"  not covered: {name}"


def summary(reports: Iterable[CaseReport]) -> Iterator[str]:
    """One line of counts, and one for each case that did not pass."""
    by_status: dict[Status, list[CaseReport]] = {"passed": [], "failed": [], "not covered": []}
    for report in reports:
        by_status[report.status].append(report)
    yield ", ".join(f"{len(found)} {status}" for status, found in by_status.items())
    for report in by_status["not covered"]:
        yield f"not covered: {report.name}  ({report.title})"
    for report in by_status["passed"]:
        if report.uncovered:
            yield f"partly covered: {report.name}, without {', '.join(report.uncovered)}"
    for report in by_status["failed"]:
        yield f"failed: {report.name}: {report.problem or _failure(report.failures[0])}, {len(report.failures)} in all"


def _rows(findings: list[Finding], verbose: bool) -> dict[tuple[str, str], list[Finding]]:
    rows: dict[tuple[str, str], list[Finding]] = {}
    scenarios = list(dict.fromkeys(finding.scenario for finding in findings))
    for finding in sorted(findings, key=lambda finding: scenarios.index(finding.scenario)):
        rows.setdefault((finding.scenario, finding.name if verbose else finding.row or finding.name), []).append(finding)
    return rows


def _is_of(finding: Finding, dtype: str) -> bool:
    """Plain numbers and texts stand in the column of the higher precision."""
    return (finding.dtype or "float64") == dtype


def _column(verbose: bool) -> int:
    return 34 if verbose else 9


def _cell(findings: list[Finding], verbose: bool) -> str:
    if not findings:
        return "-"
    worst = max(findings, key=lambda finding: finding.used)
    if worst.problem:
        return "none"
    if worst.used == 0.0:
        return "0"
    if not verbose:
        return f"{max(finding.relative for finding in findings):.1e}"
    return f"{worst.relative:.1e} (abs {worst.absolute:.1e}, {worst.used:6.1%})"


def _complaint(findings: list[Finding]) -> str:
    failed = [finding for finding in findings if not finding.passed]
    return f"  FAILED {_failure(failed[0])}" if failed else ""


def _failure(finding: Finding) -> str:
    where = f"{finding.scenario}/{finding.name}{' ' + finding.dtype if finding.dtype else ''}"
    return f"{where}: {finding.problem or f'{finding.used:.3g} times its tolerance'}"
