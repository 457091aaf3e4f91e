"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const {metrics, scenes} = data;
  const PER_PAGE = {grid: 24, rows: 100};
  const get = (id) => document.getElementById(id);
  const make = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) {
      if (key in node && key !== "role") node[key] = value; else node.setAttribute(key, value);
    }
    node.append(...children);
    return node;
  };
  const many = (count) => count.toLocaleString("en");
  const show = (value, digits) => value === null || value === undefined ? "–" : value.toFixed(digits);
  scenes.forEach((scene) => {
    scene.text = [scene.name, scene.recording, scene.error, ...scene.warnings].join(" ").toLowerCase();
  });

  // The data lists scenes from worst to best, failed ones last; other orders break ties by that one.
  const orders = {
    worst: ["worst first", null],
    best: ["best first", (a, b) => (a.status === "failed") - (b.status === "failed") || b.index - a.index],
    name: ["name", (a, b) => a.name.localeCompare(b.name, undefined, {numeric: true})],
    slow: ["slowest first", (a, b) => (b.seconds || 0) - (a.seconds || 0)],
  };
  metrics.forEach((metric, i) => {
    const value = (scene) => scene.metrics[i];
    const down = metric.lower ? -1 : 1;
    orders[metric.name] = [metric.title, (a, b) => {
      const [x, y] = [value(a), value(b)];
      return x === null ? (y === null ? 0 : 1) : y === null ? -1 : down * (x - y);
    }];
  });
  scenes.forEach((scene, index) => { scene.index = index; });
  for (const [key, [label]] of Object.entries(orders)) {
    get("sort").append(make("option", {value: key, textContent: `sort: ${label}`}));
  }

  // The address holds the state of the page, so that a link shows the same scenes.
  const plain = {query: "", status: "", sort: "worst", back: false, layout: "grid", page: 0};
  const state = {...plain};
  let shown = [];
  const recall = () => {
    const hash = new URLSearchParams(location.hash.slice(1));
    for (const key of Object.keys(plain)) if (hash.has(key)) state[key] = hash.get(key);
    state.page = parseInt(state.page, 10) || 0;
    state.back = String(state.back) === "true";
    if (!(state.sort in orders)) state.sort = "worst";
    if (!(state.layout in PER_PAGE)) state.layout = "grid";
    for (const key of ["query", "status", "sort"]) get(key).value = state[key];
  };
  const remember = (scene) => {
    const hash = new URLSearchParams();
    for (const [key, value] of Object.entries(plain)) if (state[key] !== value) hash.set(key, state[key]);
    if (scene) hash.set("scene", scene);
    history.replaceState(null, "", `#${hash}`);
  };

  const filter = () => {
    const words = state.query.toLowerCase().split(/\s+/).filter(Boolean);
    shown = scenes.filter((s) => (!state.status || s.status === state.status)
      && words.every((word) => s.text.includes(word)));
    const compare = orders[state.sort][1];
    if (compare) shown.sort((a, b) => compare(a, b) || a.index - b.index);
    if (state.back) shown.reverse();
  };

  const summary = (scene) => metrics.slice(0, 2)
    .map((m, i) => [m, scene.metrics[i]]).filter(([, v]) => v !== null)
    .map(([m, v]) => `${m.title} ${show(v, m.digits)}${m.unit}`).join(" · ");

  const open = (scene) => {
    const hash = new URLSearchParams(location.hash.slice(1));
    hash.set("scene", scene.name);
    location.hash = hash.toString();
  };

  const card = (scene) => {
    const picture = scene.picture
      ? make("img", {loading: "lazy", decoding: "async", alt: "", width: 480, height: 120,
                     src: `thumbs/${encodeURIComponent(scene.name)}.jpg`})
      : make("div", {className: scene.error ? "none" : "none plainly",
                     textContent: scene.error || "no picture"});
    const text = make("div", {className: "text"});
    if (scene.status !== "done") {
      text.append(make("span", {className: `${scene.status}-label`, textContent: scene.status}));
    }
    text.append(make("b", {textContent: scene.name}),
      make("p", {textContent: summary(scene) || (scene.picture ? scene.error : "") || "no metrics"}));
    return make("button", {type: "button", className: "card", onclick: () => open(scene)}, picture, text);
  };

  const table = (list) => {
    const columns = [["name", "scene"], [null, "status"], ...metrics.map((m) => [m.name, m.title]),
      [null, "fit s"], ["slow", "total s"]];
    const head = make("tr");
    for (const [key, title] of columns) {
      const active = key && (state.sort === key);
      const cell = make("th", {textContent: title + (active ? (state.back ? " ↑" : " ↓") : ""),
        "aria-sort": active ? (state.back ? "descending" : "ascending") : "none"});
      if (key) cell.onclick = () => {
        state.back = active ? !state.back : false;
        state.sort = key; state.page = 0; get("sort").value = key; redraw();
      };
      head.append(cell);
    }
    const body = make("tbody");
    for (const scene of list) {
      const row = make("tr", {tabIndex: 0, onclick: () => open(scene)});
      row.onkeydown = (event) => { if (event.key === "Enter") open(scene); };
      row.append(make("td", {textContent: scene.name}),
        make("td", {className: `${scene.status}-label`, textContent: scene.status}));
      if (scene.status === "failed") {
        row.append(make("td", {colSpan: metrics.length + 2},
          make("span", {className: "why", textContent: scene.error})));
      } else {
        metrics.forEach((m, i) => row.append(make("td", {textContent: show(scene.metrics[i], m.digits)})));
        row.append(make("td", {textContent: show(scene.fit, 2)}), make("td", {textContent: show(scene.seconds, 2)}));
      }
      body.append(row);
    }
    return make("div", {className: "scroll"},
      make("table", {className: "scenes"}, make("thead", {}, head), body));
  };

  const pageButtons = (count) => {
    const nav = get("pages");
    nav.replaceChildren();
    if (count < 2) return;
    const go = (page) => () => { state.page = page; redraw(); get("scenes").scrollIntoView(); };
    const button = (label, page, name) => make("button", {type: "button", textContent: label,
      "aria-label": name || `page ${label}`, onclick: go(page), disabled: page < 0 || page >= count});
    nav.append(button("‹", state.page - 1, "previous page"));
    let last = -1;
    for (let page = 0; page < count; page += 1) {
      if (page !== 0 && page !== count - 1 && Math.abs(page - state.page) > 2) continue;
      if (page - last > 1) nav.append(make("span", {textContent: "…"}));
      const one = button(String(page + 1), page);
      if (page === state.page) one.setAttribute("aria-current", "page");
      nav.append(one);
      last = page;
    }
    nav.append(button("›", state.page + 1, "next page"));
  };

  const draw = () => {
    filter();
    const size = PER_PAGE[state.layout], count = Math.ceil(shown.length / size);
    state.page = Math.max(0, Math.min(state.page, count - 1));
    const first = state.page * size, list = shown.slice(first, first + size);
    get("found").textContent = shown.length
      ? `${many(first + 1)}–${many(first + list.length)} of ${many(shown.length)}` + (shown.length < scenes.length ? ` (${many(scenes.length)} in all)` : "")
      : "No scene matches.";
    get("list").replaceChildren(state.layout === "grid"
      ? make("div", {className: "cards"}, ...list.map(card)) : table(list));
    pageButtons(count);
    for (const layout of ["grid", "rows"]) get(layout).setAttribute("aria-pressed", state.layout === layout);
  };
  const redraw = () => { draw(); remember(); };

  const change = (key, value) => { state[key] = value; state.page = 0; state.back = false; redraw(); };
  get("query").oninput = (event) => change("query", event.target.value);
  get("status").onchange = (event) => change("status", event.target.value);
  get("sort").onchange = (event) => change("sort", event.target.value);
  get("grid").onclick = () => change("layout", "grid");
  get("rows").onclick = () => change("layout", "rows");
  get("bar").onsubmit = (event) => event.preventDefault();

  // The contact sheet of one scene, which the address names.
  const box = get("box");
  let current = null;
  const fact = (name, value) => value === null || value === "" || value === undefined ? []
    : [make("dt", {textContent: name}), make("dd", {textContent: value})];
  const showScene = (scene) => {
    current = scene;
    get("boxname").textContent = scene.name;
    get("boxnote").textContent = [scene.status, summary(scene)].filter(Boolean).join(" · ");
    get("sheet").hidden = !scene.picture;
    get("sheet").alt = `contact sheet of ${scene.name}`;
    if (scene.picture) get("sheet").src = `sheets/${encodeURIComponent(scene.name)}.jpg`;
    get("turn").hidden = !scene.video;
    if (scene.video) get("turn").src = `turntables/${encodeURIComponent(scene.name)}.mp4`;
    else get("turn").removeAttribute("src");
    get("legend").hidden = !scene.picture;
    get("boxmetrics").replaceChildren(
      ...metrics.flatMap((m, i) => scene.metrics[i] === null ? []
        : fact(m.title, show(scene.metrics[i], m.digits + 1) + m.unit)));
    get("boxfacts").replaceChildren(
      ...fact(scene.status === "done" ? "note" : "reason", scene.error),
      ...scene.warnings.flatMap((warning) => fact("warning", warning)),
      ...fact("recording", scene.recording), ...fact("source", scene.source),
      ...fact("Gaussians", scene.gaussians && scene.gaussians.toLocaleString("en")),
      ...fact("time", scene.seconds && `${scene.seconds.toFixed(2)} s` + (scene.fit === null ? "" : `, of which fit ${scene.fit.toFixed(2)} s`)));
    const place = shown.indexOf(scene);
    get("before").disabled = place < 1;
    get("after").disabled = place < 0 || place === shown.length - 1;
    if (!box.open) box.showModal();
    box.scrollTop = 0;
  };
  const step = (by) => {
    const place = shown.indexOf(current) + by;
    if (place >= 0 && place < shown.length) open(shown[place]);
  };
  const follow = () => {
    const name = new URLSearchParams(location.hash.slice(1)).get("scene");
    const scene = scenes.find((s) => s.name === name);
    if (scene) showScene(scene); else if (box.open) box.close();
  };
  get("before").onclick = () => step(-1);
  get("after").onclick = () => step(1);
  get("shut").onclick = () => box.close();
  box.onclick = (event) => { if (event.target === box) box.close(); };
  box.onclose = () => { get("turn").pause(); remember(); };
  box.onkeydown = (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  };
  window.onhashchange = follow;
  recall();
  draw();
  follow();
})();
