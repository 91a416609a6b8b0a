// Every op: sorted by a click on a column, filtered by words and by what binds, opened by a click on a row.
const OPS_SHOWN = NARROW ? 25 : 100;

function opTable(e) {
  const ops = e.ops, n = ops.name.length;
  const columns = [
    ["op", "text", (i) => text(ops.name[i]), (v) => v],
    ["share", "number", (i) => ops.latency_s[i] / e.latency_s, share],
    ["time", "number", (i) => ops.latency_s[i], time],
    ["bound by", "text", (i) => text(ops.bound[i]), (v) => v],
    ["kind", "text", (i) => text(ops.kind[i]), (v) => v],
    ["roofline", "number", (i) => ops.roofline_s[i], time],
    ["MACs", "number", (i) => ops.macs[i], count],
    ["MAC util.", "number", (i) => ops.mac_utilization[i], share],
    ["energy", "number", (i) => ops.energy_j[i], (v) => si(v, "J")],
    ...e.memories.map(([name], m) => [name, "number", (i) => ops.traffic[m][i], bytes]),
  ];
  const lower = ops.name.map((place, i) => `${text(place)} ${text(ops.module[i])} ${text(ops.kind[i])}`.toLowerCase());
  const longest = Math.max(...ops.latency_s);
  let sorted = 2, down = true, limit = OPS_SHOWN;

  const body = h("tbody", {}), told = h("span", { class: "soft", "aria-live": "polite" });
  const search = h("input", { type: "search", placeholder: "filter by name, module or kind", "aria-label": "filter ops", oninput: () => fill(true) });
  const bounds = [...new Set(ops.bound)].map(text).sort();
  const select = h("select", { "aria-label": "what binds", onchange: () => fill(true) }, h("option", { value: "" }, "bound by anything"),
    bounds.map((name) => h("option", { value: name }, name)));
  const more = h("button", { class: "plain", type: "button", onclick: () => { limit = n; fill(false); } }, "show all");
  const heads = columns.map(([title, kind], k) => h("th", { class: kind, scope: "col" }, h("button", { type: "button", onclick: () => {
    down = sorted === k ? !down : kind === "number";
    sorted = k;
    fill(true);
  } }, title)));

  function chosen() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const keep = [];
    for (let i = 0; i < n; i++) {
      if ((!select.value || text(ops.bound[i]) === select.value) && words.every((word) => lower[i].includes(word))) keep.push(i);
    }
    const [, kind, value] = columns[sorted];
    const missing = down ? -Infinity : Infinity;
    const key = keep.map((i) => value(i)).map((v) => (v === null && kind === "number" ? missing : v));
    const order = keep.map((_, k) => k);
    const compare = kind === "number" ? (a, b) => key[a] - key[b] : (a, b) => (key[a] < key[b] ? -1 : key[a] > key[b] ? 1 : 0);
    order.sort((a, b) => (down ? compare(b, a) : compare(a, b)) || keep[a] - keep[b]);
    return order.map((k) => keep[k]);
  }
  function fill(again) {
    if (again) limit = OPS_SHOWN;
    const found = chosen();
    heads.forEach((head, k) => (k === sorted ? head.setAttribute("aria-sort", down ? "descending" : "ascending") : head.removeAttribute("aria-sort")));
    body.replaceChildren(...found.slice(0, limit).map(row));
    const total = sum(found.map((i) => ops.latency_s[i]));
    told.textContent = `${found.length} of ${n} ops, ${time(total)}, ${share(total / e.latency_s)} of the time`;
    more.hidden = found.length <= limit;
    more.textContent = `show all ${found.length}`;
  }
  function row(i) {
    const line = h("tr", { class: "op", tabindex: "0" }, columns.map(([title, kind, value, words]) => h("td", { class: kind },
      title === "share" ? h("span", { class: "share" }, h("span", { class: "cell-bar", style: { width: `${(100 * ops.latency_s[i]) / longest}%` } }),
        h("span", {}, words(value(i)))) : words(value(i)))));
    const toggle = () => {
      if (line.classList.toggle("open")) line.after(h("tr", {}, h("td", { class: "more", colspan: columns.length }, details(i))));
      else line.nextSibling.remove();
    };
    line.addEventListener("click", toggle);
    line.addEventListener("keydown", (event) => { if (event.key === "Enter") toggle(); });
    return line;
  }
  function details(i) {
    const terms = e.terms.map(([name], k) => [name, ops.terms[k][i]]).filter(([, seconds]) => seconds);
    return [text(ops.module[i]) ? `module ${text(ops.module[i])}` : null, text(ops.detail[i]),
      terms.map(([name, seconds]) => `${name} ${time(seconds)}`).join(", ")].filter(Boolean).join("\n");
  }
  fill(true);
  return h("div", {}, h("div", { class: "controls" }, search, select, told, more),
    h("div", { class: "scroll" }, h("table", { class: "ops" }, h("thead", {}, h("tr", {}, heads)), body)));
}
