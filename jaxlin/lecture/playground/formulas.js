/* The formulas: pure functions, equal to jaxlin.losses and jaxlin.objectives. */
"use strict";

const LOSSES = {
  weston_watkins_hinge: ["Weston–Watkins SVM", "Σ over j≠y of max(0, sⱼ − s_y + Δ)"],
  one_vs_rest_hinge: ["One vs. rest SVM", "max(0, Δ − s_y) + Σ over j≠y of max(0, Δ + sⱼ)"],
  crammer_singer_hinge: ["Crammer–Singer SVM", "max(0, Δ + max over j≠y of sⱼ − s_y)"],
  softmax_cross_entropy: ["Softmax", "log Σ exp sⱼ − s_y"],
};

/** One point's loss and its gradient in the scores; on a kink that is 0, as in the library. */
function pointLoss(s, y, loss, margin) {
  const g = s.map(() => 0);
  let value = 0;
  if (loss === "softmax_cross_entropy") {
    const top = Math.max(...s),
      e = s.map((v) => Math.exp(v - top)),
      sum = e.reduce((a, v) => a + v, 0);
    s.forEach((_, j) => {
      g[j] = e[j] / sum - (j === y ? 1 : 0);
    });
    return { value: Math.log(sum) + top - s[y], g };
  }
  if (loss === "weston_watkins_hinge") {
    s.forEach((v, j) => {
      const m = v - s[y] + margin;
      if (j !== y && m > 0) {
        value += m;
        g[j] += 1;
        g[y] -= 1;
      }
    });
  } else if (loss === "one_vs_rest_hinge") {
    s.forEach((v, j) => {
      const t = j === y ? 1 : -1,
        m = margin - t * v;
      if (m > 0) {
        value += m;
        g[j] -= t;
      }
    });
  } else if (loss === "crammer_singer_hinge") {
    let rival = -1;
    s.forEach((v, j) => {
      if (j !== y && (rival < 0 || v > s[rival])) rival = j;
    });
    const m = rival < 0 ? 0 : s[rival] - s[y] + margin;
    if (m > 0) {
      value = m;
      g[rival] += 1;
      g[y] -= 1;
    }
  } else throw new Error("unknown loss " + loss);
  return { value, g };
}

/**
 * Mean loss over the points + strength * sum of W squared, its parts, and its gradients in W, b
 * and the points.
 */
function evaluate(points, labels, W, b, loss, margin = 1, strength = 0) {
  const n = points.length,
    K = W.length,
    D = W[0].length,
    share = n ? 1 / n : 0;
  const scores = points.map((x) => W.map((w, k) => w.reduce((a, v, d) => a + v * x[d], b[k])));
  const each = scores.map((s, i) => pointLoss(s, labels[i], loss, margin));
  const losses = each.map((e) => e.value),
    dataLoss = losses.reduce((a, v) => a + v, 0) * share;
  const regularizationLoss = strength * W.flat().reduce((a, v) => a + v * v, 0);
  const gradW = W.map((w) => w.map((v) => 2 * strength * v)),
    gradB = b.map(() => 0);
  const gradPoints = points.map(() => Array(D).fill(0));
  each.forEach((e, i) => {
    for (let k = 0; k < K; k++) {
      gradB[k] += share * e.g[k];
      for (let d = 0; d < D; d++) {
        gradW[k][d] += share * e.g[k] * points[i][d];
        gradPoints[i][d] += share * e.g[k] * W[k][d];
      }
    }
  });
  return {
    scores,
    losses,
    dataLoss,
    regularizationLoss,
    total: dataLoss + regularizationLoss,
    gradW,
    gradB,
    gradPoints,
  };
}

const flatten = (W, b) => [...W.flat(), ...b];
const unflatten = (v) => ({
  W: [
    [v[0], v[1]],
    [v[2], v[3]],
    [v[4], v[5]],
  ],
  b: v.slice(6),
});
const alongside = (v, a, d) => v.map((value, i) => value + a * d[i]);

/** Centered differences of the total in the nine parameters; h = 1e-5 loses about 1e-10 in float64. */
function numericGradient(points, labels, W, b, loss, margin, strength, h = 1e-5) {
  const theta = flatten(W, b);
  const at = (v) => {
    const p = unflatten(v);
    return evaluate(points, labels, p.W, p.b, loss, margin, strength).total;
  };
  return theta.map((_, i) => {
    const e = theta.map((_, j) => (i === j ? 1 : 0));
    return (at(alongside(theta, h, e)) - at(alongside(theta, -h, e))) / (2 * h);
  });
}

/**
 * Values of a in (-reach, reach) where some max(0, .) switches along theta + a d; exact, for the
 * two hinges that are sums.
 */
function kinks(points, labels, theta, d, loss, margin, reach) {
  const here = unflatten(theta),
    way = unflatten(d),
    found = [];
  const score = (p, x) => p.W.map((w, k) => w[0] * x[0] + w[1] * x[1] + p.b[k]);
  points.forEach((x, i) => {
    const s = score(here, x),
      u = score(way, x),
      y = labels[i];
    for (let j = 0; j < 3; j++) {
      let m = null,
        slope = 0;
      if (loss === "weston_watkins_hinge" && j !== y) {
        m = s[j] - s[y] + margin;
        slope = u[j] - u[y];
      }
      if (loss === "one_vs_rest_hinge") {
        const t = j === y ? 1 : -1;
        m = margin - t * s[j];
        slope = -t * u[j];
      }
      if (m !== null && slope !== 0 && Math.abs(m / slope) < reach) found.push(-m / slope);
    }
  });
  return found;
}
window.jaxlin = { evaluate, numericGradient, kinks, LOSSES };
