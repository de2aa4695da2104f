"use strict";
(() => {
  const find = (id) => document.getElementById(id);
  const MOST = 50, MOST_PROBLEMS = 5, TRIES = 6, SIDE = 480;
  const slider = find("slider"), number = find("number"), category = find("category"), video = find("video");
  const items = [], waiting = [], problems = [];
  let info = null, token = sessionStorage.getItem("vitlite-token"), moved = null, chosen = null, busy = false, ticking = 0;

  const show = (element, wanted) => { element.hidden = !wanted; };
  const say = (text) => { find("status").textContent = text; };
  const complain = (text) => { find("problem").textContent = text; show(find("problem"), text); };
  // What went wrong with the images that came together, until others come.
  const fail = (text) => {
    problems.push(text);
    const more = problems.length - MOST_PROBLEMS;
    complain([...problems.slice(0, MOST_PROBLEMS), ...(more > 0 ? [`and ${more} more`] : [])].join("\n"));
  };
  const text = (value) => String(Number(value.toPrecision(6)));
  const pause = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));

  // The answer to a request, as JSON. A server that is busy says when to come again.
  const ask = async (path, options = {}) => {
    const headers = token ? { authorization: `Bearer ${token}` } : {};
    for (let left = TRIES; ; left -= 1) {
      const response = await fetch(path, { ...options, headers });
      if (response.status === 503 && left > 1) {
        say("The server is busy …");
        await pause(Number(response.headers.get("retry-after")) || 1);
        continue;
      }
      const answer = await response.json();
      if (response.status === 401) askToken();
      if (!response.ok) throw new Error(answer.error);
      return answer;
    }
  };

  const askToken = () => {
    token = null;
    sessionStorage.removeItem("vitlite-token");
    show(find("access"), true);
    show(find("main"), false);
    find("token").focus();
  };

  const calibrated = () => (category.value ? info.categories[category.value] : info.threshold);
  const threshold = () => moved ?? calibrated();
  const limitOf = (item) => moved ?? item.answer.threshold;
  // An image all of whose regions are too small is good at any threshold.
  const isDefect = (item) => item.answer.score > limitOf(item) && item.answer.candidates.length > 0;

  // A few digits of the threshold, unless an image's verdict takes all of them.
  const exact = () => {
    const value = threshold(), short = Number(value.toPrecision(6));
    const same = items.every(({ answer }) => answer.score > short === answer.score > value);
    return String(same ? short : value);
  };

  const range = () => {
    const scores = [...info.scores, calibrated(), ...items.map((item) => item.answer.score)];
    const low = Math.min(...scores), high = Math.max(...scores), room = (high - low || Math.abs(high) || 1) / 10;
    return [low - room, high + room];
  };

  const draw = () => {
    const [low, high] = range();
    slider.value = Math.round(1000 * (threshold() - low) / (high - low));
    slider.setAttribute("aria-valuetext", text(threshold()));
    if (document.activeElement !== number) number.value = text(threshold());
    find("reset").disabled = moved === null;
    const defects = items.filter(isDefect).length;
    find("counts").textContent = items.length ? `${defects} of ${items.length} images defective` : "";
    const own = category.value || info.category;
    find("command").textContent = `${info.command} ${exact()}${own ? ` --category '${own.replaceAll("'", "'\\''")}'` : ""}`;
    items.forEach(drawItem);
    drawResult();
    show(find("keeping"), info.good);
    if (!info.good) return;
    find("kept").textContent = `${info.good.marked} marked as good, in ${info.good.folder}.`;
    show(find("calibrate"), info.good.marked && info.good.command);
    find("calibration").textContent = info.good.command;
  };

  const drawResult = () => {
    show(find("result"), chosen);
    if (!chosen) return;
    const { answer } = chosen, defect = isDefect(chosen), boxes = defect ? answer.candidates : [];
    find("result").classList.toggle("defect", defect);
    find("badge").textContent = defect ? "Defect" : "Good";
    find("file").textContent = chosen.name;
    if (find("map").src !== chosen.map) find("map").src = chosen.map;
    find("map").alt = `Heat map of ${chosen.name}`;
    // A small image is shown several times as large, up to SIDE pixels.
    const times = Math.max(1, Math.floor(SIDE / Math.max(answer.width, answer.height)));
    if (times > 1) find("map").width = times * answer.width;
    else find("map").removeAttribute("width");
    const svg = find("boxes");
    svg.setAttribute("viewBox", `0 0 ${answer.width} ${answer.height}`);
    const area = ([x0, y0, x1, y1]) => (x1 - x0) * (y1 - y0);
    const largest = [...boxes].sort((a, b) => area(b) - area(a)).slice(0, 500);
    svg.replaceChildren(...largest.map(([x0, y0, x1, y1]) => {
      const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      Object.entries({ x: x0, y: y0, width: x1 - x0, height: y1 - y0 }).forEach(([k, v]) => rect.setAttribute(k, v));
      return rect;
    }));
    const small = !defect && answer.score > limitOf(chosen) ? ", all its regions are too small" : "";
    find("facts").textContent = `Score ${text(answer.score)}, threshold ${text(limitOf(chosen))}${small} · higher than ` +
      `${answer.percentile.toFixed(1)} % of the good images · ${boxes.length} box${boxes.length === 1 ? "" : "es"} · ` +
      `${answer.width} × ${answer.height} pixels · ${answer.milliseconds.toFixed(0)} ms`;
    const outside = 100 * (1 - answer.looked_at);
    const region = outside > 0 ? [`The dark part, ${outside.toFixed(1)} % of the image, is outside the region and does not count`] : [];
    find("notes").textContent = [...region, ...answer.notes].join("; ");
    const mark = find("mark");
    show(mark, info.good);
    mark.textContent = chosen.marked ? "Marked as good: take it back" : "Mark as good for the next calibration";
    mark.setAttribute("aria-pressed", String(Boolean(chosen.marked)));
  };

  const drawItem = (item) => {
    item.row.classList.toggle("defect", isDefect(item));
    item.badge.textContent = isDefect(item) ? "Defect" : "Good";
    item.facts.textContent = `${text(item.answer.score)}${item.marked ? ", marked as good" : ""}`;
    item.button.setAttribute("aria-current", String(item === chosen));
  };

  const element = (name, parent, className = "") => {
    const made = document.createElement(name);
    made.className = className;
    parent.append(made);
    return made;
  };

  const addItem = (name, blob, category, answer) => {
    const bytes = Uint8Array.from(atob(answer.map), (letter) => letter.charCodeAt(0));
    delete answer.map;
    const row = document.createElement("li"), button = element("button", row), thumb = element("img", button);
    const words = element("div", button), badge = element("span", words, "badge");
    const item = { name, blob, answer, row, button, badge, category, marked: null };
    item.map = URL.createObjectURL(new Blob([bytes], { type: "image/png" }));
    element("p", words).textContent = name;
    item.facts = element("p", words, "soft");
    thumb.src = item.map;
    thumb.alt = "";
    button.type = "button";
    button.addEventListener("click", () => { chosen = item; draw(); find("result").scrollIntoView({ block: "nearest" }); });
    find("history").prepend(row);
    items.unshift(item);
    for (const old of items.splice(MOST)) {
      URL.revokeObjectURL(old.map);
      old.row.remove();
      if (chosen === old) chosen = null;
    }
    chosen = item;
  };

  const query = (parameters) => {
    const given = Object.entries(parameters).filter(([, value]) => value);
    return given.length ? `?${new URLSearchParams(given)}` : "";
  };

  // Images are scored one after another, in the order in which they came.
  const work = async () => {
    if (busy) return;
    busy = true;
    while (waiting.length) {
      const { name, blob, category } = waiting.shift();
      say(`Scoring ${name}${waiting.length ? `, ${waiting.length} more wait` : ""} …`);
      try {
        if (blob.size > info.max_bytes) throw new Error(`the upload is larger than ${info.max_bytes / 1e6} MB`);
        const answer = await ask(`score${query({ map: "1", category })}`, { method: "POST", body: blob });
        addItem(name, blob, category, answer);
        drift(answer.drift);
        draw();
      } catch (error) { fail(`${name}: ${error.message}`); }
      say("");
    }
    busy = false;
  };
  const add = (images) => {
    if (!images.length) return;
    if (info.needs_category && !category.value) {
      complain("Choose the category first: each has a region of its own");
      return;
    }
    if (!busy) {
      problems.length = 0;
      complain("");
    }
    // The category of an image is the one chosen when it came.
    waiting.push(...images.map((image) => ({ ...image, category: category.value })));
    work();
  };
  const addFiles = (files) => add(Array.from(files, (blob) => ({ name: blob.name || "pasted image", blob })));

  const drift = (warning) => { find("drift").textContent = warning ?? ""; show(find("drift"), warning); };

  const toggleMark = async () => {
    const item = chosen;
    try {
      const answer = item.marked
        ? await ask(`good/${item.marked}`, { method: "DELETE" })
        : await ask(`good${query({ category: item.category })}`, { method: "POST", body: item.blob });
      // The same image may be in the history twice.
      const name = item.marked ?? answer.good;
      items.filter((other) => other === item || other.marked === name).forEach((other) => { other.marked = answer.good ?? null; });
      info.good.marked = answer.marked;
      complain("");
    } catch (error) { complain(`${item.name}: ${error.message}`); }
    say("");
    draw();
  };

  const shoot = () => {
    if (!video.videoWidth) return;
    const canvas = document.createElement("canvas");
    canvas.width = video.videoWidth;
    canvas.height = video.videoHeight;
    canvas.getContext("2d").drawImage(video, 0, 0);
    const name = `camera ${new Date().toLocaleTimeString()}`;
    canvas.toBlob((blob) => { if (blob) add([{ name, blob }]); }, "image/png");
  };
  const setPace = () => {
    clearInterval(ticking);
    const seconds = Number(find("pace").value);
    // A frame is left out if the one before still waits.
    if (seconds && video.srcObject) ticking = setInterval(() => { if (!busy) shoot(); }, 1000 * seconds);
  };
  const toggleCamera = async () => {
    if (video.srcObject) {
      video.srcObject.getTracks().forEach((track) => track.stop());
      video.srcObject = null;
    } else {
      try {
        const wanted = { facingMode: "environment", width: { ideal: 1920 }, height: { ideal: 1080 } };
        video.srcObject = await navigator.mediaDevices.getUserMedia({ video: wanted });
      } catch (error) {
        const secure = navigator.mediaDevices ? error.message : "browsers allow it on localhost and over https alone";
        complain(`No camera: ${secure}`);
      }
    }
    const on = Boolean(video.srcObject);
    [video, find("shot"), find("pace"), find("pace-label")].forEach((part) => show(part, on));
    find("camera").textContent = on ? "Stop the camera" : "Use the camera";
    setPace();
  };

  const open = async () => {
    try {
      info = await ask("info");
    } catch (error) {
      complain(error.message);
      return;
    }
    if (token) sessionStorage.setItem("vitlite-token", token);
    complain("");
    document.title = find("name").textContent = info.name;
    const names = Object.keys(info.categories);
    const several = (names.length > 1 || info.needs_category) && !info.category;
    const none = info.needs_category ? "choose one" : "all, one threshold";
    category.replaceChildren(...["", ...names].map((name) => new Option(name || none, name)));
    [category, find("category-label")].forEach((part) => show(part, several));
    drift(info.drift);
    show(find("access"), false);
    show(find("main"), true);
    draw();
    document.documentElement.dataset.ready = "yes";
  };

  find("access").addEventListener("submit", (event) => {
    event.preventDefault();
    token = find("token").value.trim();
    find("token").value = "";
    open();
  });
  find("files").addEventListener("change", (event) => { addFiles(event.target.files); event.target.value = ""; });
  document.addEventListener("paste", (event) => { if (info) addFiles(event.clipboardData.files); });
  const drop = find("drop");
  document.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
  document.addEventListener("dragleave", () => drop.classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    if (info) addFiles(event.dataTransfer.files);
  });
  slider.addEventListener("input", () => {
    const [low, high] = range();
    moved = low + (high - low) * slider.value / 1000;
    draw();
  });
  number.addEventListener("input", () => {
    if (!Number.isFinite(number.valueAsNumber)) return;
    moved = number.valueAsNumber;
    draw();
  });
  number.addEventListener("change", () => { number.value = text(threshold()); });
  find("reset").addEventListener("click", () => { moved = null; draw(); });
  category.addEventListener("change", () => { moved = null; complain(""); draw(); });
  find("mark").addEventListener("click", toggleMark);
  find("camera").addEventListener("click", toggleCamera);
  find("shot").addEventListener("click", shoot);
  find("pace").addEventListener("change", setPace);
  open();
})();
