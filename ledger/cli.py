"""The command line: parse, call ``app``, print. Data goes to stdout, logs to stderr.

Exit codes: 0 ok; 1 done, differences found; 2 usage; 3 configuration or credentials; 4 venue unreachable, refused or
banned; 5 database; 130 interrupted; 141 the reader of standard output went away.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import resource
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import asdict, fields, is_dataclass
from datetime import timedelta
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import structlog
import typer

from ledger import __version__, advice, app, config, demo, doctor, files, health, log, output, urls, verify
from ledger.config import Settings
from ledger.db import accounts, decisions, explain, quarantine, reads
from ledger.db.decisions import Decision, Meaning, MeaningDoesNotFit
from ledger.errors import CannotWrite, ConfigError, LedgerError, NoLedger, ReaderGone, VenueError
from ledger.escapes import escaped
from ledger.export.csv_files import FORMATS
from ledger.export.writer import Exported, export
from ledger.quarantine import Retried
from ledger.reconcile.runner import Progress
from ledger.sandbox import server as sandbox_server
from ledger.wire import embedded, pg_binaries, postgres
from ledger.wire.clock import Clock

if TYPE_CHECKING:
    from ledger import replay

INTERRUPTED = 130
MARKS = {"ok": ("ok", "green"), "warning": ("!!", "yellow"), "failed": ("NO", "red"), "skipped": ("-", "")}
NOTHING_YET = "no account is mirrored here yet; start one with: sdx-ledger run"

cli = typer.Typer(
    name="sdx-ledger",
    help="Keeps a durable, provable copy of SPACEDEX spot accounts in PostgreSQL.",
    epilog=(
        "Exit codes: 0 ok, 1 differences found, 2 usage, 3 configuration or credentials, 4 venue unreachable, refused "
        "or banned, 5 database, 130 interrupted, 141 the reader went away. Settings come from flags, SDX_* variables, "
        ".env and sdx-ledger.toml."
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
db_cli = typer.Typer(
    help="The database: bring the schema up to date, find and stop the embedded server.", no_args_is_help=True
)
cli.add_typer(db_cli, name="db")
discrepancy_cli = typer.Typer(
    help="What does not fit: list it, and say what an unexplained movement of a balance was.", no_args_is_help=True
)
cli.add_typer(discrepancy_cli, name="discrepancy")

quarantine_cli = typer.Typer(
    help="Frames and answers kept without their facts, since the database refused what they say: list, apply again.",
    no_args_is_help=True,
)
cli.add_typer(quarantine_cli, name="quarantine")
account_cli = typer.Typer(
    help="The accounts of this database: list them, free a name of which nothing is kept, end a silence.",
    no_args_is_help=True,
)
cli.add_typer(account_cli, name="account")
deploy_cli = typer.Typer(
    help="What a service needs beside the program: print a unit, its account, the settings.", no_args_is_help=True
)
cli.add_typer(deploy_cli, name="deploy")

FLAG = ""
"""What help shows of the value of an option that takes none."""
Json = Annotated[bool, typer.Option("--json", metavar=FLAG, help="Print one JSON object with a `schema` field.")]
Query = Callable[[Any], Coroutine[Any, Any, list[dict[str, Any]]]]
OneAccount = Annotated[str | None, typer.Option("--account", help="Only this account; all if left out.")]
AdoptKey = Annotated[
    bool,
    typer.Option("--adopt-key", metavar=FLAG, help="Accept an API key that cannot be recognised as this account's."),
]


def main() -> None:
    """Run the program and leave with the exit code of the error, if there was one."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # The venue's names are of any script: a terminal that cannot show a character shows its number.
            stream.reconfigure(errors="backslashreplace")
    # A dump of this process, or of a program that it starts, would hold keys and passwords.
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        cli()
    except ReaderGone as error:
        output.let_go()
        sys.exit(error.exit_code)
    except CannotWrite as error:
        output.line(f"sdx-ledger: {error}", err=True)
        output.let_go()
        sys.exit(error.exit_code)
    except NoLedger as error:
        output.line(f"sdx-ledger: {NOTHING_YET}", err=True)
        sys.exit(error.exit_code)
    except LedgerError as error:
        output.line(f"sdx-ledger: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def settings(**flags: object) -> Settings:
    """Settings with logging set up: what a command that works starts with."""
    return _with_logging(config.load(**flags))


def quiet_settings() -> Settings:
    """``settings`` for a command that looks: unless asked for more it logs what is wrong alone, in lines for people."""
    loaded = config.load()
    chosen = loaded.model_fields_set
    quiet: dict[str, object] = {} if "log_level" in chosen else {"log_level": "warning"}
    return _with_logging(
        loaded.model_copy(update=quiet | ({} if "log_format" in chosen else {"log_format": "console"}))
    )


def _with_logging(loaded: Settings) -> Settings:
    log.setup(loaded.log_level, loaded.log_format, loaded.secrets())
    for note in loaded.notes():
        structlog.get_logger(__name__).warning(note)
    return loaded


def listed(loaded: Settings, account: str | None, query: Query) -> list[dict[str, Any]] | None:
    """What a query of the views finds, of one account or of all; None where nothing was ever mirrored."""
    rows: list[dict[str, Any]] = []

    async def work(_stop: asyncio.Event) -> None:
        async with app.existing_database(loaded) as db, postgres.reading(db.reader_url) as conn:
            await postgres.check_schema(conn)
            await accounts.named(conn, account)
            rows.extend(await query(conn))

    try:
        finish(work)
    except NoLedger:
        return None
    return rows


def until_signal(work: Callable[[asyncio.Event], Coroutine[Any, Any, Any]]) -> bool:
    """Run ``work(stop)``; SIGTERM and SIGINT set ``stop``, a second SIGINT ends it. Returns whether interrupted."""
    interrupted = False

    async def body() -> None:
        nonlocal interrupted
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()

        def on_interrupt() -> None:
            nonlocal interrupted
            interrupted = True
            loop.remove_signal_handler(signal.SIGINT)
            stop.set()

        loop.add_signal_handler(signal.SIGTERM, stop.set)
        loop.add_signal_handler(signal.SIGINT, on_interrupt)
        await work(stop)

    asyncio.run(body())
    return interrupted


def _version(wanted: bool) -> None:
    if wanted:
        output.line(f"sdx-ledger {__version__}")
        raise typer.Exit


@cli.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", metavar=FLAG, callback=_version, is_eager=True, help="Print the version and leave."),
    ] = False,
) -> None:
    """Keeps a durable, provable copy of SPACEDEX spot accounts in PostgreSQL."""


@cli.command()
def run(adopt_key: AdoptKey = False) -> None:
    """Mirror every configured account until SIGTERM or Ctrl-C."""
    loaded = settings()
    if until_signal(lambda stop: app.run(loaded, stop, adopt_key=adopt_key)):
        raise typer.Exit(INTERRUPTED)


@cli.command("reconcile")
def reconcile_once(
    since: Annotated[str | None, typer.Option(help="Walk from this date or time on (UTC), covered or not.")] = None,
    symbol: Annotated[list[str] | None, typer.Option(help="Only this symbol; may be given several times.")] = None,
    adopt_key: AdoptKey = False,
) -> None:
    """Ask the venue for everything not yet covered and close every open gap."""
    loaded = settings()
    since_ms = parse_time(since, "--since") if since else None
    names = tuple(spoken_name(name, "--symbol") for name in symbol or ())
    refused: list[str] = []

    async def work(_stop: asyncio.Event) -> None:
        async with app.database(loaded) as db:
            await app.ready(db)
            async with app.mirrors(loaded, db, adopt_key=adopt_key) as all_mirrors:
                for mirror in all_mirrors:
                    with progress_bar(mirror.name) as on_progress:
                        outcome = await mirror.heal_once(since_ms=since_ms, symbols=names, on_progress=on_progress)
                    output.line(
                        f"{mirror.name}: {outcome.answers} answers, {outcome.rows} rows, "
                        f"{outcome.fills_new} new fills, {outcome.orders_changed} orders changed"
                    )
                    for text in outcome.stuck:
                        output.line(f"{mirror.name}: {text}", err=True)
                    async with postgres.reading(db.reader_url) as conn:
                        held = await explain.discrepancies(conn, mirror.name, settled=False)
                    for row in held:
                        if row["kind"] == "symbol_refused" and row["symbol"] in names:
                            refused.append(row["symbol"])
                            output.line(f"{mirror.name}: --symbol {row['symbol']}: {row['actual']}", err=True)

    finish(work)
    if refused:
        raise typer.Exit(VenueError.exit_code)


def finish(work: Callable[[asyncio.Event], Coroutine[Any, Any, Any]]) -> None:
    """Run a command's work to its end; Ctrl-C or SIGTERM cancels it, its clean-up still runs, and it is no success."""
    finished = False

    async def guarded(stop: asyncio.Event) -> None:
        nonlocal finished
        working = asyncio.create_task(work(stop))
        await app.until(stop, [working])
        finished = working.done() and not working.cancelled()

    until_signal(guarded)
    if not finished:
        raise typer.Exit(INTERRUPTED)


class progress_bar:
    """How far a walk is, always on stderr: a bar on a terminal; otherwise JSON lines, at most one per second and one at
    the end."""

    def __init__(self, account: str) -> None:
        self._account = account
        self._bar: output.Progress | None = None
        self._last: Progress | None = None
        self._told_s: float | None = None

    def __enter__(self) -> Callable[[Progress], None]:
        if not output.err_is_terminal():
            return self._line
        self._bar = output.progress_bar(
            "{task.description}",
            "{task.fields[symbols]} symbols",
            "{task.completed:.0f}/{task.total:.0f} pages, {task.fields[rows]} rows",
            "weight {task.fields[weight]}",
            "{task.fields[left]} left",
        )
        self._bar.start()
        task = self._bar.add_task(self._account, total=1, symbols="0/0", rows=0, weight="-", left="?")
        bar = self._bar

        def update(progress: Progress) -> None:
            bar.update(
                task,
                completed=progress.answered,
                total=progress.answered + progress.waiting,
                symbols=f"{progress.symbols_done}/{progress.symbols}",
                rows=progress.rows,
                weight=f"{progress.weight_used}/{progress.weight_limit}",
                left="?" if progress.left_s is None else str(timedelta(seconds=round(progress.left_s))),
            )

        return update

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._last is not None:
            self._tell(self._last)

    def _line(self, progress: Progress) -> None:
        self._last = progress
        if self._told_s is None or progress.elapsed_s - self._told_s >= 1:
            self._tell(progress)

    def _tell(self, progress: Progress) -> None:
        self._told_s, self._last = progress.elapsed_s, None
        numbers = asdict(progress) | {
            "elapsed_s": round(progress.elapsed_s, 1),
            "left_s": None if progress.left_s is None else round(progress.left_s, 1),
        }
        output.json_line({"account": self._account, **numbers}, err=True)


@cli.command()
def status(
    check: Annotated[
        bool,
        typer.Option(
            "--check", metavar=FLAG, help="One line for a monitor: 0 mirrored, live, not behind; 1 with the reason."
        ),
    ] = False,
    max_lag: Annotated[
        float | None,
        typer.Option(
            min=1, help=f"Seconds that --check lets coverage trail; {health.MAX_LAG_S}, or what SDX_REST_LAG_S needs."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Health of every account: who mirrors it, live or not, age of the last frame, coverage, gaps, last error."""
    loaded = quiet_settings()
    rows = listed(loaded, None, reads.status) or []
    lag_s = max_lag if max_lag is not None else max(health.MAX_LAG_S, 2 * loaded.rest_lag_s)
    is_well, line = health.checked(rows, max_lag_s=lag_s)
    listen = embedded.running_listen(loaded.data_dir) if loaded.database_url is None else None
    if as_json:
        verdict = {"well": is_well, "reason": line} if check else {}
        accounts_shown = [health.derived(row) for row in rows]
        output.print_json("sdx-ledger/status/1", accounts=accounts_shown, pg_listen=listen, **verdict)
    elif check:
        output.line(line)
    else:
        print_status(rows)
        if listen is not None:
            output.line(f"SQL over TCP: {listen}, database ledger, user sdx_reader; see: sdx-ledger db url --tcp")
    if check and not is_well:
        raise typer.Exit(1)


def print_status(rows: list[dict[str, Any]]) -> None:
    """One block per account, for a person."""
    if not rows:
        output.line(NOTHING_YET)
    for row in rows:
        shown = output.table("", "", title=f"account {row['account']}", show_header=False, title_justify="left")
        for name, text in health.lines(row):
            shown.add_row(output.styled(name, "bold"), text)
        output.show(shown)


@cli.command("doctor")
def doctor_command(as_json: Json = False) -> None:
    """Check key, clock, venue, database and disk; say what to do about what is wrong."""
    loaded = quiet_settings()
    findings: list[doctor.Finding] = []

    async def work(_stop: asyncio.Event) -> None:
        findings.extend(await doctor.examine(loaded))

    finish(work)
    if as_json:
        output.print_json("sdx-ledger/doctor/1", findings=[doctor.as_dict(finding) for finding in findings])
    else:
        print_findings(findings)
    raise typer.Exit(doctor.exit_code(findings))


def print_findings(findings: list[doctor.Finding]) -> None:
    """A row per check."""
    shown = output.table("", "what", "found", "what to do")
    for finding in findings:
        shown.add_row(output.styled(*MARKS[finding.verdict]), finding.what, finding.found, finding.advice)
    output.show(shown)


@cli.command("verify")
def verify_command(
    against_venue: Annotated[
        bool,
        typer.Option("--against-venue", metavar=FLAG, help="Ask the venue too; nothing is written, here or there."),
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", metavar=FLAG, help="Executions known to be missing count too.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", metavar=FLAG, help="Every check, not only those that are broken.")
    ] = False,
    account: OneAccount = None,
    as_json: Json = False,
) -> None:
    """Check every invariant of the mirror: 0 all hold, 1 one does not."""
    loaded = quiet_settings()
    reports: list[verify.Report] = []

    async def work(_stop: asyncio.Event) -> None:
        async with app.existing_database(loaded) as db:
            reports.extend(await app.verify_all(loaded, db, account, strict=strict, against_venue=against_venue))

    finish(work)
    if as_json:
        output.print_json("sdx-ledger/verify/1", holds=all(report.holds for report in reports), accounts=plain(reports))
    else:
        if not reports:
            output.line(NOTHING_YET)
        for report in reports:
            print_verdicts(report, whole=verbose)
    raise typer.Exit(0 if all(report.holds for report in reports) else 1)


def print_verdicts(report: verify.Report, *, whole: bool) -> None:
    """One sentence; before it the checks that are broken, with their first rows, or the ``whole`` table."""
    shown = output.table("", "check", "what must hold", "rows that break it", title=f"account {report.account}")
    shown.title_justify = "left"
    for verdict in report.verdicts:
        if verdict.holds and not whole:
            continue
        cell = [output.styled(verdict.meaning)]
        cell += [output.styled(row.key, "bold") + output.styled(f": {row.found}") for row in verdict.first]
        if verdict.count > len(verdict.first):
            cell.append(output.styled(f"… and {verdict.count - len(verdict.first)} more"))
        if verdict.note:
            cell.append(output.styled(verdict.note, "dim"))
        count = str(verdict.count) if verdict.count else ""
        mark = MARKS["ok" if verdict.holds else "failed"]
        shown.add_row(output.styled(*mark), verdict.name, output.stacked(*cell), count)
    if shown.row_count:
        output.show(shown)
    broken = [verdict.name for verdict in report.verdicts if not verdict.holds]
    what = f"{', '.join(broken)} broken" if broken else f"all {len(report.verdicts)} checks hold"
    missing = f"; executions are missing on {report.missing_executions} orders" if report.missing_executions else ""
    output.line(f"{report.account}: {what}, at journal row {report.head_seq}{missing}.")


@cli.command("replay")
def replay_command(
    swap: Annotated[
        bool, typer.Option("--swap", metavar=FLAG, help="Make the live rows what the journal says, where they differ.")
    ] = False,
    account: OneAccount = None,
    as_json: Json = False,
) -> None:
    """Rebuild orders, fills, balances and transfers from the journal and compare: 0 identical, 1 they differ."""
    loaded = quiet_settings()
    results: list[replay.Result] = []

    async def work(_stop: asyncio.Event) -> None:
        async with app.existing_database(loaded, writes=True) as db:
            results.extend(await app.replay_all(db, account, swap=swap))

    finish(work)
    identical = all(result.identical for result in results)
    if as_json:
        output.print_json("sdx-ledger/replay/1", identical=identical, accounts=plain(results))
    else:
        if not results:
            output.line(NOTHING_YET)
        for result in results:
            print_replayed(result)
    raise typer.Exit(0 if identical else 1)


def print_replayed(result: replay.Result) -> None:
    """One line per table, the first rows that differ, and one sentence."""
    shown = output.table("", "table", "rows", "only here", "only in the journal", "different", "SHA-256 of the dump")
    for one in result.tables:
        mark = output.styled(*(("=", "green") if one.identical else ("≠", "red")))
        numbers = (one.live_rows, one.only_live, one.only_replayed, one.changed)
        digests = [one.live_sha256] if one.identical else [f"{one.live_sha256} here", f"{one.replayed_sha256} replayed"]
        shown.add_row(mark, one.table, *(str(number) for number in numbers), output.stacked(*digests))
    output.show(shown)
    for one in result.tables:
        for d in one.first:
            output.line(f"{one.table} {d.key} {d.column}: {d.live} here, {d.replayed} by the journal")
    what = "identical" if result.identical else "the live rows are not what the journal says"
    if result.swap_seq is not None:
        what += f"; they were corrected, which is journal row {result.swap_seq}"
    output.line(f"{result.account}: {what}, at journal row {result.through_seq}.")


def plain(rows: Sequence[Any]) -> list[dict[str, Any]]:
    """Dataclasses as JSON has them, whether each holds or is identical included."""

    def told(one: Any) -> Any:
        if isinstance(one, tuple | list):
            return [told(part) for part in one]
        if not is_dataclass(one):
            return one
        judged = {name: getattr(one, name) for name in ("holds", "identical") if hasattr(one, name)}
        return {field.name: told(getattr(one, field.name)) for field in fields(one)} | judged

    return [told(row) for row in rows]


@cli.command("export")
def export_command(
    form: Annotated[str, typer.Argument(metavar="FORMAT", help=f"One of: {', '.join(FORMATS)}.")],
    until: Annotated[str, typer.Option("--to", help="First instant no longer included.")],
    since: Annotated[
        str | None, typer.Option("--from", help="First instant, a date or time in UTC; balances-csv needs none.")
    ] = None,
    path: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="File to write, a manifest beside it; standard output if left out, or -."),
    ] = None,
    account: Annotated[str | None, typer.Option(help="Account to export; SDX_ACCOUNT if left out.")] = None,
    strict: Annotated[
        bool, typer.Option("--strict", metavar=FLAG, help="Exit 1 where something of the range is known to be missing.")
    ] = False,
) -> None:
    """Write a range as CSV: exact decimals, the same bytes for the same rows; what it lacks is said on stderr."""
    loaded = quiet_settings()
    if form not in FORMATS:
        raise typer.BadParameter(f"expected one of {', '.join(FORMATS)}, got '{form}'", param_hint="FORMAT")
    to_ms = parse_time(until, "--to")
    if since is None and not FORMATS[form].is_state:
        raise typer.BadParameter("expected the first instant of the range, got none", param_hint="--from")
    from_ms = to_ms - 1 if since is None else parse_time(since, "--from")
    if from_ms >= to_ms:
        raise typer.BadParameter(f"expected a time before --to ({until}), got {since}", param_hint="--from")
    done: list[Exported] = []

    async def work(_stop: asyncio.Event) -> None:
        async with app.existing_database(loaded) as db, postgres.reading(db.reader_url) as conn:
            await postgres.check_schema(conn)
            await accounts.named(conn, account or loaded.account, said_by="--account" if account else "SDX_ACCOUNT")
            name, now_ms = account or loaded.account, Clock().now_ms()
            done.append(await export(conn, form, name, from_ms, to_ms, path, sys.stdout.buffer, now_ms=now_ms))

    finish(work)
    lacks = done[0].shortfall.sentences
    for text in lacks:
        output.line(f"{form}: {text}", err=True)
    output.line(f"{done[0].rows} rows, {done[0].bytes} bytes, sha256 {done[0].sha256}", err=True)
    if strict and lacks:
        raise typer.Exit(1)


@cli.command("sandbox")
def sandbox_command(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 takes a free one.")] = 8470,
    seed: Annotated[int, typer.Option(help="The same seed trades the same.")] = 1,
    dialect: Annotated[str, typer.Option(help="documented, orders_quote, mixed or full.")] = "documented",
    faults: Annotated[
        Path | None, typer.Option(help="JSON file of scripted faults.", exists=True, dir_okay=False)
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(help="File the market and its key live in over restarts; without it each start is a new market."),
    ] = None,
    rate: Annotated[float, typer.Option(min=0, help="Trading actions per second.")] = 5.0,
    history: Annotated[int, typer.Option(min=0, help="Past orders to begin with, over 13 symbols.")] = 0,
    history_days: Annotated[int, typer.Option(min=1, help="Days over which the past orders are spread.")] = 90,
    weight: Annotated[int, typer.Option("--weight-per-minute", min=1, help="REST weight it allows per minute.")] = 1200,
    child: Annotated[
        bool, typer.Option("--child", metavar=FLAG, hidden=True, help="End when standard input ends.")
    ] = False,
) -> None:
    """A venue to try things on: the documented API with a seeded market and scripted faults."""
    settings()

    async def work(stop: asyncio.Event) -> None:
        serving = sandbox_server.serve(
            port=port,
            seed=seed,
            dialect=dialect,
            faults_path=faults,
            state_path=state,
            rate=rate,
            history=history,
            history_days=history_days,
            weight_per_minute=weight,
        )
        ends = [end_of_stdin()] if child else []
        await app.until(stop, [asyncio.create_task(one) for one in (serving, *ends)])

    if until_signal(work):
        raise typer.Exit(INTERRUPTED)


async def end_of_stdin() -> None:
    """Return when whoever holds the other end of standard input is gone, killed or not."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.read(1024):
        pass


@cli.command("demo")
def demo_command(
    seconds: Annotated[
        int | None, typer.Option(min=10, help="End after so long with a proof; without it, run on.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed trades the same.")] = 1,
) -> None:
    """Watch it work: sandbox venues in every dialect, a real database, live mirrors, lost connections, healed gaps."""
    # The screen is for the demo; who wants its logs says so.
    loaded = settings(log_level=os.environ.get("SDX_LOG_LEVEL", "error"))
    proven = True

    async def work(stop: asyncio.Event) -> None:
        nonlocal proven
        proven = await demo.show(loaded, stop, seconds=seconds, seed=seed)

    if until_signal(work):
        raise typer.Exit(INTERRUPTED)
    raise typer.Exit(0 if proven else 1)


@discrepancy_cli.command("list")
def discrepancy_list(
    settled: Annotated[bool, typer.Option("--all", metavar=FLAG, help="Those that are settled as well.")] = False,
    account: Annotated[str | None, typer.Option(help="Only this account.")] = None,
    as_json: Json = False,
) -> None:
    """List what does not fit, the newest first; at most 10,000."""
    rows = listed(quiet_settings(), account, lambda conn: explain.discrepancies(conn, account, settled=settled))
    if as_json:
        output.print_json("sdx-ledger/discrepancies/1", discrepancies=rows or [])
    elif rows is None:
        output.line(NOTHING_YET)
    elif not rows:
        output.line("nothing to settle" if not settled else "none so far")
    else:
        print_discrepancies(rows)


def print_discrepancies(rows: list[dict[str, Any]]) -> None:
    """A few lines each, for a person: what it is, what it means, what to do; amounts are never cut short."""
    for row in rows:
        amount = "" if row["residual"] is None else f"  {row['residual']:+f}"
        output.line(f"{row['account']} {row['discrepancy_id']}  {row['kind']}  {row['subject']}{amount}")
        meaning, next_step = advice.about(row)
        output.line(f"    {meaning}")
        for name, text in (("expected", row["expected"]), ("actual", row["actual"])):
            if text:
                output.line(f"    {name:<9} {output.spoken_times(text)}")
        output.line(f"    since     {row['opened_at']:%Y-%m-%d %H:%M:%S} UTC, journal row {row['evidence_seq']}")
        if row["resolved_at"] is None:
            output.line(f"    next      {next_step}")
        else:
            output.line(f"    settled   {row['resolved_at']:%Y-%m-%d %H:%M:%S} UTC: {row['resolution']}")


@discrepancy_cli.command("resolve")
def discrepancy_resolve(
    discrepancy_id: Annotated[int, typer.Argument(metavar="ID", help="Its number, as listed.")],
    meaning: Annotated[str, typer.Option("--as", help=f"One of: {', '.join(decisions.MEANINGS)}.")],
    note: Annotated[str, typer.Option(help="Why, for whoever reads the journal later.")],
    account: Annotated[str | None, typer.Option(help="Account it belongs to; SDX_ACCOUNT if left out.")] = None,
) -> None:
    """Say what a discrepancy was: an unexplained movement becomes a transfer; the evidence stays.

    --as accepted: what was refused or could not be read stays unknown, and coverage need not wait for it any more.
    """
    loaded = quiet_settings()
    if meaning not in decisions.MEANINGS:
        expected = f"expected one of {', '.join(decisions.MEANINGS)}, got '{meaning}'"
        raise typer.BadParameter(expected, param_hint="--as")
    done: list[Decision] = []

    async def work(_stop: asyncio.Event) -> None:
        async with (
            app.existing_database(loaded, writes=True) as db,
            postgres.reading(db.writer_url, writes=True) as conn,
        ):
            await postgres.check_schema(conn)
            await accounts.named(conn, account or loaded.account, said_by="--account" if account else "SDX_ACCOUNT")
            done.append(
                await explain.decide(
                    conn,
                    account or loaded.account,
                    discrepancy_id,
                    cast(Meaning, meaning),
                    note=note,
                    user=user_name(),
                    now_ms=Clock().now_ms(),
                )
            )

    try:
        finish(work)
    except ValueError as error:
        blamed = "--as" if isinstance(error, MeaningDoesNotFit) else "ID"
        raise typer.BadParameter(escaped(str(error)), param_hint=blamed) from None
    (decision,) = done
    booked = f", booked as a {meaning} of {decision.amount} {decision.subject}" if decision.is_booked else ""
    if meaning == "accepted":
        booked = ": what is not known stays so, and coverage waits for it no more"
    output.line(f"discrepancy {discrepancy_id} is settled{booked}")


@quarantine_cli.command("list")
def quarantine_list(account: OneAccount = None, as_json: Json = False) -> None:
    """List what is kept and not in the rows yet, the newest first; at most 10,000."""
    limit = explain.SHOWN_MAX
    rows = listed(quiet_settings(), account, lambda conn: quarantine.listed(conn, account, at_most=limit))
    if as_json:
        output.print_json("sdx-ledger/quarantine/1", quarantine=rows or [])
        return
    if not rows:
        output.line(NOTHING_YET if rows is None else "nothing is quarantined")
    print_quarantined(rows or [])


def print_quarantined(rows: list[dict[str, Any]]) -> None:
    """Two lines each: what it is, and why it is not in the rows; then what to do."""
    for row in rows:
        received = f"received {row['received_at']:%Y-%m-%d %H:%M:%S} UTC"
        tried = "once" if row["tries"] == 1 else f"{row['tries']} times"
        about = " ".join((row["source"], row["kind"], *filter(None, [row["symbol"]])))
        output.line(f"{row['account']} {row['seq']}  {about}  {received}, tried {tried}")
        output.line(f"    {row['problem']}")
    if rows:
        output.line("after an upgrade: sdx-ledger quarantine retry; to leave one out: see sdx-ledger discrepancy list")


@quarantine_cli.command("retry")
def quarantine_retry(account: OneAccount = None, as_json: Json = False) -> None:
    """Apply again what is quarantined: 0 nothing is left, 1 some was refused again."""
    loaded = quiet_settings()
    done: list[Retried] = []

    async def work(_stop: asyncio.Event) -> None:
        async with app.existing_database(loaded, writes=True) as db:
            async with postgres.reading(db.writer_url) as conn:
                await postgres.check_schema(conn)
                await accounts.named(conn, account)
            done.extend(await app.retry_quarantined(db.writer_url, account))

    finish(work)
    left = sum(one.applied_seq is None for one in done)
    if as_json:
        output.print_json("sdx-ledger/quarantine-retry/1", left=left, rows=[asdict(one) for one in done])
    else:
        print_retried(done)
    raise typer.Exit(1 if left else 0)


def print_retried(done: list[Retried]) -> None:
    """A line each, and one for all."""
    for one in done:
        added = f"{one.fills_new} new fills, {one.orders_changed} orders changed"
        came = f"applied by journal row {one.applied_seq}: {added}" if one.problem is None else one.problem
        output.line(f"{one.account} {one.seq}  {came}")
    left = sum(one.applied_seq is None for one in done)
    output.line(f"{len(done) - left} applied, {left} left")


@account_cli.command("list")
def account_list(as_json: Json = False) -> None:
    """List the accounts of this database, each with the venue it belongs to."""
    rows = listed(quiet_settings(), None, accounts.accounts) or []
    if as_json:
        output.print_json("sdx-ledger/accounts/1", accounts=rows)
        return
    if not rows:
        output.line(NOTHING_YET)
        return
    shown = output.table("account", "venue", "journal rows", "since (UTC)", "mirrored by")
    for row in rows:
        venue = row["rest_origin"] or "none has accepted the key yet"
        since = f"{row['created_at']:%Y-%m-%d %H:%M:%S}"
        shown.add_row(row["account"], venue, str(row["journal_rows"]), since, row["mirrored_by"] or "nobody")
    output.show(shown)


@account_cli.command("forget")
def account_forget(name: Annotated[str, typer.Argument(metavar="NAME", help="As `account list` shows it.")]) -> None:
    """Make the name of an account free again of which the journal holds nothing; what is recorded is never removed."""
    loaded = quiet_settings()
    found: list[bool] = []

    async def work(_stop: asyncio.Event) -> None:
        async with (
            app.existing_database(loaded, writes=True) as db,
            postgres.reading(db.owner_url, writes=True) as conn,
        ):
            await postgres.check_schema(conn)
            found.append(await accounts.forget(conn, name))

    finish(work)
    if not found[0]:
        raise typer.BadParameter(f"there is no account '{name}' here; see: sdx-ledger account list", param_hint="NAME")
    output.line(f"account '{name}' is forgotten; the name is free")


@account_cli.command("unblock")
def account_unblock(name: Annotated[str, typer.Argument(metavar="NAME", help="As `account list` shows it.")]) -> None:
    """Ask the venue again though it told us to wait (Retry-After, a ban): where that was a mistake, of a proxy say.

    Who calls during a true ban is banned for longer.
    """
    loaded = quiet_settings()
    ended: list[int | None] = []

    async def work(_stop: asyncio.Event) -> None:
        async with (
            app.existing_database(loaded, writes=True) as db,
            postgres.reading(db.owner_url, writes=True) as conn,
        ):
            await postgres.check_schema(conn)
            await accounts.named(conn, name, said_by="NAME")
            ended.append(await accounts.unblock(conn, name))

    finish(work)
    if ended[0] is None:
        output.line(f"account '{name}': the venue asked for no silence")
        return
    output.line(
        f"account '{name}': the silence until {output.moment(ended[0])} is lifted; a service that runs keeps it until "
        "it is started again"
    )


def user_name() -> str:
    """Who types, as the system knows them."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


@deploy_cli.command("unit")
def deploy_unit() -> None:
    """Print a systemd unit, to be edited: sdx-ledger deploy unit > /etc/systemd/system/sdx-ledger.service"""
    output.own_file(files.deployed("unit"))


@deploy_cli.command("sysusers")
def deploy_sysusers() -> None:
    """Print the account that the unit runs as: sdx-ledger deploy sysusers > /etc/sysusers.d/sdx-ledger.conf"""
    output.own_file(files.deployed("sysusers"))


@deploy_cli.command("env")
def deploy_env() -> None:
    """Print every setting with its default, to be edited: sdx-ledger deploy env > .env"""
    output.own_file(files.deployed("env"))


@db_cli.command("upgrade")
def db_upgrade() -> None:
    """Bring the schema to this program's version; run it with a URL that owns the schema."""
    loaded = quiet_settings()

    async def work(_stop: asyncio.Event) -> None:
        async with app.database(loaded) as db:
            version = await app.upgrade(db, anew=True)
        output.line(f"schema is at {version}")

    finish(work)


Role = Annotated[
    str,
    typer.Option(
        "--as",
        help="reader: may read, nothing else. writer: what the service may; can spoil orders, fills and balances. "
        "owner: may change and delete everything, the journal too.",
    ),
]
Tcp = Annotated[
    bool,
    typer.Option("--tcp", metavar=FLAG, help="As reader over TCP, where SDX_PG_LISTEN has the embedded server do so."),
]
_ROLES = {"reader": embedded.READER, "writer": embedded.WRITER, "owner": embedded.OWNER}


@db_cli.command("url")
def db_url(role: Role = "reader", tcp: Tcp = False) -> None:
    """Print the URL of the database for readers (the embedded server's while it runs); --tcp: with a password in it."""
    output.line(database_url(quiet_settings(), role, tcp=tcp))
    if tcp:
        output.line("sdx-ledger: this URL holds a password: who has it can read the ledger from this machine", err=True)


@db_cli.command("psql", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def db_psql(context: typer.Context, role: Role = "reader", tcp: Tcp = False) -> None:
    """Open psql on the database; further arguments go to psql, e.g. -c 'SELECT * FROM ledger_v1.fills'."""
    url, passwords = urls.database_url(database_url(quiet_settings(), role, tcp=tcp)).without_secrets()
    binary = pg_binaries.find_psql()
    # Every user may read a command line. Our own settings are of no use to psql and what it starts.
    ours = {name: value for name, value in os.environ.items() if not name.startswith(config.PREFIX)}
    os.execve(binary, [str(binary), url, *context.args], ours | passwords)  # noqa: S606 - the terminal is psql's now


@db_cli.command("stop")
def db_stop() -> None:
    """Stop an embedded server that was left running."""
    loaded = quiet_settings()
    stopped = asyncio.run(embedded.stop_running(loaded.data_dir))
    output.line("stopped" if stopped else "no embedded server is running")


def database_url(loaded: Settings, role: str, *, tcp: bool = False) -> str:
    """The URL that a role connects with, of the configured database or the running embedded server, there over ``tcp``
    too; what is not as the name of the role says is said on stderr. Raises ConfigError when no server runs."""
    name = role.removeprefix("sdx_")
    if name not in _ROLES:
        raise typer.BadParameter(f"expected one of {', '.join(_ROLES)}, got '{role}'", param_hint="--as")
    if tcp:
        return tcp_url(loaded, name)
    if name == "writer":
        output.line("sdx-ledger: as writer, which can spoil what the service wrote", err=True)
    if name == "owner":
        output.line("sdx-ledger: as owner, which can change and delete everything", err=True)
    if name == "reader" and loaded.read_database_url is not None:
        if loaded.read_database_url == loaded.database_url:
            note = "sdx-ledger: SDX_READ_DATABASE_URL is not set, this is SDX_DATABASE_URL and may do what its role may"
            output.line(note, err=True)
        return loaded.read_database_url.get_secret_value()
    if loaded.database_url is not None:
        is_owner = name == "owner" and loaded.owner_database_url is not None
        return (loaded.owner_database_url if is_owner else loaded.database_url).get_secret_value()  # type: ignore[union-attr]
    if embedded.is_of_another(loaded.data_dir):
        return asyncio.run(embedded.guest_of(loaded.data_dir))(_ROLES[name])
    url = embedded.running_url(loaded.data_dir, user=_ROLES[name])
    if url is None:
        raise nothing_runs(loaded)
    return url


def tcp_url(loaded: Settings, role: str) -> str:
    """The URL for readers over TCP, with the password. Raises ConfigError where the embedded server has none."""
    if role != "reader":
        raise typer.BadParameter(f"over TCP there is the reader alone, got {role}", param_hint="--as")
    if loaded.database_url is not None:
        raise ConfigError(
            "SDX_DATABASE_URL: --tcp is for the embedded server; `db url` without it prints your server's"
        )
    if embedded.is_of_another(loaded.data_dir):
        asyncio.run(embedded.guest_of(loaded.data_dir))
    listen = embedded.running_listen(loaded.data_dir)
    if listen is None and embedded.running_url(loaded.data_dir) is None:
        raise nothing_runs(loaded)
    if listen is None:
        raise ConfigError(
            f"SDX_PG_LISTEN: the server that runs on {loaded.data_dir} was started without it; set it, such as "
            "SDX_PG_LISTEN=127.0.0.1:5433, and start the service again"
        )
    return embedded.tcp_url(loaded.data_dir, listen)


def nothing_runs(loaded: Settings) -> ConfigError:
    """Why there is no URL of the embedded server."""
    return ConfigError(
        f"SDX_DATA_DIR: no embedded server runs on {loaded.data_dir}; start the service (sdx-ledger run), "
        "or set SDX_DATABASE_URL"
    )


def parse_time(text: str, option: str) -> int:
    """A date, a date-time (UTC where no zone is named) or ms since 1970, as ms."""
    try:
        return config.instant_ms(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def spoken_name(text: str, option: str) -> str:
    """A market as the venue spells it."""
    try:
        return config.spoken_name(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None
