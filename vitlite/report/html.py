"""The report page: one HTML file with everything inside, which opens from disk and never reaches for the network."""

import base64
import hashlib
import json
from html import escape

from vitlite.engine.results import KEYS
from vitlite.report import svg
from vitlite.report.assets import SCRIPT, STYLE
from vitlite.report.curves import PRO_LIMIT

HEADINGS = {
    "image_auroc": "image AUROC",
    "image_ap": "image AP",
    "image_f1_max": "image best F1",
    "pixel_auroc": "pixel AUROC",
    "pixel_ap": "pixel AP",
    "pixel_f1_max": "pixel best F1",
    "aupro_30": "AUPRO 0.3",
    "aupro_05": "AUPRO 0.05",
}
SECTIONS = ("Metrics", "Threshold", "Pictures", "Curves", "About")  # their ids in lower case


def render(report):
    """The page as text, from a ``vitlite.report.build.Report``.

    Names of files, folders and categories come from outside: they enter the page as escaped text or attributes and
    the script only as numbers. The content security policy admits this script and style by their hashes, data URIs for
    images, and nothing else.
    """
    title = f"{report.name}: {report.method} report"
    policy = f"default-src 'none'; img-src data:; style-src {digest(STYLE)}; script-src {digest(SCRIPT)}"
    body = [
        header(report),
        "<main>",
        *(f'<p class="note">{escape(note)}</p>' for note in report.notes),
        metrics_table(report),
        threshold_section(report),
        gallery(report),
        curves(report),
        about(report),
        "</main>",
    ]
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{escape(title)}</title>",
            f"<style>{STYLE}</style>",
            "</head>",
            "<body>",
            *body,
            f'<script type="application/json" id="data">{embedded(page_data(report))}</script>',
            f"<script>{SCRIPT}</script>",
            "</body>",
            "</html>",
            "",
        ]
    )


def digest(text):
    """A source expression for the content security policy."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii") + "'"


def embedded(value):
    """JSON that may stand in a script element: no character of it can end the element or begin a comment."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def page_data(report):
    """What the script needs: numbers only."""
    axis = report.axis
    images = [(k, image) for k, part in enumerate(report.parts) for image in part.images]
    groups = {key: n for n, key in enumerate(report.groups())}
    return {
        "threshold": report.threshold,
        "thresholds": [part.threshold for part in report.parts],
        "axis": {"low": axis.low, "high": axis.high, "log": axis.log},
        "plot": {"left": svg.LEFT, "top": svg.TOP, "width": svg.WIDTH, "height": svg.TALL},
        "scores": [image.score for _, image in images],
        "defective": [image.label for _, image in images],
        "category": [k for k, _ in images],
        "group": [groups[k, image.defect] for k, image in images],
    }


def header(report):
    """What the run is, and how it does at its own threshold."""
    images = report.images()
    missed = sum(image.label and image.score <= report.threshold for image in images)
    alarms = sum(not image.label and image.score > report.threshold for image in images)
    bad = sum(image.label for image in images)
    links = "".join(f'<a href="#{name.lower()}">{name}</a>' for name in SECTIONS)
    return (
        f"<header><h1>{escape(report.name)}</h1>"
        f'<p class="soft">{escape(report.method)} on {escape(report.data)}</p>'
        f"<p>At the calibrated threshold of {report.threshold:.4g}, {missed} of {bad} defective test images are missed "
        f"and {alarms} of {len(images) - bad} good ones are false alarms. {escape(report.calibrated)}</p>"
        f'<nav aria-label="On this page">{links}</nav></header>'
    )


def metrics_table(report):
    """Every metric for each category and each kind of defect, and the mean."""
    head = "".join(f'<th scope="col">{HEADINGS[key]}</th>' for key in KEYS)
    rows = []

    def add(name, images, values, kind=False):
        cells = "".join(f"<td>{'–' if values[k] is None else format(values[k], '.4f')}</td>" for k in KEYS)
        mark = "wide kind" if kind else "wide"
        rows.append(f'<tr><th scope="row" class="{mark}">{escape(name)}</th><td>{images}</td>{cells}</tr>')

    for part in report.parts:
        add(part.name, part.result["good"] + part.result["defective"], part.result)
        for kind, values in part.result["defects"].items():
            add(kind, values["images"], values, kind=True)
    if len(report.parts) > 1:
        add("mean of categories", len(report.images()), report.mean)
    return (
        '<h2 id="metrics">Metrics</h2><p class="soft">Each kind of defect is measured against all good images of its '
        "category; pixel metrics at every image's original size.</p>"
        '<div class="scroll" tabindex="0" role="region" aria-label="Metrics, scrolls sideways"><table>'
        f'<thead><tr><th scope="col">category, defect</th><th scope="col">images</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def threshold_section(report):
    """Histogram, slider, and what the threshold does to every kind of defect."""
    choice, charts = "", []
    scores = [[i.score for i in report.images() if i.label == label] for label in (0, 1)]
    several = len(report.parts) > 1
    title = f"Scores of {len(scores[0])} good and {len(scores[1])} defective test images, with the threshold"
    charts.append(svg.histogram(*scores, report.axis, report.threshold, title, -1))
    if several:
        options = "".join(f'<option value="{k}">{escape(part.name)}</option>' for k, part in enumerate(report.parts))
        choice = (
            '<p class="script" hidden><label for="category">Category </label><select id="category">'
            f'<option value="-1">all, one threshold</option>{options}</select></p>'
        )
        for k, part in enumerate(report.parts):
            own = [[i.score for i in part.images if i.label == label] for label in (0, 1)]
            drawn = svg.histogram(*own, report.axis, part.threshold, f"Scores of {part.name}, with the threshold", k)
            charts.append(drawn.replace("<svg ", "<svg hidden ", 1))
    step = "logarithmic" if report.axis.log else "linear"
    return (
        f'<h2 id="threshold">Scores and threshold</h2>{choice}<ul class="key">'
        '<li><i class="good"></i>good, upwards</li><li><i class="defect"></i>defective, downwards</li>'
        '<li><i class="line"></i>threshold</li><li><i class="calibrated"></i>calibrated threshold</li></ul>'
        f'<div class="plot">{"".join(charts)}</div><p class="soft">Image score, {step}. An image above the threshold '
        "is called defective. The tallest bar of either kind has full height.</p>"
        '<div class="bar script" hidden><label for="slider" class="hidden">Threshold, slider</label>'
        '<input type="range" id="slider" min="0" max="1000" step="1">'
        '<div class="controls"><label for="number">Threshold</label>'
        '<input type="number" id="number" step="any" inputmode="decimal">'
        '<button type="button" id="reset">Reset</button>'
        '<output id="counts" for="slider number"></output></div></div>'
        "<noscript><p class='note'>Scripts are off: the threshold stays where the calibration set it.</p></noscript>"
        + breakdown(report)
    )


def breakdown(report):
    """Images called defective and mistakes for each kind, at the threshold."""
    rows = []
    for group, (k, kind) in enumerate(report.groups()):
        part = report.parts[k]
        own = [image for image in part.images if image.defect == kind]
        flagged = sum(image.score > part.shown_threshold for image in own)
        wrong = len(own) - flagged if own[0].label else flagged
        said = "missed" if own[0].label else "false alarm" + "s" * (wrong != 1)
        name = f"{part.name}, {kind}" if len(report.parts) > 1 else kind
        rows.append(
            f'<tr data-group="{group}" data-category="{k}"><th scope="row" class="wide">{escape(name)}</th>'
            f"<td>{wrong} {said}</td><td>{100 * wrong / len(own):.1f} %</td><td>{len(own)}</td><td>{flagged}</td></tr>"
        )
    return (
        '<h3>At this threshold</h3><div class="scroll tall" tabindex="0" role="region" '
        'aria-label="Mistakes of every kind"><table><thead><tr><th scope="col">kind</th><th scope="col">mistakes</th>'
        '<th scope="col">share</th><th scope="col">images</th><th scope="col">called defective</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def gallery(report):
    """The pictures, worst mistakes first."""
    cards = [(part, card) for part in report.parts for card in part.cards]
    images = report.images()

    def error(entry):
        image = images[entry[1].index]
        return image.score - report.threshold if image.label else report.threshold - image.score

    cards.sort(key=error)
    pictures = "".join(picture(report, card, images[card.index]) for _, card in cards)
    limited = ""
    if len(cards) < len(images):
        limited = (
            f" Only {len(cards)} of {len(images)} test images are in this file: of each category the defective ones "
            "with the lowest and the good ones with the highest scores, where the mistakes are at any threshold."
        )
    return (
        '<h2 id="pictures">Pictures</h2><p>Worst mistakes first, then the images that come nearest to one. '
        f'{escape(limited)}</p><ul class="key"><li><i class="marked"></i>defect as labelled</li>'
        '<li><i class="over"></i>above the pixel threshold</li></ul>'
        '<p class="script controls" hidden><label for="show">Show</label><select id="show">'
        '<option value="all">all</option><option value="wrong">mistakes</option><option value="missed">missed</option>'
        '<option value="alarm">false alarms</option></select> <span id="shown" class="soft" role="status"></span></p>'
        f'<ul class="gallery" id="gallery">{pictures}</ul>'
    )


def picture(report, card, image):
    """One card of the gallery."""
    flagged = image.score > report.threshold
    verdict = (("Passed", "False alarm"), ("Missed", "Found"))[image.label][flagged]
    wrong = " wrong" if flagged != bool(image.label) else ""
    file = escape(card.file)
    width, height = card.size
    labelled = "defect outlined" if card.marked else "no mask" if image.label else "good"
    size = f'width="{width}" height="{height}" decoding="async"'
    return (
        f'<li class="card{wrong}" data-index="{card.index}"><div class="top"><span class="badge">{verdict}</span>'
        f"<span>score {image.score:.4g}</span></div>"
        f'<div class="pair"><figure><img src="{card.picture}" alt="Picture of {file}, {labelled}" {size}>'
        f"<figcaption>{labelled}</figcaption></figure>"
        f'<figure><img src="{card.heat}" alt="Heat map of {file}" {size}>'
        "<figcaption>heat map</figcaption></figure></div>"
        f'<p class="file"><bdi>{file}</bdi></p></li>'
    )


def curves(report):
    """ROC, precision-recall and PRO charts of every category."""
    parts = ['<h2 id="curves">Curves</h2>']
    parts.append(
        '<ul class="key"><li><i class="image"></i>images</li><li><i class="pixel"></i>pixels</li>'
        '<li><i class="pro"></i>regions</li></ul><p class="soft">The ring is the threshold above.</p>'
    )
    for k, part in enumerate(report.parts):
        heading = f"<h3>{escape(part.name)}</h3>" if len(report.parts) > 1 else ""
        parts.append(f'<section data-category="{k}">{heading}<div class="curves">')
        parts += [f"<figure>{drawn}</figure>" for drawn in charts(part, k)]
        parts.append("</div></section>")
        if part.pixel_curves is None:
            parts.append('<p class="soft">No masks with defects: no pixel curves and no PRO.</p>')
    return "".join(parts)


def charts(part, group):
    """The two or three charts of a category."""
    pixel = part.pixel_curves
    hits, bad = part.counts(1)
    alarms, good = part.counts(0)
    points = {"roc": (alarms / good, hits / bad), "pr": (hits / bad, hits / (hits + alarms) if hits + alarms else None)}
    axes = {"roc": ("ROC", "false positive rate", "true positive rate"), "pr": ("PR", "recall", "precision")}
    values = {"roc": "auroc", "pr": "ap"}
    for kind, (name, x_label, y_label) in axes.items():
        lines = [("image", *part.image_curves[kind])]
        said = f"{part.name}: {name} curve, images {part.result['image_' + values[kind]]:.4f}"
        if pixel is not None:
            lines.append(("pixel", *pixel[kind]))
            said += f", pixels {part.result['pixel_' + values[kind]]:.4f}"
        x, y = points[kind]
        yield svg.chart(said, f"{name}: {x_label}", y_label, lines, point=(kind, x, y), group=group)
    if pixel is not None:
        said = f"{part.name}: PRO curve, area to {PRO_LIMIT} {part.result['aupro_30']:.4f}"
        lines = [("pro", *pixel["pro"])]
        yield svg.chart(said, "PRO: false positive rate of pixels", "region overlap", lines, x_max=PRO_LIMIT)


def about(report):
    rows = "".join(f"<dt>{escape(key)}</dt><dd>{escape(str(value))}</dd>" for key, value in report.about.items())
    return f'<h2 id="about">About</h2><dl>{rows}</dl>'
