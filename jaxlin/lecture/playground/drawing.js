/* The state of the page, and how it is drawn: the plane, the tables, the landscape, the history. */
"use strict";

const START = {
  points: [
    [-0.55, 0.62],
    [-0.18, 0.82],
    [-0.35, 0.3],
    [0.62, 0.55],
    [0.35, 0.12],
    [0.82, 0.2],
    [-0.62, -0.42],
    [0.05, -0.72],
    [0.2, -0.35],
  ],
  labels: [0, 0, 0, 1, 1, 1, 2, 2, 2],
  W: [
    [0.6, -0.9],
    [-1.1, 0.4],
    [0.5, 0.7],
  ],
  b: [0.2, -0.1, 0.3],
};
const copy = (value) => JSON.parse(JSON.stringify(value));
const state = {
  ...copy(START),
  loss: "weston_watkins_hinge",
  stepSize: 0.1,
  strength: 0.01,
  margin: 1,
  chosen: 0,
  history: [],
  timer: null,
  random: null,
  drag: null,
};
const $ = (id) => document.getElementById(id);
const COLORS = ["#0072b2", "#d55e00", "#00845f"],
  NAMES = ["W[0,0]", "W[0,1]", "W[1,0]", "W[1,1]", "W[2,0]", "W[2,1]", "b[0]", "b[1]", "b[2]"];
const show = (v) =>
  Number.isFinite(v)
    ? (Math.abs(v) >= 1e4
        ? v.toExponential(2)
        : Math.abs(v) < 5e-4
          ? "0.000"
          : v.toFixed(3)
      ).replace("-", "−")
    : String(v);
const now = () =>
  evaluate(state.points, state.labels, state.W, state.b, state.loss, state.margin, state.strength);
const normal = () =>
  Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
function setTheta(v) {
  const p = unflatten(v);
  state.W = p.W;
  state.b = p.b;
}

// Drawing
const SVG = "http://www.w3.org/2000/svg",
  px = (x) => 220 + 210 * x,
  py = (y) => 220 - 210 * y;
function make(parent, tag, attributes = {}, text = null) {
  const node = document.createElementNS(SVG, tag);
  for (const [k, v] of Object.entries(attributes)) node.setAttribute(k, v);
  if (text !== null) node.textContent = text;
  parent.append(node);
  return node;
}
/** The part of a convex polygon where w.x + c >= 0 (Sutherland and Hodgman). */
function clip(polygon, w, c) {
  const out = [],
    height = (p) => w[0] * p[0] + w[1] * p[1] + c;
  polygon.forEach((p, i) => {
    const q = polygon[(i + 1) % polygon.length],
      hp = height(p),
      hq = height(q);
    if (hp >= 0) out.push(p);
    if ((hp > 0 && hq < 0) || (hp < 0 && hq > 0)) {
      const t = hp / (hp - hq);
      out.push([p[0] + t * (q[0] - p[0]), p[1] + t * (q[1] - p[1])]);
    }
  });
  return out;
}
const SQUARE = [
    [-1.045, -1.045],
    [1.045, -1.045],
    [1.045, 1.045],
    [-1.045, 1.045],
  ],
  path = (pts) => pts.map((p) => `${px(p[0])},${py(p[1])}`).join(" ");
function drawPlane(result) {
  const svg = $("plane"),
    focused = document.activeElement?.dataset?.index;
  svg.replaceChildren();
  state.W.forEach((w, k) => {
    let region = SQUARE;
    state.W.forEach((v, j) => {
      if (j !== k) region = clip(region, [w[0] - v[0], w[1] - v[1]], state.b[k] - state.b[j]);
    });
    if (region.length > 2)
      make(svg, "polygon", { points: path(region), fill: COLORS[k], opacity: 0.16 });
  });
  make(svg, "path", {
    d: `M${px(-1.045)} 220H${px(1.045)}M220 ${py(-1.045)}V${py(1.045)}`,
    stroke: "#9aa5b1",
    "stroke-width": 0.7,
  });
  state.W.forEach((w, k) => {
    const norm = Math.hypot(...w);
    if (norm < 1e-9) return;
    const foot = w.map((v) => (-state.b[k] * v) / norm ** 2),
      along = [-w[1] / norm, w[0] / norm];
    const a = [-4, 4].map((t) => [foot[0] + t * along[0], foot[1] + t * along[1]]);
    make(svg, "line", {
      x1: px(a[0][0]),
      y1: py(a[0][1]),
      x2: px(a[1][0]),
      y2: py(a[1][1]),
      stroke: COLORS[k],
      "stroke-width": 2.2,
    });
    const length = Math.min(0.6, 0.16 * norm),
      tip = foot.map((v, i) => v + (length * w[i]) / norm);
    make(svg, "line", {
      x1: px(foot[0]),
      y1: py(foot[1]),
      x2: px(tip[0]),
      y2: py(tip[1]),
      stroke: COLORS[k],
      "stroke-width": 2.8,
    });
    const side = w.map((v, i) => tip[i] + (0.045 * v) / norm),
      left = tip.map((v, i) => v + 0.022 * along[i]),
      right = tip.map((v, i) => v - 0.022 * along[i]);
    make(svg, "polygon", { points: path([side, left, right]), fill: COLORS[k], stroke: COLORS[k] });
  });
  state.points.forEach((x, i) => {
    const y = state.labels[i],
      g = make(svg, "g", {
        class: "point" + (i === state.chosen ? " chosen" : ""),
        tabindex: 0,
        role: "button",
        "data-index": i,
        transform: `translate(${px(x[0])} ${py(x[1])})`,
        "aria-label": `point ${i}, class ${y}, at ${x.map(show).join(", ")}, loss ${show(result.losses[i])}`,
      });
    make(g, "circle", { class: "halo", r: 11, fill: "transparent", stroke: "transparent" });
    const look = { fill: COLORS[y], stroke: "#fff", "stroke-width": 1.5 };
    if (y === 0) make(g, "circle", { r: 6.5, ...look });
    if (y === 1) make(g, "rect", { x: -6, y: -6, width: 12, height: 12, ...look });
    if (y === 2) make(g, "polygon", { points: "0,-8 7.5,5.5 -7.5,5.5", ...look });
  });
  if (focused !== undefined) svg.querySelector(`[data-index="${focused}"]`)?.focus({ preventScroll: true });
}
function drawTables(result) {
  $("points").replaceChildren(
    ...state.points.map((x, i) => {
      const row = document.createElement("tr");
      if (i === state.chosen) row.className = "chosen";
      row.innerHTML = [
        ...x.map(show),
        `<b style="color:${COLORS[state.labels[i]]}">${"●■▲"[state.labels[i]]} ${state.labels[i]}</b>`,
        ...result.scores[i].map(show),
        show(result.losses[i]),
      ]
        .map((c) => `<td>${c}</td>`)
        .join("");
      return row;
    }),
  );
  $("totals").innerHTML = [
    ["data loss (mean)", result.dataLoss],
    ["regularization loss, strength · Σ W²", result.regularizationLoss],
    ["total", result.total],
  ]
    .map(
      ([name, v], i) =>
        `<tr><td colspan="6">${i === 2 ? "<b>total</b>" : name}</td><td>${i === 2 ? "<b>" + show(v) + "</b>" : show(v)}</td></tr>`,
    )
    .join("");
  const g = flatten(result.gradW, result.gradB),
    order = (k) => [2 * k, 2 * k + 1, 6 + k],
    theta = flatten(state.W, state.b);
  for (let k = 0; k < 3; k++)
    order(k).forEach((i) => {
      const box = $("p" + i);
      if (document.activeElement !== box) box.value = +theta[i].toFixed(4);
      $("g" + i).textContent = show(g[i]);
    });
  const numeric = numericGradient(
    state.points,
    state.labels,
    state.W,
    state.b,
    state.loss,
    state.margin,
    state.strength,
  );
  // Near a minimum all entries vanish, and rounding (1e-11 of the loss) is all that is left to compare.
  const scale = Math.max(
      1e-4 * Math.max(1, result.total),
      ...g.map(Math.abs),
      ...numeric.map(Math.abs),
    ),
    error = Math.max(...g.map((v, i) => Math.abs(v - numeric[i]))) / scale;
  $("check").innerHTML =
    error < 1e-6
      ? `<span class="good">Gradient check passes</span>: all 9 centered differences (h = 10⁻⁵) agree, largest error ${error.toExponential(1)} of the largest entry.`
      : `<span class="bad">Gradient check differs</span> by ${error.toExponential(1)}: some max(0, ·) is within 10⁻⁵ of its kink, where only a subgradient exists.`;
}
function direction() {
  const choice = $("direction").value,
    r = now();
  if (choice === "gradient") {
    const g = flatten(r.gradW, r.gradB),
      n = Math.hypot(...g);
    return g.map((v) => (n > 0 ? -v / n : 0));
  }
  if (choice === "random") {
    if (!state.random) {
      const v = NAMES.map(normal),
        n = Math.hypot(...v);
      state.random = v.map((x) => x / n);
    }
    return state.random;
  }
  return NAMES.map((name) => (name === choice ? 1 : 0));
}
function drawLandscape() {
  const svg = $("landscape"),
    reach = 10 ** +$("reach").value,
    slide = state.drag ?? { theta: flatten(state.W, state.b), d: direction(), a: 0 };
  svg.replaceChildren();
  const grid = Array.from({ length: 241 }, (_, i) => reach * (i / 120 - 1));
  const values = grid.map((a) => {
    const p = unflatten(alongside(slide.theta, a, slide.d));
    return evaluate(state.points, state.labels, p.W, p.b, state.loss, state.margin, state.strength);
  });
  const high = Math.max(1e-12, ...values.map((v) => v.total)) * 1.05,
    X = (a) => 44 + (386 * (a / reach + 1)) / 2,
    Y = (v) => 196 - (186 * v) / high;
  for (const [a, text] of [
    [-reach, show(-reach)],
    [0, "a = 0"],
    [reach, show(reach)],
  ])
    make(
      svg,
      "text",
      {
        x: X(a),
        y: 224,
        "font-size": 11,
        fill: "#5b6675",
        "text-anchor": a < 0 ? "start" : a > 0 ? "end" : "middle",
      },
      text,
    );
  for (const v of [0, high / 2.1, high / 1.05]) {
    make(svg, "line", { x1: 44, x2: 430, y1: Y(v), y2: Y(v), stroke: "#e6eaee" });
    make(
      svg,
      "text",
      { x: 39, y: Y(v) + 4, "font-size": 11, fill: "#5b6675", "text-anchor": "end" },
      v >= 1e4 ? v.toExponential(1) : v.toPrecision(3),
    );
  }
  const line = (get, extra) =>
    make(svg, "polyline", {
      points: grid.map((a, i) => `${X(a).toFixed(2)},${Y(get(values[i])).toFixed(2)}`).join(" "),
      fill: "none",
      stroke: "#20466e",
      ...extra,
    });
  line((v) => v.regularizationLoss, { "stroke-dasharray": "1.5 4", "stroke-width": 1.4 });
  line((v) => v.dataLoss, { "stroke-dasharray": "6 4", "stroke-width": 1.4 });
  line((v) => v.total, { "stroke-width": 2.4 });
  for (const a of kinks(
    state.points,
    state.labels,
    slide.theta,
    slide.d,
    state.loss,
    state.margin,
    reach,
  ))
    make(svg, "line", {
      x1: X(a),
      x2: X(a),
      y1: 199,
      y2: 207,
      stroke: "#b3261e",
      "stroke-width": 1.2,
    });
  const total = now().total;
  make(svg, "line", {
    x1: X(slide.a),
    x2: X(slide.a),
    y1: 10,
    y2: 196,
    stroke: "#f0b400",
    "stroke-width": 1.2,
  });
  make(svg, "circle", { cx: X(slide.a), cy: Y(total), r: 5.5, fill: "#f0b400", stroke: "#1c2430" });
  svg.setAttribute("aria-valuenow", slide.a.toFixed(3));
  svg.setAttribute("aria-valuetext", `a = ${slide.a.toFixed(3)}, loss ${show(total)}`);
  $("reach-value").textContent = "±" + reach.toPrecision(2);
  state.best = grid[values.reduce((low, v, i) => (v.total < values[low].total ? i : low), 0)];
}
function drawHistory() {
  const svg = $("history"),
    h = state.history.slice(-300),
    high = Math.max(1e-12, ...h);
  svg.replaceChildren();
  make(svg, "path", { d: "M44 8V92H432", fill: "none", stroke: "#9aa5b1" });
  make(
    svg,
    "text",
    { x: 39, y: 16, "font-size": 11, fill: "#5b6675", "text-anchor": "end" },
    high.toPrecision(3),
  );
  make(svg, "text", { x: 39, y: 94, "font-size": 11, fill: "#5b6675", "text-anchor": "end" }, "0");
  make(
    svg,
    "text",
    { x: 432, y: 107, "font-size": 11, fill: "#5b6675", "text-anchor": "end" },
    `total loss over ${Math.max(0, state.history.length - 1)} steps`,
  );
  if (h.length)
    make(svg, "polyline", {
      points: h
        .map((v, i) => `${44 + (386 * i) / Math.max(1, h.length - 1)},${92 - (82 * v) / high}`)
        .join(" "),
      fill: "none",
      stroke: "#20466e",
      "stroke-width": 2,
    });
}
function draw() {
  const r = now();
  if (!state.history.length) state.history = [r.total];
  drawPlane(r);
  drawTables(r);
  drawLandscape();
  drawHistory();
  $("step-value").textContent = state.stepSize.toPrecision(2);
  $("strength-value").textContent = state.strength === 0 ? "0" : state.strength.toPrecision(2);
  $("margin-value").textContent = state.margin.toFixed(1);
  $("run").textContent = state.timer ? "Stop" : "Repeated steps";
}
