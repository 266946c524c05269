"use strict";
(() => {
  const maps = JSON.parse(document.getElementById("map-data").textContent);
  const live = document.getElementById("live");
  const tip = document.getElementById("tip");
  document.documentElement.classList.add("scripted");

  // A cell's numbers.

  const place = ({ layers, half }, a, b) => {
    const n = layers.length;
    if (!half) return a * n + b;
    const [low, high] = a < b ? [a, b] : [b, a];
    return low * n - (low * (low - 1)) / 2 + high - low;
  };
  const four = (value) => value.toFixed(4);
  const withSd = (mean, sd) => (sd == null ? four(mean) : `${four(mean)} ± ${four(sd)}`);

  function numbers(map, a, b) {
    const k = place(map, a, b);
    const at = (name) => (map[name] ? map[name][k] : null);
    const found = [["φ", at("phi") == null ? "no value" : four(at("phi"))]];
    if (at("bound") != null) found.push(["error at most", at("bound").toExponential(0)]);
    if (at("gaussian") != null) found.push(["gaussian", withSd(at("gaussian"), at("gaussian_sd"))]);
    if (at("w0") != null) found.push(["base alone (w0)", withSd(at("w0"), at("w0_sd"))]);
    if (at("init") != null) found.push(["untrained", four(at("init"))]);
    found.push(["status", map.status ? at("status") : "ok"]);
    return found;
  }

  const title = (map, a, b) => `layers ${map.layers[a]} and ${map.layers[b]}`;

  function show(map, a, b, box) {
    const heading = document.createElement("strong");
    heading.textContent = title(map, a, b);
    const list = document.createElement("dl");
    for (const [name, value] of numbers(map, a, b)) {
      const dt = document.createElement("dt");
      const dd = document.createElement("dd");
      dt.textContent = name;
      dd.textContent = value;
      list.append(dt, dd);
    }
    tip.replaceChildren(heading, list);
    tip.hidden = false;
    beside = box;
    put();
  }

  // The tip beside its cell, also after the page was scrolled under it.
  let beside = null;
  function put() {
    if (tip.hidden) return;
    const box = beside();
    const own = tip.getBoundingClientRect();
    const left = Math.min(Math.max(4, box.left + box.width / 2 - own.width / 2), document.documentElement.clientWidth - own.width - 4);
    const above = box.top - own.height - 8;
    tip.style.left = `${Math.max(4, left)}px`;
    tip.style.top = `${above >= 4 ? above : box.bottom + 8}px`;
  }

  const hide = () => { tip.hidden = true; };
  const announce = (map, a, b) => {
    live.textContent = `${title(map, a, b)}: ${numbers(map, a, b).map(([name, value]) => `${name} ${value}`).join(", ")}`;
  };

  // The cell that a key leads to; null for a key that leads nowhere.
  function step(event, a, b, n) {
    const last = n - 1;
    const whole = event.ctrlKey || event.metaKey;
    switch (event.key) {
      case "ArrowUp": return [Math.max(0, a - 1), b];
      case "ArrowDown": return [Math.min(last, a + 1), b];
      case "ArrowLeft": return [a, Math.max(0, b - 1)];
      case "ArrowRight": return [a, Math.min(last, b + 1)];
      case "Home": return [whole ? 0 : a, 0];
      case "End": return [whole ? last : a, last];
      default: return null;
    }
  }

  // A map of few layers: a table, one stop of the tab key, whose cells the arrow keys go through.
  for (const table of document.querySelectorAll("table[data-map]")) {
    const map = maps[table.dataset.map];
    const rows = [...table.tBodies[0].rows].map((row) => [...row.cells].slice(1));
    const cellOf = (target) => {
      const td = target.closest("td");
      const a = td ? rows.findIndex((row) => row.includes(td)) : -1;
      return a < 0 ? null : [a, rows[a].indexOf(td)];
    };
    table.setAttribute("role", "grid");
    rows.flat().forEach((td, k) => { td.tabIndex = k ? -1 : 0; });
    table.addEventListener("pointerover", (event) => {
      const at = cellOf(event.target);
      if (at) show(map, ...at, () => rows[at[0]][at[1]].getBoundingClientRect());
      else hide();
    });
    table.addEventListener("pointerleave", hide);
    table.addEventListener("focusin", (event) => {
      const at = cellOf(event.target);
      if (!at) return;
      rows.flat().forEach((td) => { td.tabIndex = td === event.target ? 0 : -1; });
      show(map, ...at, () => rows[at[0]][at[1]].getBoundingClientRect());
      announce(map, ...at);
    });
    table.addEventListener("focusout", hide);
    table.addEventListener("keydown", (event) => {
      const at = cellOf(event.target);
      const to = at && step(event, ...at, map.layers.length);
      if (!to) return;
      event.preventDefault();
      rows[to[0]][to[1]].focus();
    });
  }

  // A map of many layers: a picture with a cursor.
  for (const frame of document.querySelectorAll(".picture[data-map]")) {
    const map = maps[frame.dataset.map];
    const n = map.layers.length;
    const cursor = document.createElement("div");
    cursor.className = "cursor";
    cursor.hidden = true;
    frame.append(cursor);
    frame.tabIndex = 0;
    frame.setAttribute("role", "application");
    frame.setAttribute("aria-roledescription", "heatmap");
    frame.setAttribute("aria-label", `${frame.firstElementChild.alt} Arrow keys go through the cells.`);
    let at = [0, 0];
    const box = ([a, b]) => {
      const { left, top, width } = frame.getBoundingClientRect();
      const size = width / n;
      return new DOMRect(left + b * size, top + a * size, size, size);
    };
    const go = (to) => {
      at = to;
      const size = 100 / n;
      Object.assign(cursor.style, { left: `${at[1] * size}%`, top: `${at[0] * size}%`, width: `${size}%`, height: `${size}%` });
      cursor.hidden = false;
      show(map, ...at, () => box(at));
    };
    frame.addEventListener("pointermove", (event) => {
      const { left, top, width } = frame.getBoundingClientRect();
      const cell = (offset) => Math.min(n - 1, Math.max(0, Math.floor((offset / width) * n)));
      go([cell(event.clientY - top), cell(event.clientX - left)]);
    });
    const leave = () => { cursor.hidden = true; hide(); };
    frame.addEventListener("pointerleave", leave);
    frame.addEventListener("blur", leave);
    frame.addEventListener("focus", () => { go(at); announce(map, ...at); });
    frame.addEventListener("keydown", (event) => {
      const to = step(event, ...at, n);
      if (!to) return;
      event.preventDefault();
      go(to);
      announce(map, ...to);
    });
  }

  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  document.addEventListener("scroll", put, { passive: true, capture: true });

  // Tables that can be sorted and filtered.

  const valueOf = (cell) => {
    const exact = cell.querySelector("data");
    return exact ? exact.value : cell.textContent;
  };
  const names = new Intl.Collator("en", { numeric: true });

  for (const table of document.querySelectorAll("table.rows")) {
    const body = table.tBodies[0];
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const numeric = head.classList.contains("num");
        const rows = [...body.rows].map((row) => [valueOf(row.cells[column]), row]);
        rows.sort(([x], [y]) => {
          // A missing value stays at the end either way.
          if (x === "" || y === "") return (x === "") - (y === "");
          const order = numeric ? Number(x) - Number(y) : names.compare(x, y);
          return down ? -order : order;
        });
        body.append(...rows.map(([, row]) => row));
        live.textContent = `sorted by ${button.textContent}, ${down ? "descending" : "ascending"}`;
      });
    });

    if (body.rows.length < 8) continue;
    const label = document.createElement("label");
    const input = document.createElement("input");
    const found = document.createElement("output");
    const line = document.createElement("p");
    line.className = "filter";
    label.textContent = "Rows with";
    input.type = "search";
    input.id = `filter-${table.closest("details").id}`;
    label.htmlFor = input.id;
    line.append(label, input, found);
    table.closest(".scroll").before(line);
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let left = 0;
      for (const row of body.rows) {
        const text = [...row.cells].map((cell) => cell.textContent.toLowerCase());
        row.hidden = !words.every((word) => text.some((cell) => cell.includes(word)));
        left += !row.hidden;
      }
      found.textContent = words.length ? `${left} of ${body.rows.length}` : "";
    });
  }
})();
