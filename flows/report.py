"""The report: one self-contained HTML file with pictures of a run.

In: aggregated figures, money as decimals. Out: HTML with inline style and SVG; nothing is fetched from anywhere, and
everything that came from data is escaped. It prints, and follows the reader's light or dark setting.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from html import escape
from typing import Final

COLOURS: Final = ("#2f6fde", "#e07b39", "#2a9d76", "#b9508f", "#8a7a2b", "#5b6abf", "#c0504d", "#4a9bb5")
_FATES: Final = {"priced": "#2a9d76", "duplicate": "#8a8f98", "conflict": "#b9508f", "rejected": "#c0504d", "waiting": "#e0a339"}
_TOP: Final = 12


@dataclass(frozen=True, slots=True)
class Proof:
    """One partition's proof."""

    partition: int
    intervals: int
    digests: int
    head: str
    breaks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """What the report shows: counts by (time label, meter), money by (customer, meter, currency), fates, proof."""

    title: str
    folder: str
    events: int
    seconds: float
    over_time: dict[tuple[str, str], int]
    money: dict[tuple[str, str, str], Decimal]
    fates: dict[str, int]
    rejected: dict[str, tuple[int, str]]
    proofs: Sequence[Proof]


def render(report: Report) -> str:
    """The whole page."""
    meters = sorted({meter for _, meter in report.over_time} | {meter for _, meter, _ in report.money})
    colour = {meter: COLOURS[i % len(COLOURS)] for i, meter in enumerate(meters)}
    currencies = sorted({currency for *_, currency in report.money})
    parts = [
        f"<h1>{escape(report.title)}</h1><p class=lead>{escape(report.folder)}: {report.events:,} usage events, {report.seconds:.2f} CPU-seconds in this run</p>",
        _cards(report, currencies),
        "<h2>Usage over time</h2>", _legend(colour), _over_time(report, colour),
    ]
    for currency in currencies:
        parts += [f"<h2>Money by customer and meter, {escape(currency)}</h2>", _money(report, currency, colour)]
    parts += ["<h2>Fates</h2>", _fates(report), "<h2>Rejected</h2>", _rejected(report), "<h2>Proof</h2>", _proof(report)]
    return f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'><title>{escape(report.title)}</title><style>{_STYLE}</style><main>{''.join(parts)}</main></html>"


def _cards(report: Report, currencies: list[str]) -> str:
    cards = [("priced", f"{report.fates.get('priced', 0):,}")]
    for currency in currencies:
        total = sum((amount for (*_, c), amount in report.money.items() if c == currency), Decimal(0))
        cards.append((f"rated {currency}", f"{total:,.2f}"))
    broken = sum(len(proof.breaks) for proof in report.proofs)
    cards.append(("proof", "ties out" if not broken else f"{broken} breaks"))
    return "<div class=cards>" + "".join(f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for name, value in cards) + "</div>"


def _legend(colour: dict[str, str]) -> str:
    return "<p class=legend>" + "".join(f"<span><i style='background:{c}'></i>{escape(name)}</span>" for name, c in colour.items()) + "</p>"


def _over_time(report: Report, colour: dict[str, str]) -> str:
    labels = sorted({label for label, _ in report.over_time})
    if not labels:
        return "<p>No priced usage.</p>"
    height, width = 220, 920
    sums = {label: sum(report.over_time.get((label, meter), 0) for meter in colour) for label in labels}
    top = max(sums.values())
    step = width / len(labels)
    bars = []
    for place, label in enumerate(labels):
        base = float(height)
        for meter, fill in colour.items():
            count = report.over_time.get((label, meter), 0)
            size = height * count / top
            base -= size
            if count:
                tip = f"<title>{escape(label)} {escape(meter)}: {count:,}</title>"
                bars.append(f"<rect x='{70 + place * step:.1f}' y='{base + 10:.1f}' width='{max(step - 1.5, 1):.1f}' height='{size:.1f}' fill='{fill}'>{tip}</rect>")
    every = max(1, len(labels) // 10)
    ticks = [f"<text x='{70 + (place + 0.5) * step:.1f}' y='{height + 28}' text-anchor=middle>{escape(label)}</text>" for place, label in enumerate(labels) if place % every == 0 and (place + 0.5) * step < width - 40]  # the last label must fit
    grid = [
        f"<line x1=70 x2={70 + width} y1='{10 + height * (1 - share):.1f}' y2='{10 + height * (1 - share):.1f}'/><text x=62 y='{14 + height * (1 - share):.1f}' text-anchor=end>{round(top * share):,}</text>"
        for share in (0, 0.5, 1)
    ]
    return f"<svg viewBox='0 0 {80 + width} {height + 40}'>{''.join(grid)}{''.join(bars)}{''.join(ticks)}</svg>"


def _money(report: Report, currency: str, colour: dict[str, str]) -> str:
    by_customer: dict[str, dict[str, Decimal]] = {}
    for (customer, meter, other), amount in report.money.items():
        if other == currency:
            mine = by_customer.setdefault(customer, {})
            mine[meter] = mine.get(meter, Decimal(0)) + amount
    ranked = sorted(by_customer.items(), key=lambda item: -sum(item[1].values(), Decimal(0)))
    shown, rest = ranked[:_TOP], ranked[_TOP:]
    note = ""
    if rest:
        others = sum((sum(amounts.values(), Decimal(0)) for _, amounts in rest), Decimal(0))
        note = f"<p class=note>and {len(rest):,} more customers with {others:,.2f} {escape(currency)} together</p>"
    top = max((sum(amounts.values(), Decimal(0)) for _, amounts in shown), default=Decimal(1)) or Decimal(1)
    rows = []
    for place, (customer, amounts) in enumerate(shown):
        y, x = 8 + place * 26, Decimal(170)
        rows.append(f"<text x=160 y={y + 14} text-anchor=end>{escape(customer[:24])}</text>")
        for meter, amount in sorted(amounts.items()):
            size = max(amount, Decimal(0)) / top * 640
            rows.append(f"<rect x='{x:.1f}' y={y} width='{size:.1f}' height=18 fill='{colour[meter]}'><title>{escape(customer)} {escape(meter)}: {amount:,.6f}</title></rect>")
            x += size
        rows.append(f"<text x='{x + 8:.1f}' y={y + 14}>{sum(amounts.values(), Decimal(0)):,.2f}</text>")
    return f"<svg viewBox='0 0 1000 {len(shown) * 26 + 10}'>{''.join(rows)}</svg>{note}"


def _fates(report: Report) -> str:
    received = report.fates.get("received", 0) or 1
    rows = []
    for place, (name, fill) in enumerate(_FATES.items()):
        count = report.fates.get(name, 0)
        digits = len(str(count)) - 1 + int(str(count)[0]) / 10 if count else 0
        size = 560 * digits / len(str(received))
        y = 8 + place * 26
        rows.append(
            f"<text x=160 y={y + 14} text-anchor=end>{name}</text><rect x=170 y={y} width='{size:.1f}' height=18 fill='{fill}'/>"
            f"<text x='{178 + size:.1f}' y={y + 14}>{count:,} ({100 * count / received:.3f} %)</text>"
        )
    return f"<svg viewBox='0 0 1000 {len(_FATES) * 26 + 10}'>{''.join(rows)}</svg><p class=note>Lengths grow with the digits of the count, so that a dozen beside a hundred thousand is seen.</p>"


def _rejected(report: Report) -> str:
    if not report.rejected:
        return "<p>Nothing was rejected.</p>"
    rows = "".join(f"<tr><td>{escape(reason)}<td class=n>{count:,}<td>{escape(message)}" for reason, (count, message) in sorted(report.rejected.items()))
    return f"<table><tr><th>reason<th class=n>records<th>for example{rows}</table>"


def _proof(report: Report) -> str:
    f = report.fates
    waiting = f.get("waiting", 0)
    sums = f.get("priced", 0) + f.get("duplicate", 0) + f.get("conflict", 0) + f.get("rejected", 0) + waiting
    mark = "✓" if sums == f.get("received", 0) else "✗"
    equation = f"<p>{mark} received {f.get('received', 0):,} = priced {f.get('priced', 0):,} + duplicate {f.get('duplicate', 0):,} + conflict {f.get('conflict', 0):,} + rejected {f.get('rejected', 0):,} + waiting {waiting:,}</p>"
    rows = "".join(
        f"<tr><td class=n>{p.partition}<td class=n>{p.intervals:,}<td class=n>{p.digests:,}<td>{'✓ ties out' if not p.breaks else '✗ ' + escape('; '.join(p.breaks))}<td><code>{escape(p.head)}</code>"
        for p in report.proofs
    )
    return f"{equation}<table><tr><th class=n>partition<th class=n>intervals<th class=n>digests read back<th>result<th>head of the chain{rows}</table>"


_STYLE: Final = (
    ":root{color-scheme:light dark;--ink:#1c2330;--soft:#667085;--line:#d8dde6;--paper:#fff;--card:#f5f7fa}"
    "@media(prefers-color-scheme:dark){:root{--ink:#e7eaf0;--soft:#9aa4b5;--line:#353c4a;--paper:#14181f;--card:#1d232d}}"
    "body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,sans-serif}main{max-width:1020px;margin:2rem auto;padding:0 1rem}"
    "h1{margin:0;font-size:1.7rem}h2{margin:2.2rem 0 .6rem;font-size:1.15rem}.lead,.note{color:var(--soft);margin:.3rem 0}"
    ".cards{display:flex;flex-wrap:wrap;gap:.8rem;margin:1.2rem 0}.cards div{background:var(--card);border-radius:10px;padding:.8rem 1.2rem}"
    ".cards b{display:block;font-size:1.3rem}.cards span{color:var(--soft)}svg{width:100%;height:auto}svg text{fill:var(--ink);font-size:12px}"
    "svg line{stroke:var(--line)}.legend span{margin-right:1rem}.legend i{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin-right:.4em}"
    "table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.35rem .6rem;border-bottom:1px solid var(--line);vertical-align:top}"
    ".n{text-align:right}code{font-size:.8em;word-break:break-all}@media print{main{margin:0}}"
)
