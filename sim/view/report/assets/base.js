// Elements, numbers and the tooltip. Text of users goes in as text nodes only.
const NARROW = innerWidth < 640;
const data = JSON.parse(document.getElementById("data").textContent);

function make(space, tag, attributes, children) {
  const element = space ? document.createElementNS(space, tag) : document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "style") for (const [name, rule] of Object.entries(value)) element.style.setProperty(name, rule);
    else element.setAttribute(key, value);
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined) element.append(child);
  }
  return element;
}
const h = (tag, attributes, ...children) => make(null, tag, attributes, children);
const s = (tag, attributes, ...children) => make("http://www.w3.org/2000/svg", tag, attributes, children);

const PREFIXES = [[1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""], [1e-3, "m"], [1e-6, "µ"], [1e-9, "n"],
  [1e-12, "p"]];
function digits(value) {
  return value === 0 ? "0" : Math.abs(value) >= 999.5 || Math.abs(value) < 1e-3 ? value.toExponential(2) : String(+value.toPrecision(3));
}
function si(value, unit) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return `0 ${unit}`;
  const [scale, prefix] = PREFIXES.find(([size]) => Math.abs(value) >= 0.9995 * size) || PREFIXES[PREFIXES.length - 1];
  return `${digits(value / scale)} ${prefix}${unit}`.trimEnd();
}
function plainNumber(value) {  // of an intensity: "0.1", not "100 m"; "10 k" from ten thousand on
  return value >= 1e4 ? si(value, "") : value >= 1e-3 ? String(+value.toPrecision(3)) : value.toExponential(0);
}
function area(value) {  // no prefix stands before squares: "57 mm²", "6,608 mm²"
  return `${value < 999.5 ? digits(value) : Math.round(value).toLocaleString("en")} mm²`;
}
const time = (value) => si(value, "s");
function bytes(value) {  // sizes take binary prefixes, as in the terminal; rates decimal ones
  if (value === null || value === undefined) return "–";
  const [scale, prefix] = [[2 ** 40, "Ti"], [2 ** 30, "Gi"], [2 ** 20, "Mi"], [2 ** 10, "Ki"]].find(([size]) => value >= 0.9995 * size) || [1, ""];
  return `${String(+(value / scale).toPrecision(3))} ${prefix}B`;
}
const share = (value) => (value === null || value === undefined ? "–" : `${digits(100 * value)} %`);
const count = (value) => (value === null || value === undefined ? "–" : si(value, ""));
// A name that may break after its dots, strokes and underscores, and in a word only where it must.
const breakable = (words) => (typeof words === "string" ? words.split(/(?<=[._/])(?=.)/).flatMap((part, i) => (i ? [h("wbr"), part] : [part])) : words);
const text = (place) => data.texts[place];
const sum = (values) => values.reduce((total, value) => total + (value || 0), 0);

const tip = h("div", { id: "tip", role: "tooltip", hidden: "" });
function showTip(words, x, y) {
  tip.textContent = words;
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - box.width - 6))}px`;
  tip.style.top = `${y + 18 + box.height > innerHeight ? Math.max(4, y - box.height - 10) : y + 18}px`;
}
const hideTip = () => { tip.hidden = true; };
function tipped(element, words) {
  const say = () => (typeof words === "function" ? words() : words);
  element.addEventListener("mousemove", (event) => showTip(say(), event.clientX, event.clientY));
  element.addEventListener("mouseleave", hideTip);
  element.addEventListener("focus", () => {
    const box = element.getBoundingClientRect();
    showTip(say(), box.left + box.width / 2, box.top + box.height / 2);
  });
  element.addEventListener("blur", hideTip);
  return element;
}

function legend(entries) {
  return h("div", { class: "legend" }, entries.map(([name, colour]) =>
    h("span", colour ? { style: { "--colour": colour } } : { class: "line" }, name)));
}

// A plain table. A column is [title, "text" or "number"]; a cell is text, a number's text or an element.
function table(columns, rows) {
  return h("div", { class: "scroll" }, h("table", {},
    h("thead", {}, h("tr", {}, columns.map(([title, kind]) => h("th", { class: kind, scope: "col" }, title)))),
    h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell, i) => h("td", { class: columns[i][1] }, columns[i][1] === "text" ? breakable(cell) : cell)))))));
}

// One of several: buttons that choose, and the part of the page that shows the choice.
function choice(names, draw) {
  const place = h("div", {});
  const buttons = names.map((name, i) => h("button", { class: "plain", type: "button", onclick: () => pick(i) }, name));
  function pick(i) {
    buttons.forEach((button, k) => button.setAttribute("aria-pressed", k === i));
    place.replaceChildren(draw(i));
  }
  pick(0);
  return h("div", {}, names.length > 1 ? h("div", { class: "controls" }, buttons) : null, place);
}

function ticks(low, high) {  // decades; their halves and fifths too where a range is short
  const found = [];
  for (let power = Math.floor(Math.log10(low)); 10 ** power <= high; power++) {
    for (const k of Math.log10(high / low) > 2 ? [1] : Math.log10(high / low) > 0.8 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9]) {
      const value = +(k * 10 ** power).toPrecision(3);
      if (value >= low && value <= high) found.push(value);
    }
  }
  return found.length ? found : [low, high];
}
function evenTicks(low, high) {
  const unit = 10 ** Math.floor(Math.log10((high - low) / 4));
  const step = [1, 2, 5, 10].map((k) => k * unit).find((k) => (high - low) / k <= 6);
  const found = [];
  for (let v = Math.ceil(low / step) * step; v <= high; v += step) found.push(+v.toPrecision(9));
  return found;
}
