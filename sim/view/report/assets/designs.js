// Designs of a sweep or a search: any two columns against each other, the front of those that none beats.
function front(points, signX, signY) {  // places of the points that are best in both, ties kept
  const order = points.map((_, k) => k).sort((a, b) => signX * (points[b][0] - points[a][0]) || signY * (points[b][1] - points[a][1]));
  const kept = [];
  let best = -Infinity, at = null;
  for (const k of order) {
    const value = signY * points[k][1];
    if (value > best || (value === best && points[k][0] === at)) {
      kept.push(k);
      best = value;
      at = points[k][0];
    }
  }
  return kept;
}

function scatter({ points, x, y, logX, logY, chosen, line, onpick, words, diagonal, colours }) {
  const W = NARROW ? 430 : 900, H = NARROW ? 380 : 460, left = 84, right = 24, top = 14, bottom = 48;
  const scale = (values, log, low, high) => {
    let a = Math.min(...values), b = Math.max(...values);
    if (log) { a /= 1.15; b *= 1.15; } else { const room = (b - a || Math.abs(b) || 1) * 0.05; a -= room; b += room; }
    const place = log ? (v) => low + ((high - low) * Math.log(v / a)) / Math.log(b / a) : (v) => low + ((high - low) * (v - a)) / (b - a);
    const marks = log ? ticks(a, b) : evenTicks(a, b);
    return [place, marks];
  };
  const all = diagonal ? points.flatMap((p) => [p[0], p[1]]) : null;
  const [X, marksX] = scale(all || points.map((p) => p[0]), logX, left, W - right);
  const [Y, marksY] = scale(all || points.map((p) => p[1]), logY, H - bottom, top);
  const parts = [];
  for (const v of marksX) {
    parts.push(s("line", { class: "grid", x1: X(v), x2: X(v), y1: top, y2: H - bottom }),
      s("text", { x: X(v), y: H - bottom + 17, "text-anchor": "middle" }, withUnit(x, v)));
  }
  for (const v of marksY) {
    parts.push(s("line", { class: "grid", x1: left, x2: W - right, y1: Y(v), y2: Y(v) }),
      s("text", { x: left - 8, y: Y(v) + 4, "text-anchor": "end" }, withUnit(y, v)));
  }
  parts.push(s("text", { x: (left + W - right) / 2, y: H - 8, "text-anchor": "middle" }, plainName(x)),
    s("text", { transform: `translate(14 ${(top + H - bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, plainName(y)));
  if (diagonal) {
    const low = Math.min(...all), high = Math.max(...all);
    parts.push(s("line", { class: "front", x1: X(low), y1: Y(low), x2: X(high), y2: Y(high) }));
  }
  if (line && line.length > 1) {
    const ends = [...line].sort((a, b) => points[a][0] - points[b][0]);
    parts.push(s("path", { class: "front", d: ends.map((k, i) => `${i ? "L" : "M"}${X(points[k][0])} ${Y(points[k][1])}`).join(" ") }));
  }
  const special = new Set(line || []);
  const discs = points.map((p, k) => {
    const disc = s("circle", { cx: X(p[0]), cy: Y(p[1]), r: special.has(k) ? 6 : 4, tabindex: special.has(k) || !line ? "0" : null,
      class: chosen === k ? "chosen" : "", fill: colours ? colours[k] : special.has(k) ? data.colours[3] : data.colours[0], "fill-opacity": special.has(k) || !line ? 0.95 : 0.35 });
    tipped(disc, () => words(k));
    if (onpick) {
      const pick = () => { hideTip(); onpick(k); };
      disc.addEventListener("click", pick);
      disc.addEventListener("keydown", (event) => { if (event.key === "Enter") pick(); });
    }
    return disc;
  });
  const order = discs.map((disc, k) => [special.has(k), disc]).sort((a, b) => a[0] - b[0]).map((pair) => pair[1]);
  return h("div", { class: "scroll" }, h("div", {},
    s("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${y} against ${x}` }, parts, order)));
}

const plainName = (name) => name.replace(/ \[[^\]]+\]$/, "").replace(/_(bytes_per_s|per_s|s|j|w|mm2|bytes)$/, "").replaceAll("_", " ");
const headName = (name) => (/[.]/.test(name) ? name : name.endsWith("_bytes") ? name.replaceAll("_", " ") : plainName(name));
const cellText = (value) => (value === null ? "–" : typeof value === "number" ? String(+value.toPrecision(5)) : value);
function inUnit(unit, value) {  // no prefix stands before money, squares and "1/s"
  if (unit === "B") return bytes(value);
  if (unit === "1/s") return si(value, "/s");
  if (unit === "mm2") return area(value);
  return unit === "USD" ? `${+value.toPrecision(3)} ${unit}` : si(value, unit);
}
function withUnit(name, value) {
  if (typeof value !== "number") return cellText(value);
  const inName = name.match(/ \[([^\]]+)\]$/);
  if (inName) return inUnit(inName[1], value);
  if (name.endsWith("utilization") || name.endsWith("_rate")) return share(value);
  if (name.endsWith("_bytes")) return bytes(value);
  if (name.endsWith("_mm2")) return area(value);
  for (const [end, unit] of [["bytes_per_s", "B/s"], ["_per_s", "/s"], ["_s", "s"], ["_j", "J"], ["_w", "W"]]) {
    if (name.endsWith(end)) return si(value, unit);
  }
  return cellText(value);
}

const FEW = 12;  // designs that are all listed
function designsSection(found) {
  const columns = found.columns, numeric = found.numeric;
  const varies = numeric.filter((name) => new Set(columns[name].filter((v) => v !== null)).size > 1);
  if (varies.length < 2) return designTable(found, null, () => {});
  const objectives = varies.filter((name) => found.direction[name]);
  const first = objectives.includes("latency_s") ? "latency_s" : objectives[0] || varies[0];
  const rest = ["quality", "energy_j", "area_mm2"].find((name) => objectives.includes(name) && name !== first)
    || objectives.find((name) => name !== first) || varies.find((name) => name !== first);
  const select = (value, aria) => h("select", { "aria-label": aria, onchange: draw }, varies.map((name) =>
    h("option", { value: name, selected: name === value ? "" : null }, name)));
  const x = select(first, "x axis"), y = select(rest, "y axis");
  const place = h("div", {}), details = h("div", { class: "details", "aria-live": "polite" }), list = h("div", {});
  const every = Array.from({ length: found.rows }, (_, i) => i), few = found.rows <= FEW;
  const named = ["recipe", "hardware"].filter((name) => new Set(found.columns[name]).size > 1);
  let picked = null;
  function draw() {
    const rows = [];
    for (let i = 0; i < found.rows; i++) if (columns[x.value][i] !== null && columns[y.value][i] !== null) rows.push(i);
    const points = rows.map((i) => [columns[x.value][i], columns[y.value][i]]);
    const log = (values) => Math.min(...values) > 0 && Math.max(...values) > 8 * Math.min(...values);
    const best = front(points, found.direction[x.value] || -1, found.direction[y.value] || -1);
    const groups = found.group ? [...new Set(found.columns[found.group])] : [];
    const colour = (i) => data.colours[groups.indexOf(found.columns[found.group][i]) % data.colours.length];
    const title = (i) => [...(found.group ? [found.group] : []), ...named].map((name) => `${found.columns[name][i]}\n`).join("");
    const words = (k) => `${title(rows[k])}${x.value} ${withUnit(x.value, points[k][0])}\n${y.value} ${withUnit(y.value, points[k][1])}`;
    place.replaceChildren(...[
      scatter({ points, x: x.value, y: y.value, logX: log(points.map((p) => p[0])), logY: log(points.map((p) => p[1])),
        line: best, chosen: rows.indexOf(picked), words, onpick: (k) => { picked = rows[k]; draw(); },
        colours: groups.length ? rows.map(colour) : null }),
      groups.length ? legend(groups.map((name, k) => [name, data.colours[k % data.colours.length]])) : null,
      h("figcaption", {}, `${best.length} of ${points.length} designs are beaten by none in both; `
        + `${found.rows - points.length ? `${found.rows - points.length} without both numbers; ` : ""}click on one to open it.`)].filter((part) => part !== null));
    const leading = best.map((k) => rows[k]);
    list.replaceChildren(designTable(found, few ? [...leading, ...every.filter((i) => !leading.includes(i))] : leading, (i) => { picked = i; draw(); }));
    details.replaceChildren(...(picked === null ? ["No design chosen."] : design(found, picked)));
  }
  draw();
  return h("div", {}, h("div", { class: "controls" }, "x", x, "y", y), place, details, h("h3", {}, few ? "All designs, the front first" : "The front"), list);
}

function design(found, i) {
  const names = Object.keys(found.columns);
  const marks = ["id", "winner", "design", "trial", "number"].flatMap((key) => (found.columns[key] ? [String(found.columns[key][i])] : []));
  const id = marks.flatMap((mark) => [mark, mark.padStart(5, "0")]).map((mark) => (found.group ? `${found.columns[found.group][i]}/` : found.home) + mark).find((mark) => data.winners[mark]);
  return [h("h3", {}, id ? `Design ${id}` : `Design of row ${i + 1}`),
    h("dl", {}, names.map((name) => [h("dt", {}, name), h("dd", {}, withUnit(name, found.columns[name][i]))])),
    ...(id ? winnerFiles(id) : [])];
}

function winnerFiles(id) {
  return Object.entries(data.winners[id]).map(([name, words]) => h("details", {}, h("summary", {}, `${id}/${name}`), h("pre", {}, words)));
}

function designTable(found, rows, pick) {
  const names = Object.keys(found.columns).filter((name) => new Set(found.columns[name].map(String)).size > 1);
  const shown = (rows || Array.from({ length: found.rows }, (_, i) => i)).slice(0, 200);
  return h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, names.map((name) => h("th", { scope: "col",
    title: name, class: found.numeric.includes(name) ? "number" : "text" }, breakable(headName(name)))))),
    h("tbody", {}, shown.map((i) => h("tr", { class: "pick", onclick: () => pick(i) }, names.map((name) =>
      h("td", { class: found.numeric.includes(name) ? "number" : "text" }, withUnit(name, found.columns[name][i]))))))));
}
