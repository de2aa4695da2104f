"""The report's style sheet and script. They stand in the page as they are here; no name from outside enters them."""

STYLE = """
:root { color-scheme: light dark; --bg: #ffffff; --panel: #f4f5f7; --text: #1b1f24; --soft: #57606a; --edge: #d0d7de;
  --good: #1a64a8; --defect: #b4420a; --third: #4d6b1f; --line: #1b1f24; --bad-bg: #ffe3d6; --bad: #8f2d00;
  --ok-bg: #dcebfa; --ok: #0d4a80; --focus: #8250df; }
@media (prefers-color-scheme: dark) {
  :root { --bg: #0f1318; --panel: #1a2028; --text: #e8ecf1; --soft: #a3adb8; --edge: #38424d;
    --good: #6cb2f5; --defect: #ff9d66; --third: #a9cf6b; --line: #ffffff; --bad-bg: #4d1f0b; --bad: #ffb694;
    --ok-bg: #14324f; --ok: #a9d4ff; --focus: #c297ff; } }
* { box-sizing: border-box; }
html { scroll-padding-top: 9rem; }
body { margin: 0; background: var(--bg); color: var(--text); font: 16px/1.5 system-ui, sans-serif; }
header, main { max-width: 1180px; margin: 0 auto; padding: 0 16px; }
header { padding-top: 20px; }
main { padding-bottom: 48px; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 36px 0 8px; }
h3 { font-size: 1rem; margin: 12px 0 4px; overflow-wrap: anywhere; }
p { margin: 4px 0 8px; }
.soft, figcaption { color: var(--soft); font-size: 0.875rem; }
.note { background: var(--panel); border-left: 4px solid var(--defect); padding: 8px 12px; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; border: 1px solid var(--edge); border-radius: 6px; }
table { border-collapse: collapse; width: 100%; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 10px; text-align: right; white-space: nowrap; border-top: 1px solid var(--edge); }
thead th { border-top: 0; vertical-align: bottom; }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--bg); }
th.kind { font-weight: 400; padding-left: 26px; }
thead th:first-child { background: var(--bg); }
.wide { max-width: 24rem; white-space: normal; overflow-wrap: anywhere; min-width: 9.5rem; }
.tall { max-height: 24rem; overflow-y: auto; }
.key { display: flex; flex-wrap: wrap; gap: 4px 20px; font-size: 0.875rem; margin: 0 0 6px; padding: 0;
  list-style: none; }
.key i { display: inline-block; width: 14px; height: 14px; margin-right: 6px; vertical-align: -2px;
  border-radius: 2px; }
.key i.good, .key i.image { background: var(--good); } .key i.defect, .key i.pixel { background: var(--defect); }
.key i.pro { background: var(--third); }
.key i.marked { background: #28ff3c; border: 1px solid #000; } .key i.over { background: #ff00ff; }
.key i.line, .key i.calibrated { width: 0; border-radius: 0; border-left: 2px solid var(--line); margin-left: 6px; }
.key i.calibrated { border-left-style: dashed; border-left-color: var(--soft); }
svg { display: block; } svg text { fill: var(--soft); font-size: 12px; }
svg.hist { overflow: visible; } .plot { padding: 0 8px; }
svg.chart { width: 100%; height: auto; max-width: 420px; }
rect.good { fill: var(--good); } rect.defect { fill: var(--defect); }
line.axis { stroke: var(--soft); } line.grid { stroke: var(--edge); stroke-width: 0.7; }
line.line { stroke: var(--line); stroke-width: 2; } line.calibrated { stroke: var(--soft); stroke-dasharray: 4 4; }
path.curve { fill: none; stroke-width: 2.2; stroke-linejoin: round; }
path.image { stroke: var(--good); } path.pixel { stroke: var(--defect); stroke-dasharray: 7 3; }
path.pro { stroke: var(--third); }
circle.point { fill: var(--bg); stroke: var(--line); stroke-width: 2.5; }
.bar { position: sticky; top: 0; z-index: 2; background: var(--bg); border-bottom: 1px solid var(--edge);
  padding: 4px 0 8px; }
.bar input[type=range] { width: 100%; height: 28px; margin: 0; accent-color: var(--good); display: block; }
.controls { display: flex; flex-wrap: wrap; gap: 6px 14px; align-items: center; }
.controls output { flex: 1 1 15rem; font-weight: 600; }
label { font-size: 0.9rem; }
label.hidden { position: absolute; clip-path: inset(50%); width: 1px; height: 1px; overflow: hidden; }
input[type=number] { width: 7.5rem; } select { max-width: 100%; }
input[type=number], select, button { font: inherit; font-size: 0.95rem; color: var(--text); background: var(--panel);
  border: 1px solid var(--soft); border-radius: 6px; padding: 4px 8px; min-height: 34px; }
button { cursor: pointer; } button:disabled { cursor: default; opacity: 0.5; }
nav { display: flex; flex-wrap: wrap; gap: 4px 18px; } a { color: var(--good); }
:focus-visible { outline: 3px solid var(--focus); outline-offset: 2px; }
.curves { display: grid; gap: 12px 20px; grid-template-columns: repeat(auto-fit, minmax(min(280px, 100%), 1fr)); }
.curves figure, .card figure { margin: 0; min-width: 0; }
.gallery { display: grid; gap: 14px; grid-template-columns: repeat(auto-fill, minmax(min(340px, 100%), 1fr));
  list-style: none; padding: 0; margin: 12px 0; }
.card { background: var(--panel); border: 1px solid var(--edge); border-radius: 8px; padding: 10px; min-width: 0; }
.card.wrong { border-color: var(--defect); box-shadow: inset 0 3px 0 var(--defect); }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 8px; }
.card img { display: block; width: 100%; height: auto; max-height: 420px; object-fit: contain; background: #000; }
.card .soft { color: var(--soft); }
.file { font-size: 0.9rem; overflow-wrap: anywhere; margin: 6px 0 0; }
.badge { display: inline-block; font-weight: 600; font-size: 0.875rem; padding: 1px 10px; border-radius: 10px;
  background: var(--ok-bg); color: var(--ok); }
.wrong .badge { background: var(--bad-bg); color: var(--bad); }
.top { display: flex; justify-content: space-between; gap: 8px; flex-wrap: wrap; margin-bottom: 8px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 16px; font-size: 0.9rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
[hidden] { display: none !important; }
@media (max-width: 480px) { dl { grid-template-columns: 1fr; } dd { margin-bottom: 6px; } .controls { gap: 4px 10px; }
  h1 { font-size: 1.35rem; } input[type=number] { width: 6.5rem; } }
"""

SCRIPT = """
"use strict";
(() => {
  const find = (id) => document.getElementById(id);
  const all = (query) => Array.from(document.querySelectorAll(query));
  const data = JSON.parse(find("data").textContent);
  const { scores, defective, category, group, axis, plot } = data;
  const slider = find("slider"), number = find("number"), reset = find("reset"), counts = find("counts");
  const choice = find("category"), filter = find("show"), gallery = find("gallery"), shown = find("shown");
  const cards = all(".card"), badges = cards.map((card) => card.querySelector(".badge"));
  const places = cards.map((card) => Number(card.dataset.index));
  let threshold = data.threshold, chosen = -1, waiting = false;

  const scale = axis.log ? Math.log : (value) => value;
  const low = scale(axis.low), high = scale(axis.high);
  const position = (score) => {
    if (axis.log && score <= 0) return 0;
    return Math.min(1, Math.max(0, (scale(score) - low) / (high - low)));
  };
  const scoreAt = (share) => {
    const value = low + share * (high - low);
    return axis.log ? Math.exp(value) : value;
  };
  const text = (value) => String(Number(value.toPrecision(6)));
  const inside = (c) => chosen < 0 || c === chosen;
  const calibrated = () => (chosen < 0 ? data.threshold : data.thresholds[chosen]);

  // How many of a selection of images are called defective: [good ones, of how many, defective ones, of how many].
  const count = (chooses) => {
    const found = [0, 0, 0, 0];
    scores.forEach((score, i) => {
      if (!chooses(i)) return;
      const kind = 2 * defective[i];
      found[kind + 1] += 1;
      if (score > threshold) found[kind] += 1;
    });
    return found;
  };

  const drawLines = () => {
    const x = 100 * position(threshold) + "%", fixed = 100 * position(calibrated()) + "%";
    all("svg.hist").forEach((svg) => {
      const lines = [[svg.querySelector(".line"), x], [svg.querySelector(".calibrated"), fixed]];
      lines.forEach(([line, at]) => { line.setAttribute("x1", at); line.setAttribute("x2", at); });
    });
    all("circle.point").forEach((circle) => {
      const c = Number(circle.dataset.category);
      const [alarms, good, hits, bad] = count((i) => category[i] === c);
      const roc = circle.dataset.kind === "roc";
      const x = roc ? alarms / good : hits / bad, y = roc ? hits / bad : hits / (hits + alarms);
      circle.setAttribute("visibility", Number.isFinite(y) ? "visible" : "hidden");
      if (!Number.isFinite(y)) return;
      circle.setAttribute("cx", (plot.left + x * plot.width).toFixed(1));
      circle.setAttribute("cy", (plot.top + (1 - y) * plot.height).toFixed(1));
    });
  };

  const drawCounts = () => {
    const [alarms, good, hits, bad] = count((i) => inside(category[i]));
    counts.textContent = `Missed ${bad - hits} of ${bad} · false alarms ${alarms} of ${good}`;
    counts.dataset.misses = bad - hits;
    counts.dataset.alarms = alarms;
    all("tr[data-group]").forEach((row) => {
      const own = Number(row.dataset.group);
      const [alarm, passed, hit, total] = count((i) => group[i] === own);
      const images = passed + total, wrong = total ? total - hit : alarm;
      row.cells[4].textContent = alarm + hit;
      row.cells[1].textContent = total ? `${wrong} missed` : `${wrong} false alarm${wrong === 1 ? "" : "s"}`;
      row.cells[2].textContent = `${(100 * wrong / images).toFixed(1)} %`;
      row.hidden = !inside(Number(row.dataset.category));
    });
  };

  // How far an image is on the wrong side of the threshold; negative on the right side.
  const error = (i) => (defective[i] ? threshold - scores[i] : scores[i] - threshold);

  const drawGallery = () => {
    let visible = 0;
    cards.forEach((card, k) => {
      const i = places[k], flagged = scores[i] > threshold, wrong = flagged !== Boolean(defective[i]);
      const verdict = defective[i] ? (flagged ? "Found" : "Missed") : (flagged ? "False alarm" : "Passed");
      if (badges[k].textContent !== verdict) badges[k].textContent = verdict;
      card.classList.toggle("wrong", wrong);
      const wanted = { all: true, wrong, missed: wrong && !flagged, alarm: wrong && flagged }[filter.value];
      card.hidden = !(wanted && inside(category[i]));
      visible += card.hidden ? 0 : 1;
    });
    const order = cards.map((_, k) => k).sort((a, b) => error(places[b]) - error(places[a]));
    const now = Array.from(gallery.children);
    if (order.some((k, place) => cards[k] !== now[place])) gallery.append(...order.map((k) => cards[k]));
    shown.textContent = `${visible} of ${cards.length} pictures shown`;
  };

  const draw = () => {
    waiting = false;
    all("svg.hist").forEach((svg) => svg.toggleAttribute("hidden", Number(svg.dataset.category) !== chosen));
    all("section[data-category]").forEach((s) => { s.hidden = !inside(Number(s.dataset.category)); });
    drawLines();
    drawCounts();
    drawGallery();
    slider.value = Math.round(1000 * position(threshold));
    slider.setAttribute("aria-valuetext", text(threshold));
    if (document.activeElement !== number) number.value = text(threshold);
    reset.disabled = threshold === calibrated();
  };
  const drawSoon = () => {
    if (!waiting) requestAnimationFrame(draw);
    waiting = true;
  };

  const fromAddress = () => {
    const wanted = new URLSearchParams(location.hash.slice(1)).get("threshold");
    if (wanted !== null && wanted.trim() !== "" && Number.isFinite(Number(wanted))) threshold = Number(wanted);
  };
  const toAddress = () => {
    // Some browsers refuse this for files; the address is then only not updated.
    try { history.replaceState(null, "", threshold === calibrated() ? "#" : `#threshold=${threshold}`); } catch (e) {}
  };

  slider.addEventListener("input", () => { threshold = scoreAt(slider.value / 1000); drawSoon(); });
  slider.addEventListener("change", toAddress);
  number.addEventListener("input", () => {
    if (!Number.isFinite(number.valueAsNumber)) return;
    threshold = number.valueAsNumber;
    drawSoon();
  });
  number.addEventListener("change", () => { number.value = text(threshold); toAddress(); });
  reset.addEventListener("click", () => { threshold = calibrated(); toAddress(); drawSoon(); });
  filter.addEventListener("change", drawSoon);
  if (choice) choice.addEventListener("change", () => {
    chosen = Number(choice.value);
    threshold = calibrated();
    toAddress();
    drawSoon();
  });
  window.addEventListener("hashchange", () => { fromAddress(); drawSoon(); });
  fromAddress();
  all(".script").forEach((element) => { element.hidden = false; });
  draw();
  document.documentElement.dataset.ready = "yes";
})();
"""
