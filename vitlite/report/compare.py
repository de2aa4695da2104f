"""Several runs on the same test images, side by side: their figures, and what each says of some of the images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from string import Template
from typing import Any

from vitlite.data import Dataset, Sample
from vitlite.data.index import grouped
from vitlite.engine.detector import Detector
from vitlite.engine.evaluate import open_test_data, score_category
from vitlite.errors import UserError
from vitlite.files import StrPath, counted, shown
from vitlite.report.build import part_notes
from vitlite.report.gallery import LIMIT, Card, card_of
from vitlite.report.page import VERDICTS, asset, digest, img
from vitlite.results import HEADS, mean_of, summarize_category

PER_KIND = 2  # images of each kind that are shown, or 1 if there are many kinds


@dataclass(frozen=True)
class Answer:
    """What a run says of an image."""

    card: Card
    score: float
    verdict: str  # as a card of the report has it: found, missed, false alarm or passed
    wrong: bool


@dataclass
class Compared:
    """One run: its figures by category as in results.json, and its answers on the images that are shown."""

    name: str
    method: str
    results: dict[str, dict[str, Any]]
    answers: dict[Sample, Answer]


@dataclass(frozen=True)
class Comparison:
    """Everything that the page shows."""

    dataset: Dataset
    chosen: dict[tuple[str, str], list[Sample]]  # by category and kind
    runs: list[Compared]
    notes: list[str]


def compare(
    detectors: Sequence[Detector],
    *,
    data: StrPath | None = None,
    category: str | None = None,
    mask_threshold: int | None = None,
) -> Comparison:
    """Score the test images of ``data`` (default: the data of training) with each detector.

    Raises ``UserError`` as ``vitlite.engine.evaluate.evaluate`` does, and if the runs have other test images.
    """
    sets = [open_test_data(detector, data, category, mask_threshold) for detector in detectors]
    files = [[sample.path.resolve() for sample in dataset.test] for dataset in sets]
    for detector, own in zip(detectors, files):
        if own != files[0]:
            raise UserError(
                f"{shown(detector.run)}: its test images are not those of {shown(detectors[0].run)}; give `data=DIR`, "
                "and `category=NAME` if the runs have others, or runs of the same data"
            )
    dataset, notes = sets[0], []
    chosen = choose_by_name(dataset)
    runs = []
    for detector in detectors:
        run = Compared(shown(detector.run), detector.settings.method, {}, {})
        for name in dataset.categories:
            notes += add_category(run, detector, dataset, name, chosen)
        runs.append(run)
    return Comparison(dataset, chosen, runs, list(dict.fromkeys(notes)))


def choose_by_name(dataset: Dataset) -> dict[tuple[str, str], list[Sample]]:
    """Some test images of each category and kind, evenly spaced in the order of names, which flatters no method."""
    ordered = sorted(dataset.test, key=lambda sample: (sample.category, sample.label, sample.defect, sample.path))
    kinds = grouped(((sample.category, sample.defect), sample) for sample in ordered)
    most = PER_KIND if PER_KIND * len(kinds) <= LIMIT else 1
    # The middles of as many equal parts.
    return {
        key: [own[int(len(own) * (k + 0.5) / most)] for k in range(most)] if len(own) > most else own
        for key, own in kinds.items()
    }


def add_category(
    run: Compared, detector: Detector, dataset: Dataset, name: str, chosen: dict[tuple[str, str], list[Sample]]
) -> list[str]:
    """Score a category and add what the page needs of it; returns notes."""
    scored = score_category(detector, dataset, name)
    result = summarize_category(scored)
    run.results[name] = result
    wanted = {sample for (category, _), own in chosen.items() if category == name for sample in own}
    for i, sample in enumerate(scored.samples):
        if sample in wanted:
            judged = result["images"][i]
            flagged = judged["verdict"] == "defect"
            card = card_of(i, judged["file"], scored, i, detector, outlined=flagged)
            verdict = VERDICTS[sample.label][flagged]
            run.answers[sample] = Answer(card, judged["score"], verdict, flagged != bool(sample.label))
    return part_notes(scored)


def render_comparison(found: Comparison) -> str:
    """The page as text, with the same care for names from outside as the report of one run; it has no script."""
    style = asset("css")
    return Template(asset("html", "compare")).substitute(
        style=style,
        style_hash=digest(style),
        count=len(found.runs),
        images=len(found.dataset.test),
        data=escape(shown(found.dataset.root)),
        notes="\n".join(f'<p class="note">{escape(note)}</p>' for note in found.notes),
        shown=counted(max(map(len, found.chosen.values())), "image"),
        tables="\n".join(tables(found)),
        gallery="\n".join(gallery(found)),
    )


def tables(found: Comparison) -> Iterator[str]:
    """A table for each category with a row for each run, after one of the means if there are several."""
    several = len(found.dataset.categories) > 1
    if several:
        means = [mean_of(run.results.values()) for run in found.runs]
        counts = [{key: sum(own[key] for own in run.results.values()) for key in ("fn", "fp")} for run in found.runs]
        yield table(found.runs, [{**mean, **own} for mean, own in zip(means, counts)], "Mean of categories")
    for name in found.dataset.categories:
        yield table(found.runs, [run.results[name] for run in found.runs], shown(name))


def table(runs: Sequence[Compared], values: Sequence[dict[str, Any]], title: str) -> str:
    """The figures of each run."""
    heads = "".join(f'<th scope="col">{escape(head)}</th>' for head in ("missed", "false alarms", *HEADS.values()))
    rows = []
    for run, own in zip(runs, values):
        cells = "".join(f"<td>{'–' if own[key] is None else format(own[key], '.4f')}</td>" for key in HEADS)
        name = f"{escape(run.name)}<br>{escape(run.method)}"
        rows.append(f'<tr><th scope="row" class="wide">{name}</th><td>{own["fn"]}</td><td>{own["fp"]}</td>{cells}</tr>')
    return (
        f'<h3>{escape(title)}</h3><div class="scroll" tabindex="0" role="region" aria-label="{escape(title)}, scrolls '
        f'sideways"><table><thead><tr><th scope="col">run</th>{heads}</tr></thead><tbody>{"".join(rows)}</tbody>'
        "</table></div>"
    )


def gallery(found: Comparison) -> Iterator[str]:
    """A table for each kind of each category: a row for each image, a column for each run."""
    heads = "".join(f'<th scope="col">{escape(run.name)}, {escape(run.method)}</th>' for run in found.runs)
    for (category, kind), samples in found.chosen.items():
        name = f"{shown(category)}, {shown(kind)}" if len(found.dataset.categories) > 1 else shown(kind)
        # A file that cannot be read has no answer, and a note at the top.
        answers = [[run.answers[sample] for run in found.runs if sample in run.answers] for sample in samples]
        rows = "".join(f"<tr>{image_cell(own[0].card)}{''.join(map(answer_cell, own))}</tr>" for own in answers if own)
        yield (
            f'<h3>{escape(name)}</h3><div class="scroll" tabindex="0" role="region" aria-label="Images of '
            f'{escape(name)}, scrolls sideways"><table class="side"><thead><tr><th scope="col">image</th>{heads}</tr>'
            f"</thead><tbody>{rows}</tbody></table></div>"
        )


def image_cell(card: Card) -> str:
    """An image with its mask outlined."""
    file, labelled = escape(card.file), "defect outlined" if card.marked else "no mask, or good"
    drawn = img(card.image, f"{file}, {labelled}", card.size)
    return f'<th scope="row">{drawn}<p class="file"><bdi>{file}</bdi></p></th>'


def answer_cell(answer: Answer) -> str:
    """The heat map of a run, with its verdict and score."""
    drawn = img(answer.card.heat, f"Heat map of {escape(answer.card.file)}", answer.card.size)
    wrong = ' class="wrong"' if answer.wrong else ""
    return f'<td{wrong}>{drawn}<span class="badge">{answer.verdict}</span> score {answer.score:.4g}</td>'
