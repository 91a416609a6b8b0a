// The order of the page. A section without content is left out.
const main = document.getElementById("page");
const sections = [];
function section(title, ...content) {
  const parts = content.flat(Infinity).filter((part) => part !== null && part !== undefined);
  if (parts.length) sections.push([title, parts]);
}

const KNOWN = ["area", "MACs", "precision", "batch", "calibration"];  // of an infeasible estimate too
function sideBySide(estimates) {
  const lines = [
    ["latency", (e) => time(e.latency_s)],
    ["interval", (e) => (e.interval_s.length ? e.interval_s.map(time).join(" to ") : "–")],
    ["data sheet's roofline", (e) => time(e.roofline_s)],
    ["throughput", (e) => `${count(e.throughput_per_s)}/s`],
    ["MAC utilisation", (e) => share(e.mac_utilization)],
    ["energy", (e) => si(e.energy_j, "J")],
    ["power", (e) => si(e.power_w, "W")],
    ["area", (e) => (e.area_mm2 === null ? "–" : area(e.area_mm2))],
    ["MACs", (e) => count(e.macs)],
    ["precision", (e) => e.precision],
    ["batch", (e) => String(e.batch)],
    ["calibration", (e) => e.calibration],
  ];
  return table([["", "text"], ...estimates.map((e) => [fullName(e), "number"])],
    lines.map(([name, words]) => [name, ...estimates.map((e) => (e.feasible || KNOWN.includes(name) ? words(e) : "infeasible"))]));
}

function serving(run) {
  return [h("h3", {}, run.title),
    table([["time", "text"], ["mean", "number"], ["median", "number"], ["p95", "number"], ["p99", "number"], ["worst", "number"]],
      run.times.map(([name, ...values]) => [name, ...values.map(time)])),
    h("dl", {}, run.facts.map(([what, words]) => [h("dt", {}, what), h("dd", {}, words)])), run.notes.map((note) => h("p", { class: "soft" }, note))];
}

function simulation(run) {
  if (run.times) return serving(run);
  if (run.infeasible) return [h("h3", {}, run.title), h("p", {}, `infeasible: ${run.infeasible.reason}`),
    run.infeasible.tensors.length ? h("pre", {}, run.infeasible.tensors.join("\n")) : null];
  const streams = run.streams.filter((stream) => stream.finished > 1 || stream.deadline_s);
  return [h("h3", {}, run.title),
    h("p", {}, `${time(run.latency_s)} from the first release to the last end`
      + (run.estimate_s ? `; the estimate says ${time(run.estimate_s)}` : "") + `; transfers were slowed by others for ${time(run.contended_s)}.`),
    streams.length ? table([["stream", "text"], ["jobs", "number"], ["median", "number"], ["p99", "number"], ["worst", "number"],
      ["deadline", "number"], ["missed", "number"]],
    streams.map((t) => [t.name, String(t.finished), time(t.latency_p50_s), time(t.latency_p99_s), time(t.latency_max_s), time(t.deadline_s),
      share(t.miss_rate)])) : null,
    table([["resource", "text"], ["in use", "number"], ["", "text"], ["rate", "number"]], [...run.units, ...run.ports].map(([name, used, rate]) =>
      [name, share(used), h("span", { class: "cell-bar", style: { width: `${140 * Math.min(1, used || 0)}px` } }), rate === null ? "" : si(rate, "B/s")])),
    run.timeline.slices.length ? runTimeline(run.timeline) : null,
    run.streams.some((stream) => stream.finished > 1) ? h("p", { class: "soft" }, "Bars: the first job of each stream. A gap is the work of later jobs, or idle; simulate --trace writes all of them.") : null,
    run.notes.map((note) => h("p", { class: "soft" }, note))];
}

function measured(lines) {
  const known = lines.filter((line) => line[1] && line[2]);
  if (!lines.length) return null;
  const points = known.map((line) => [line[1], line[2]]);
  return h("div", {}, points.length ? scatter({ points, x: "measured_s", y: "estimated_s", logX: true, logY: true, diagonal: true,
    words: (k) => `${known[k][0]}\nmeasured ${time(known[k][1])}, estimated ${time(known[k][2])}` }) : null,
  table([["workload", "text"], ["measured", "number"], ["estimated", "number"], ["estimated / measured", "number"]],
    lines.map(([name, theirs, ours]) => [name, time(theirs), time(ours), ours ? digits(ours / theirs) : "–"])));
}

function validation(found) {
  if (found.score) return h("dl", {}, Object.entries(found.score).map(([key, value]) => [h("dt", {}, key), h("dd", {}, cellText(value))]));
  const words = Object.entries(found.summary).map(([key, value]) => `${key.replaceAll("_", " ")} ${value}`).join(", ");
  return h("div", {}, h("p", {}, words), table([["check", "text"], ["quantity", "text"], ["ours", "number"], ["theirs", "number"], ["unit", "text"],
    ["error", "number"], ["verdict", "text"], ["source", "text"]],
  found.checks.map(([id, source, quantity, unit, ours, theirs, error, , , verdict, rule]) => [id, quantity, cellText(ours),
    ({ at_least: "≥ ", at_most: "≤ " }[rule] || "") + cellText(theirs), unit,
    error === null ? "–" : share(error), h("span", { class: verdict }, verdict), source])));
}

const estimates = data.estimates, able = estimates.filter((e) => e.feasible);
section("Side by side", estimates.length ? sideBySide(estimates) : null);
if (able.length) {
  section("Where the time goes", breakdownSection(able));
  section("Where the energy goes", energySection(able));
  const bounded = able.filter((e) => e.roofline);
  section("Roofline", bounded.length ? choice(bounded.map(label), (i) => rooflineFigure(bounded[i].roofline, data.kinds)) : null);
  section("Ops and memory over time", choice(able.map(label), (i) => opTimeline(able[i])));
  section("Ops", choice(able.map(label), (i) => opTable(able[i])));
  section("Memory", memorySection(able));
  section("What if", whatIfSection(able));
}
section("Bounds", data.bounds.map((bound) => [h("h3", {}, bound.title), rooflineFigure(bound, data.kinds)]).flat());
section("Simulated", data.simulations.flatMap(simulation), data.traces.flatMap((trace) => [h("h3", {}, trace.title), runTimeline(trace)]));
section("Designs", data.tables.flatMap((found) => [h("h3", {}, `${found.name}, ${found.rows} designs`), designsSection(found)]));
section("Search", data.summaries.map((words) => h("pre", { class: "summary" }, words)));
section("Winners", Object.keys(data.winners).flatMap((id) => [h("h3", {}, id), ...winnerFiles(id)]));
section("Measured against estimated", measured(data.measured));
section("Measurements", data.records.length ? table([["what", "text"], ["device", "text"], ["precision", "text"], ["mode", "text"], ["median", "number"],
  ["samples", "number"], ["date", "text"], ["source", "text"]], data.records.map((r) => [r[0], ...r.slice(1, 4).map(cellText), time(r[4]),
  cellText(r[5]), cellText(r[6]), cellText(r[7])])) : null);
section("Validation", data.validations.map(validation));
const lines = (title, pairs) => [h("h3", {}, title), h("dl", {}, pairs.map(([what, words]) => [h("dt", {}, what), h("dd", {}, words)]))];
section("Where the numbers come from", data.studies.flatMap((found) => lines("search", found)),
  data.simulations.flatMap((run) => lines(`simulated: ${run.title}`, run.provenance)), estimates.flatMap((e) => [h("h3", {}, fullName(e)),
  h("dl", {}, e.provenance.map(([what, words]) => [h("dt", {}, what), h("dd", {}, words)])),
  e.infeasible_tensors.length ? h("pre", {}, e.infeasible_tensors.join("\n")) : null,
  e.notes.map((note) => h("p", { class: "soft" }, note))]), h("p", { class: "soft" }, `This page was written by Dovetail ${data.version}.`));

main.append(h("nav", { "aria-label": "sections" }, sections.map(([title], i) => h("a", { href: `#section-${i}` }, title))),
  ...sections.map(([title, parts], i) => h("section", { id: `section-${i}` }, h("h2", {}, title), parts)));
document.body.append(tip);
document.documentElement.dataset.ready = "yes";
