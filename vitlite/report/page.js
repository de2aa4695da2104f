"use strict";
(() => {
  const find = (id) => document.getElementById(id);
  const all = (query) => Array.from(document.querySelectorAll(query));
  const data = JSON.parse(find("data").textContent);
  const { defective, category, group, axis, plot } = data;
  // An image without a score here is called good at any threshold.
  const scores = data.scores.map((score) => score ?? -Infinity);
  const slider = find("slider"), number = find("number"), reset = find("reset"), counts = find("counts");
  const choice = find("category"), filter = find("show"), gallery = find("gallery"), shown = find("shown");
  const command = find("command"), value = find("value"), copy = find("copy"), copied = find("copied");
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

  // Counts of the chosen images: [good and called defective, good, defective and called so, defective].
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
    shown.textContent = `${visible} of ${cards.length} images shown`;
  };

  // A few digits of the threshold, unless an image's verdict takes all of them.
  const exact = () => {
    const short = Number(threshold.toPrecision(6));
    return String(scores.every((score) => score > short === score > threshold) ? short : threshold);
  };

  const drawCommand = () => {
    value.textContent = exact();
    all("#command [data-own]").forEach((option) => { option.hidden = Number(option.dataset.own) !== chosen; });
    copied.textContent = "";
  };

  const draw = () => {
    waiting = false;
    all("svg.hist").forEach((svg) => svg.toggleAttribute("hidden", Number(svg.dataset.category) !== chosen));
    all("section[data-category]").forEach((s) => { s.hidden = !inside(Number(s.dataset.category)); });
    drawLines();
    drawCounts();
    drawGallery();
    drawCommand();
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
    // Some browsers refuse this for files: then the address stays as it is.
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
  copy.addEventListener("click", async () => {
    getSelection().selectAllChildren(command);
    try {
      await navigator.clipboard.writeText(command.innerText);
      copied.textContent = "Copied";
    } catch (e) { copied.textContent = "Selected: copy it with the keyboard"; }
  });
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
