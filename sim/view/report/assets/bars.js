// Stacked and plain bars.
function stackedBars(rows, { unit, longest, marks }) {
  const names = new Map();
  for (const row of rows) for (const [name, , colour] of row.parts) names.set(name, colour);
  const bars = rows.map((row) => {
    const track = h("div", { class: "track" }, row.parts.map(([name, value, colour]) =>
      tipped(h("i", { tabindex: "0", style: { width: `${(100 * value) / longest}%`, background: colour } }),
        `${name}: ${si(value, unit)}, ${share(value / row.total)}`)));
    if (row.mark) track.append(h("b", { style: { left: `${(100 * row.mark) / longest}%` } }));
    if (row.interval && row.interval.length) {
      const [low, high] = row.interval;
      track.append(tipped(h("s", { style: { left: `${(100 * low) / longest}%`, width: `${(100 * (high - low)) / longest}%` } }),
        `interval ${si(low, unit)} to ${si(high, unit)}`));
    }
    return h("div", { class: "bar-row" }, h("div", { class: "name" }, row.name), track,
      h("div", { class: "value" }, si(row.total, unit)));
  });
  return h("figure", {}, bars, legend([...names, ...(marks ? [[marks, null]] : [])]));
}

function breakdownSection(estimates) {
  const feasible = estimates.filter((e) => e.feasible);
  const longest = Math.max(...feasible.flatMap((e) => [e.latency_s, e.roofline_s || 0, ...(e.interval_s || [])]));
  const rows = feasible.map((e) => ({
    name: label(e), parts: e.terms, total: e.latency_s, mark: e.roofline_s, interval: e.interval_s,
  }));
  return stackedBars(rows, { unit: "s", longest, marks: "data sheet's roofline" });
}

function energySection(estimates) {
  const known = estimates.filter((e) => e.feasible && e.energy_j !== null && e.energy.length);
  if (!known.length) return null;
  const names = [...new Set(known.flatMap((e) => e.energy.map(([name]) => name)))];
  const n = data.colours.length;  // the second round is lighter: no two parts of a bar look alike
  const colour = new Map(names.map((name, i) => [name, i < n ? data.colours[i] : `color-mix(in srgb, ${data.colours[i % n]} 50%, var(--back))`]));
  const rows = known.map((e) => ({
    name: label(e), parts: e.energy.map(([name, value]) => [name, value, colour.get(name)]), total: e.energy_j,
  }));
  return stackedBars(rows, { unit: "J", longest: Math.max(...known.map((e) => e.energy_j)) });
}

function whatIfSection(estimates) {
  const known = estimates.filter((e) => e.feasible && e.what_if);
  if (!known.length) return null;
  return choice(known.map(label), (i) => {
    const e = known[i], { larger, precisions, unfelt } = e.what_if;
    const every = [e.latency_s, ...larger.flatMap(([, steps]) => steps.map((step) => step[1])), ...precisions.map((p) => p[1])];
    const longest = Math.max(...every);
    const change = (seconds) => `${seconds > e.latency_s ? "+" : "−"}${share(Math.abs(seconds / e.latency_s - 1))}`;
    const bar = (name, seconds, colour, marks, words) => h("div", { class: "bar-row wide" }, h("div", { class: "name" }, name),
      h("div", { class: "track" },
        tipped(h("i", { tabindex: "0", style: { width: `${(100 * seconds) / longest}%`, background: colour } }), words),
        marks.map((at) => h("b", { style: { left: `${(100 * at) / longest}%` } }))),
      h("div", { class: "value" }, time(seconds), seconds === e.latency_s ? "" : h("span", { class: "soft" }, ` ${change(seconds)}`)));
    const bars = larger.map(([name, steps]) => {
      const [factor, seconds] = steps[steps.length - 1];
      const words = steps.map(([f, s]) => `${name} × ${digits(f)}: ${time(s)}, ${change(s)}`).join("\n");
      return bar(`${name} × ${digits(factor)}`, seconds, data.colours[0], steps.slice(0, -1).map((step) => step[1]), words);
    });
    const others = precisions.map(([name, seconds]) => bar(`in ${name}`, seconds, data.colours[2], [], `${name}: ${time(seconds)}, ${change(seconds)}`));
    const smaller = [...new Set(larger.flatMap(([, steps]) => steps.slice(0, -1).map((step) => step[0])))];
    return h("figure", {}, bar("as it is", e.latency_s, data.colours[7], [], time(e.latency_s)), bars, others,
      larger.length && smaller.length ? legend([[`the resource × ${smaller.map(digits).join(", × ")}`, null]]) : null,
      unfelt.length ? h("figcaption", {}, `Less than 0.5 % from more: ${unfelt.join(", ")}.`) : null);
  });
}

function memorySection(estimates) {
  const known = estimates.filter((e) => e.feasible && e.memories.length);
  if (!known.length) return null;
  return choice(known.map(label), (i) => {
    const e = known[i];
    const most = Math.max(...e.memories.map(([, read, write]) => read + write)) || 1;
    return table([["memory", "text"], ["read", "number"], ["written", "number"], ["both", "text"], ["peak held", "number"],
      ["average rate", "number"]],
    e.memories.map(([name, read, write, peak]) => [name, bytes(read), bytes(write),
      h("span", { class: "cell-bar", style: { width: `${(140 * (read + write)) / most}px` } }), bytes(peak),
      si((read + write) / e.latency_s, "B/s")]));
  });
}

const fullName = (e) => `${e.workload} on ${e.chip}${e.apart}`;
const label = (e) => (data.estimates.length > 1 && data.estimates.every((other) => other.workload === e.workload)
  ? `${e.chip}${e.apart}` : fullName(e));
