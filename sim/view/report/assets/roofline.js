// Log-log roofline as SVG; a disc is one op or several equal ones, its area their share of the time.
function rooflineFigure(view, kinds) {
  const W = NARROW ? 430 : 900, H = NARROW ? 400 : 500, left = 70, right = 20, top = 16, bottom = 46;
  const [x0, x1] = view.x, [y0, y1] = view.y;
  const X = (v) => left + ((W - left - right) * Math.log(v / x0)) / Math.log(x1 / x0);
  const Y = (v) => H - bottom - ((H - top - bottom) * Math.log(v / y0)) / Math.log(y1 / y0);
  const beyond = ([x, y]) => (x > x1 ? "right" : x < x0 ? "left" : y < y0 ? "below" : "");
  const parts = [];
  for (const v of ticks(x0, x1)) {
    parts.push(s("line", { class: "grid", x1: X(v), x2: X(v), y1: top, y2: H - bottom }),
      s("text", { x: X(v), y: H - bottom + 17, "text-anchor": "middle" }, plainNumber(v)));
  }
  for (const v of ticks(y0, y1)) {
    parts.push(s("line", { class: "grid", x1: left, x2: W - right, y1: Y(v), y2: Y(v) }),
      s("text", { x: left - 8, y: Y(v) + 4, "text-anchor": "end" }, si(v, "")));
  }
  parts.push(s("text", { x: (left + W - right) / 2, y: H - 8, "text-anchor": "middle" }, "operational intensity [FLOP/byte]"),
    s("text", { transform: `translate(15 ${(top + H - bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, "throughput [FLOP/s]"));
  parts.push(...roofLines(view, { X, Y, x0, x1, y0, left, right: W - right, bottom: H - bottom }));
  const discs = [...view.points].sort((a, b) => b[2] - a[2]).map(([x, y, part, kind, name, onChip]) => {
    const colour = kinds[kind];
    const look = { tabindex: "0", fill: onChip ? "transparent" : colour, stroke: onChip ? colour : "var(--back)",
      "stroke-width": onChip ? 1.6 : 0.8, "fill-opacity": onChip ? 1 : 0.88 };
    const r = Math.sqrt(7 + 330 * part), out = beyond([x, y]);
    const disc = out ? s("path", { class: "beyond", d: { right: `M${W - right} ${Y(y)} l${-2 * r} ${-r} v${2 * r} z`,
      left: `M${left} ${Y(y)} l${2 * r} ${-r} v${2 * r} z`, below: `M${X(x)} ${H - bottom} l${-r} ${-2 * r} h${2 * r} z` }[out], ...look })
      : s("circle", { cx: X(x), cy: Y(y), r, ...look });
    return tipped(disc, `${name}\n${kind}, ${share(part)} of the time\n${plainNumber(x)} FLOP/byte, ${si(y, "FLOP/s")}`
      + (onChip ? "\n(almost) all bytes stay on chip" : ""));
  });
  const used = [...new Set(view.points.map((point) => point[3]))];
  const shares = used.map((kind) => [kind, sum(view.points.filter((p) => p[3] === kind).map((p) => p[2]))]).sort((a, b) => b[1] - a[1]);
  return h("figure", {}, h("figcaption", {}, view.subtitle),
    h("div", { class: "scroll" }, h("div", {},
      s("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": "Roofline" }, parts, discs))),
    legend(shares.map(([kind, part]) => [`${kind}, ${share(part)} of the time`, kinds[kind]])),
    h("figcaption", {}, "Area: share of the time. Hollow: (almost) all bytes stay on chip; placed at the intensity over that memory."
      + (view.points.some(beyond) ? " An arrow at the edge: further out." : "")));
}

function roofLines(view, { X, Y, x0, x1, y0, left, right, bottom }) {
  const parts = [], taken = [];
  const free = (y) => { while (taken.some((other) => Math.abs(other - y) < 14)) y -= 14; taken.push(y); return y; };
  for (const [name, rate, running] of [...view.flats].sort((a, b) => b[2] - a[2])) {
    if (!running) parts.push(s("line", { class: "roof other", x1: left, x2: right, y1: Y(rate), y2: Y(rate), "stroke-opacity": 0.5 }));
    parts.push(s("text", { x: right - 4, y: free(Y(rate) - 5), "text-anchor": "end", class: running ? "" : "soft" }, name));
  }
  for (const [name, bandwidth, peak, home] of view.roofs) {
    const corner = peak / bandwidth;
    const start = Math.max(x0, y0 / bandwidth);
    if (start < corner) {
      const end = Math.min(corner, x1);
      const tail = home && corner < x1 ? ` L${right} ${Y(peak)}` : "";
      parts.push(s("path", { class: home ? "roof" : "roof other",
        d: `M${X(start)} ${Y(start * bandwidth)} L${X(end)} ${Y(end * bandwidth)}${tail}` }));
      const slope = (Math.atan2(Y(2 * bandwidth) - Y(bandwidth), X(2) - X(1)) * 180) / Math.PI;
      const at = start * (end / start) ** 0.08;
      parts.push(s("text", { class: home ? "" : "soft", transform: `translate(${X(at)} ${Y(at * bandwidth)}) translate(-4 -8) rotate(${slope})` }, name));
      if (home && corner < x1) {
        parts.push(s("line", { class: "roof other", x1: X(corner), x2: X(corner), y1: Y(peak), y2: bottom }),
          s("text", { class: "soft", x: X(corner) + 5, y: bottom - 6 }, `ridge ${plainNumber(corner)} FLOP/byte`));
      }
    }
  }
  return parts;
}
