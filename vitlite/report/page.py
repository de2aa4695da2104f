"""The report page: one HTML file with everything inside, which opens from disk and needs no network."""

import base64
import hashlib
import json
import os
import shlex
from collections.abc import Iterator
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from vitlite.report import svg
from vitlite.report.build import OddImage, Part, Report, TestedImage, count
from vitlite.report.curves import PRO_LIMIT
from vitlite.report.gallery import Card
from vitlite.results import HEADS

VERDICTS = (("Passed", "False alarm"), ("Missed", "Found"))  # by label, and by whether the score is above the threshold

PARTS = (
    '<p class="soft">Below each pair: what the map is made of. The colours of a part go from its lowest to its highest '
    "value in the images of its category that are shown here; its caption has both.</p>"
)


def asset(suffix: str, name: str = "page") -> str:
    """The text of page.html, page.css, page.js or compare.html beside this file."""
    return files("vitlite.report").joinpath(f"{name}.{suffix}").read_text(encoding="utf-8")


def render(report: Report) -> str:
    """The page as text.

    Names of files, folders and categories come from outside: they enter the page as escaped text or attributes, and
    the script gets numbers alone. The content security policy admits this script and style by their hashes, data URIs
    for images, and nothing else.
    """
    style, script = asset("css"), asset("js")
    found = count(report.images, report.threshold)
    cards = [card for part in report.parts for card in part.cards]
    limited = (
        f"Only {len(cards)} of {len(report.images)} test images are in this file: for each category the defective ones "
        "with the lowest scores and the good ones with the highest, which hold the mistakes at any threshold."
    )
    return Template(asset("html")).substitute(
        style=style,
        style_hash=digest(style),
        script=script,
        script_hash=digest(script),
        name=escape(report.name),
        method=escape(report.method),
        data=escape(report.data),
        threshold=f"{report.threshold:.4g}",
        missed=found.defective - found.hits,
        defective=found.defective,
        alarms=found.alarms,
        good=found.good,
        calibrated=escape(report.calibrated),
        notes="\n".join(f'<p class="note">{escape(note)}</p>' for note in report.notes),
        metric_names="".join(f'<th scope="col">{name}</th>' for name in HEADS.values()),
        metrics="\n".join(metrics(report)),
        categories=category_choice(report.parts) if len(report.parts) > 1 else "",
        command=command(report),
        histograms="\n".join(histograms(report)),
        scale="logarithmic" if report.axis.log else "linear",
        mistakes="\n".join(mistakes(report)),
        limited=limited if len(cards) < len(report.images) else "",
        parts=PARTS if any(card.parts for card in cards) else "",
        gallery="\n".join(gallery(report, cards)),
        odd=odd_section(report.odd),
        odd_link='<a href="#odd">Odd good images</a>' if report.odd else "",
        curves="\n".join(curves(report)),
        about="\n".join(f"<dt>{escape(k)}</dt><dd>{escape(str(v))}</dd>" for k, v in report.about.items()),
        numbers=embedded(numbers(report)),
    )


def digest(text: str) -> str:
    """A source expression for the content security policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def embedded(value: object) -> str:
    """JSON for a script element: no character of it can end the element or begin a comment."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def numbers(report: Report) -> dict[str, Any]:
    """What the script needs."""
    axis = report.axis
    groups = {key: n for n, key in enumerate(report.groups())}
    places = [(k, image.kind) for k, part in enumerate(report.parts) for image in part.images]
    return {
        "threshold": report.threshold,
        "thresholds": [part.threshold for part in report.parts],
        "axis": {"low": axis.low, "high": axis.high, "log": axis.log},
        "plot": {"left": svg.LEFT, "top": svg.TOP, "width": svg.WIDTH, "height": svg.TALL},
        # null: called good at any threshold
        "scores": [None if image.too_small else image.score for image in report.images],
        "defective": [image.label for image in report.images],
        "category": [k for k, _ in places],
        "group": [groups[place] for place in places],
    }


def metrics(report: Report) -> Iterator[str]:
    """Rows of the table: every metric for each category and each kind of defect, and the mean."""

    def row(name: str, images: int, values: dict[str, Any], style: str = "wide") -> str:
        cells = "".join(f"<td>{'–' if values[k] is None else format(values[k], '.4f')}</td>" for k in HEADS)
        return f'<tr><th scope="row" class="{style}">{escape(name)}</th><td>{images}</td>{cells}</tr>'

    for part in report.parts:
        yield row(part.name, len(part.images), part.result)
        for kind, values in part.result["defects"].items():
            yield row(kind, values["images"], values, "wide kind")
    if len(report.parts) > 1:
        yield row("mean of categories", len(report.images), report.mean)


def category_choice(parts: list[Part]) -> str:
    """The menu of categories."""
    options = "".join(f'<option value="{k}">{escape(part.name)}</option>' for k, part in enumerate(parts))
    return (
        '<p class="script" hidden><label for="category">Category </label><select id="category">'
        f'<option value="-1">all, one threshold</option>{options}</select></p>'
    )


def command(report: Report) -> str:
    """What sets the slider's threshold, for a shell: the script puts the number in, and shows one of the options."""
    run = report.run if report.run[:1] != "-" else os.path.join(os.curdir, report.run)
    parts = enumerate(report.parts, -1 if len(report.parts) == 1 else 0)  # -1: no category is chosen
    options = "".join(
        f'<span data-own="{k}" hidden> --category {escape(quoted(part.own))}</span>'
        for k, part in parts
        if part.own is not None
    )
    return f'vitlite calibrate {escape(quoted(run))} --threshold <span id="value"></span>{options}'


def quoted(name: str) -> str:
    """A word of a shell command; one with control characters or bytes that are no text as bash and zsh have it."""
    if name.isprintable():
        return shlex.quote(name)
    plain = {ord("'"), ord("\\")} ^ set(range(32, 127))
    return "$'" + "".join(chr(byte) if byte in plain else f"\\x{byte:02x}" for byte in os.fsencode(name)) + "'"


def histograms(report: Report) -> Iterator[str]:
    """A chart of all scores, and a hidden one for each of several categories."""

    def drawn(images: list[TestedImage], threshold: float, title: str, group: int) -> str:
        good, defective = ([image.score for image in images if image.label == label] for label in (0, 1))
        return svg.histogram(good, defective, report.axis, threshold, title, group)

    found = count(report.images, report.threshold)
    title = f"Scores of {found.good} good and {found.defective} defective test images, with the threshold"
    yield drawn(report.images, report.threshold, title, -1)
    for k, part in enumerate(report.parts if len(report.parts) > 1 else []):
        title = f"Scores of {part.name}, with the threshold"
        yield drawn(part.images, part.threshold, title, k).replace("<svg ", "<svg hidden ", 1)


def mistakes(report: Report) -> Iterator[str]:
    """Rows of the table: mistakes for each kind at the threshold, and images called defective."""
    for group, (k, kind) in enumerate(report.groups()):
        part = report.parts[k]
        found = count([image for image in part.images if image.kind == kind], report.threshold)
        wrong, images = found.defective - found.hits + found.alarms, found.defective + found.good
        said = "missed" if found.defective else "false alarm" + "s" * (wrong != 1)
        name = f"{part.name}, {kind}" if len(report.parts) > 1 else kind
        yield (
            f'<tr data-group="{group}" data-category="{k}"><th scope="row" class="wide">{escape(name)}</th>'
            f"<td>{wrong} {said}</td><td>{100 * wrong / images:.1f} %</td><td>{images}</td>"
            f"<td>{found.alarms + found.hits}</td></tr>"
        )


def gallery(report: Report, cards: list[Card]) -> Iterator[str]:
    """The cards, worst mistakes first."""

    def distance(card: Card) -> float:
        """How far an image is on the right side of the threshold; negative on the wrong side."""
        image = report.images[card.index]
        above = image.compared - report.threshold
        return above if image.label else -above

    for card in sorted(cards, key=distance):
        yield card_item(card, report.images[card.index], report.threshold)


def img(source: str, words: str, size: tuple[int, int]) -> str:
    """An image element of a (width, height); ``words`` are escaped."""
    return f'<img src="{source}" alt="{words}" width="{size[0]}" height="{size[1]}" decoding="async">'


def card_item(card: Card, image: TestedImage, threshold: float) -> str:
    """One card of the gallery."""
    flagged = image.compared > threshold
    score = f"score {image.score:.4g}" + ", small regions alone" * image.too_small
    wrong = " wrong" if flagged != bool(image.label) else ""
    file = escape(card.file)
    labelled = "defect outlined" if card.marked else "no mask" if image.label else "good"
    both = ((card.image, f"{file}, {labelled}", labelled), (card.heat, f"Heat map of {file}", "heat map"))
    return (
        f'<li class="card{wrong}" data-index="{card.index}"><div class="top"><span class="badge">'
        f"{VERDICTS[image.label][flagged]}</span><span>{score}</span></div>"
        f'<div class="pair">{"".join(figure(source, words, card.size, below) for source, words, below in both)}'
        f'</div>{part_row(card, file)}<p class="file"><bdi>{file}</bdi></p></li>'
    )


def figure(source: str, words: str, size: tuple[int, int], below: str) -> str:
    """An image element with what stands ``below`` it; both texts are escaped."""
    return f"<figure>{img(source, words, size)}<figcaption>{below}</figcaption></figure>"


def part_row(card: Card, file: str) -> str:
    """The parts of a card's map below its two images; ``file`` is escaped."""
    named = ((escape(words), source, size) for words, source, size in card.parts)
    figures = "".join(figure(source, f"{words}, {file}", size, words) for words, source, size in named)
    return f'<div class="parts">{figures}</div>' if figures else ""


def odd_section(images: list[OddImage]) -> str:
    """The good images that the calibration found odd, each with its overlay; nothing without any."""
    if not images:
        return ""
    items = []
    for image in images:
        file, drawn = escape(image.file), '<p class="soft">no overlay</p>'
        if image.overlay is not None:
            drawn = img(image.overlay[0], f"Heat map of {file}", image.overlay[1])
        items.append(
            f'<li class="odd"><div class="top"><span>score {image.score:.4g}</span>'
            f'<span class="soft">{image.deviations:.1f} deviations above the median</span></div>{drawn}'
            f'<p class="file"><bdi>{file}</bdi></p></li>'
        )
    return (
        '<h2 id="odd">Odd good images</h2>\n<p>The scores of these good images, which helped to set the threshold, are '
        "far above the others. If one is defective, calibrate without it: <code>vitlite calibrate RUN --without "
        f'IMAGE</code></p>\n<ul class="gallery">{"".join(items)}</ul>\n\n'
    )


def curves(report: Report) -> Iterator[str]:
    """A section for each category with its charts."""
    for k, part in enumerate(report.parts):
        heading = f"<h3>{escape(part.name)}</h3>" if len(report.parts) > 1 else ""
        drawn = "".join(f"<figure>{chart}</figure>" for chart in charts(part, k, report.threshold))
        note = '<p class="soft">No masks with defects: no pixel curves and no PRO.</p>' if not part.pixel_curves else ""
        yield f'<section data-category="{k}">{heading}<div class="curves">{drawn}</div>{note}</section>'


def charts(part: Part, group: int, threshold: float) -> Iterator[str]:
    """ROC and precision-recall of a category, and PRO if it has masks."""
    found = count(part.images, threshold)
    recall, above = found.hits / found.defective, found.hits + found.alarms
    points = {"roc": (found.alarms / found.good, recall), "pr": (recall, found.hits / above if above else None)}
    names = {
        "roc": ("ROC", "false positive rate", "true positive rate", "auroc"),
        "pr": ("PR", "recall", "precision", "ap"),
    }
    for kind, (name, x_label, y_label, key) in names.items():
        lines = [("image", *part.image_curves[kind])]
        title = f"{part.name}: {name} curve, images {part.result[f'image_{key}']:.4f}"
        if part.pixel_curves:
            lines.append(("pixel", *part.pixel_curves[kind]))
            title += f", pixels {part.result[f'pixel_{key}']:.4f}"
        yield svg.chart(title, f"{name}: {x_label}", y_label, lines, point=(kind, *points[kind]), group=group)
    if part.pixel_curves:
        title = f"{part.name}: PRO curve, area to {PRO_LIMIT} {part.result['aupro_30']:.4f}"
        lines = [("pro", *part.pixel_curves["pro"])]
        yield svg.chart(title, "PRO: false positive rate of pixels", "region overlap", lines, x_max=PRO_LIMIT)
