// Rows of bars over time, zoomed by the buttons, by dragging, and by the wheel while Ctrl or Shift is held.
function timeline({ rows, steps, start = 0, end, aria }) {
  const ROW = 26, STEP = 58, LEFT = NARROW ? 108 : 150, AXIS = 24;
  const height = rows.length * ROW + steps.length * STEP + AXIS;
  const canvas = h("canvas", { height, tabindex: "0", role: "img", "aria-label": aria, style: { height: `${height}px` } });
  let from = start, to = end;
  const width = () => canvas.clientWidth || 900;
  const X = (t) => LEFT + ((width() - LEFT - 8) * (t - from)) / (to - from);
  const T = (x) => from + ((x - LEFT) * (to - from)) / (width() - LEFT - 8);

  function draw() {
    const ratio = devicePixelRatio || 1, W = width();
    canvas.width = W * ratio;
    canvas.height = height * ratio;
    const pen = canvas.getContext("2d");
    const style = getComputedStyle(document.documentElement);
    const [ink, soft, line, back] = ["--text", "--soft", "--line", "--back"].map((name) => style.getPropertyValue(name));
    pen.scale(ratio, ratio);
    pen.font = "12px system-ui, sans-serif";
    pen.textBaseline = "middle";
    rows.forEach((row, i) => drawBars(pen, row, i * ROW, { ink, back, W }));
    steps.forEach((curve, i) => drawSteps(pen, curve, rows.length * ROW + i * STEP, { ink, soft, line, W }));
    pen.fillStyle = soft;
    pen.textAlign = "center";
    const unit = 10 ** Math.floor(Math.log10((to - from) / 4));
    const step = [1, 2, 5, 10].map((k) => k * unit).find((k) => (to - from) / k <= Math.max(3, W / 130)) || 10 * unit;
    for (let t = Math.ceil(from / step) * step; t <= to; t += step) {
      if (X(t) > W - 24) break;
      pen.fillText(time(+t.toPrecision(9)), X(t), height - AXIS / 2);
      pen.fillRect(X(t), height - AXIS, 1, 4);
    }
  }
  function name(pen, words, y, colour) {
    pen.fillStyle = colour;
    pen.textAlign = "left";
    while (words.length > 4 && pen.measureText(words).width > LEFT - 6) words = `${words.slice(0, -2)}…`;
    pen.fillText(words, 0, y);
  }
  function drawBars(pen, row, y, { ink, back, W }) {
    name(pen, row.name, y + ROW / 2, ink);
    let last = -1;
    for (const bar of row.bars) {
      if (bar.start + bar.length < from || bar.start > to) continue;
      const x = Math.max(LEFT, X(bar.start)), wide = Math.min(W - 8, X(bar.start + bar.length)) - x;
      if (wide < 0.4 && x - last < 0.4) continue;
      last = x;
      pen.fillStyle = bar.colour;
      pen.fillRect(x, y + 3, Math.max(0.6, wide - (wide > 3 ? 1 : 0)), ROW - 6);
      if (wide > 70) {
        pen.save();
        pen.beginPath();
        pen.rect(x, y, wide - 4, ROW);
        pen.clip();
        pen.fillStyle = "#fff";
        pen.textAlign = "left";
        pen.fillText(bar.name, x + 5, y + ROW / 2);
        pen.restore();
      }
    }
  }
  function drawSteps(pen, curve, y, { ink, soft, line, W }) {
    name(pen, curve.name, y + STEP / 2 - 7, ink);
    name(pen, `max ${curve.words(curve.most)}`, y + STEP / 2 + 9, soft);
    pen.fillStyle = line;
    pen.fillRect(LEFT, y + STEP - 4, W - LEFT - 8, 1);
    pen.fillStyle = curve.colour;
    for (const [start, length, value] of curve.values) {
      if (start + length < from || start > to) continue;
      const x = Math.max(LEFT, X(start)), wide = Math.min(W - 8, X(start + length)) - x;
      const tall = ((STEP - 12) * value) / curve.most;
      pen.fillRect(x, y + STEP - 4 - tall, Math.max(0.5, wide), tall);
    }
  }
  function zoom(factor, at) {
    const middle = at === undefined ? (from + to) / 2 : at;
    const span = Math.min(end - start, (to - from) * factor);
    from = Math.max(start, Math.min(end - span, middle - ((middle - from) * span) / (to - from)));
    to = from + span;
    draw();
  }
  function move(by) {
    const shift = Math.max(start - from, Math.min(end - to, by));
    from += shift;
    to += shift;
    draw();
  }
  const under = (event) => {
    const box = canvas.getBoundingClientRect(), y = event.clientY - box.top, t = T(event.clientX - box.left);
    const i = Math.floor(y / ROW);
    if (i < rows.length) {
      const bar = rows[i].bars.find((b) => b.start <= t && t < b.start + b.length);
      return bar && `${bar.name}\n${time(bar.start)} + ${time(bar.length)}${bar.words ? `\n${bar.words}` : ""}`;
    }
    const curve = steps[Math.floor((y - rows.length * ROW) / STEP)];
    const found = curve && curve.values.find(([start, length]) => start <= t && t < start + length);
    return found && `${curve.name}: ${curve.words(found[2])}`;
  };
  let held = null;
  canvas.addEventListener("pointerdown", (event) => { held = event.clientX; canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointerup", () => { held = null; });
  canvas.addEventListener("pointermove", (event) => {
    if (held !== null) {
      move(((held - event.clientX) * (to - from)) / (width() - LEFT - 8));
      held = event.clientX;
    }
    const words = under(event);
    if (words) showTip(words, event.clientX, event.clientY); else hideTip();
  });
  canvas.addEventListener("pointerleave", hideTip);
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.shiftKey) return;
    event.preventDefault();
    zoom((event.deltaY || event.deltaX) > 0 ? 1.25 : 0.8, T(event.clientX - canvas.getBoundingClientRect().left));
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const act = { "+": () => zoom(0.6), "-": () => zoom(1 / 0.6), "0": () => zoom(1e9), ArrowLeft: () => move(-(to - from) / 5),
      ArrowRight: () => move((to - from) / 5) }[event.key];
    if (act) { event.preventDefault(); act(); }
  });
  new ResizeObserver(draw).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  const button = (words, title, act) => h("button", { class: "plain", type: "button", title, onclick: act }, words);
  return h("figure", {}, h("div", { class: "controls" }, button("+", "zoom in", () => zoom(0.5)), button("−", "zoom out", () => zoom(2)),
    button("◀", "earlier", () => move(-(to - from) / 3)), button("▶", "later", () => move((to - from) / 3)),
    button("all", "the whole time", () => zoom(1e9)),
    h("span", { class: "soft" }, "drag to move, Ctrl + wheel to zoom")), canvas);
}

// The estimate's ops one after the other; what each memory holds meanwhile, and how fast it moves bytes.
function opTimeline(e) {
  const ops = e.ops, bars = [], bound = [];
  const kinds = data.kinds, names = [...new Set(ops.bound.map(text))];
  let start = 0;
  const starts = ops.latency_s.map((length, i) => {
    const at = start;
    const words = `${text(ops.kind[i])}, bound by ${text(ops.bound[i])}, ${share(length / e.latency_s)} of the time`;
    bars.push({ start, length, name: text(ops.name[i]), colour: kinds[text(ops.kind[i])], words });
    bound.push({ start, length, name: text(ops.bound[i]), colour: data.colours[names.indexOf(text(ops.bound[i])) % data.colours.length],
      words: text(ops.name[i]) });
    start += length;
    return at;
  });
  const held = e.memories.map(([name], m) => [name, m]).filter(([, m]) => ops.held[m].some((value) => value)).map(([name, m]) => ({
    name: `${name} holds`, most: Math.max(...ops.held[m]), words: bytes, colour: data.colours[m % 8],
    values: ops.held[m].map((value, i) => [starts[i], ops.latency_s[i], value || 0]),
  }));
  const rates = e.memories.map(([name], m) => {
    const values = ops.traffic[m].map((moved, i) => [starts[i], ops.latency_s[i], ops.latency_s[i] ? moved / ops.latency_s[i] : 0]);
    return { name: `${name} moves`, values, most: Math.max(1, ...values.map((v) => v[2])), words: (v) => si(v, "B/s"), colour: data.colours[m % 8] };
  });
  const used = [...new Set(ops.kind.map(text))];
  return h("div", {},
    timeline({ rows: [{ name: "ops", bars }, { name: "bound by", bars: bound }], steps: [...held, ...rates], end: start, aria: `ops of ${label(e)} over time` }),
    legend(used.map((kind) => [kind, kinds[kind]])),
    legend(names.map((name, i) => [`bound by ${name}`, data.colours[i % data.colours.length]])),
    h("figcaption", {}, "An op's bar is its increment of the total; below, what each memory holds while it runs (tensors and tiles), and the bytes that it moves over each memory per second."));
}

// Slices of a simulated run, a row a track, and counters such as the bytes that a memory holds.
const streamColours = new Map();  // the same in every timeline of the page
function streamColour(name) {
  if (!streamColours.has(name)) streamColours.set(name, data.colours[streamColours.size % data.colours.length]);
  return streamColours.get(name);
}
function runTimeline(run) {
  const streams = [...new Set(run.slices.map((slice) => slice[4]))];
  const rows = run.tracks.map((track) => ({ name: track, bars: run.slices.filter((slice) => slice[0] === track).map(
    ([, name, start, length, stream]) => ({ start, length, name, words: stream,
      colour: streamColour(stream) })) }));
  const start = run.start_s, end = Math.max(start + 1e-12, ...run.slices.map(([, , at, length]) => at + length));
  const steps = run.counters.map(([name, unit, points], i) => ({
    name, colour: data.colours[i % 8], words: unit === "bytes" ? bytes : count,
    most: Math.max(1, ...points.map((p) => p[1])),
    values: points.map(([at, value], k) => [at, (k + 1 < points.length ? points[k + 1][0] : end) - at, value]),
  }));
  return h("div", {}, run.left_out ? h("p", { class: "soft" }, `${count(run.left_out)} later slices are not shown.`) : null,
    timeline({ rows, steps, start, end, aria: "units over time" }),
    streams.length > 1 ? legend(streams.map((name) => [name || "–", streamColour(name)])) : null);
}
