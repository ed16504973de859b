/* What a person can do: step, drag, add, edit, slide; by pointer and by keyboard. */
"use strict";

function step() {
  const r = now();
  setTheta(alongside(flatten(state.W, state.b), -state.stepSize, flatten(r.gradW, r.gradB)));
  state.history.push(now().total);
  draw();
}
function toggle() {
  if (state.timer) {
    clearInterval(state.timer);
    state.timer = null;
  } else state.timer = setInterval(step, 50);
  draw();
}
function randomize() {
  setTheta(NAMES.map(normal));
  state.history = [];
  draw();
}
function add(label, x = null) {
  state.points.push(x ?? [0.9 * (2 * Math.random() - 1), 0.9 * (2 * Math.random() - 1)]);
  state.labels.push(label);
  state.chosen = state.points.length - 1;
  draw();
}
function remove() {
  if (state.points.length < 2) return;
  state.points.splice(state.chosen, 1);
  state.labels.splice(state.chosen, 1);
  state.chosen = Math.min(state.chosen, state.points.length - 1);
  draw();
}
const bound = (v) => Math.max(-1, Math.min(1, v));
function place(svg, event, width) {
  const box = svg.getBoundingClientRect();
  return [
    ((event.clientX - box.left) * width) / box.width,
    ((event.clientY - box.top) * width) / box.width,
  ];
}
const plane = $("plane"),
  landscape = $("landscape");
plane.addEventListener("pointerdown", (event) => {
  const point = event.target.closest(".point");
  if (!point) return;
  state.chosen = +point.dataset.index;
  state.moving = true;
  plane.setPointerCapture(event.pointerId);
  event.preventDefault(); // drawing replaces the element that the browser would focus
  draw();
  plane.querySelector(`[data-index="${state.chosen}"]`).focus({ preventScroll: true });
});
plane.addEventListener("pointermove", (event) => {
  if (!state.moving) return;
  const [x, y] = place(plane, event, 440);
  state.points[state.chosen] = [bound((x - 220) / 210), bound((220 - y) / 210)];
  draw();
});
plane.addEventListener("pointerup", () => {
  state.moving = false;
});
plane.addEventListener("pointercancel", () => {
  state.moving = false;
});
plane.addEventListener("dblclick", (event) => {
  const [x, y] = place(plane, event, 440);
  add(state.labels[state.chosen] ?? 0, [bound((x - 220) / 210), bound((220 - y) / 210)]);
});
plane.addEventListener("focusin", (event) => {
  const i = +event.target.dataset.index;
  if (i !== state.chosen && !Number.isNaN(i)) {
    state.chosen = i;
    draw();
  }
});
plane.addEventListener("keydown", (event) => {
  const far = event.shiftKey ? 0.1 : 0.02,
    move = { ArrowLeft: [-far, 0], ArrowRight: [far, 0], ArrowUp: [0, far], ArrowDown: [0, -far] }[
      event.key
    ];
  if (!event.target.closest(".point")) return;
  if (move) {
    state.points[state.chosen] = state.points[state.chosen].map((v, i) => bound(v + move[i]));
    event.preventDefault();
    draw();
  }
  if ("012".includes(event.key)) {
    state.labels[state.chosen] = +event.key;
    draw();
  }
  if (event.key === "Delete" || event.key === "Backspace") remove();
});
function slideTo(a) {
  if (!state.drag) state.drag = { theta: flatten(state.W, state.b), d: direction(), a: 0 };
  state.drag.a = a;
  setTheta(alongside(state.drag.theta, a, state.drag.d));
  draw();
}
function slideEnd() {
  if (!state.drag) return;
  state.drag = null;
  state.history.push(now().total);
  draw();
}
const slideAt = (event) => {
  const reach = 10 ** +$("reach").value,
    a = (2 * (place(landscape, event, 440)[0] - 44)) / 386 - 1;
  slideTo(reach * bound(a));
};
landscape.addEventListener("pointerdown", (event) => {
  landscape.setPointerCapture(event.pointerId);
  slideAt(event);
});
landscape.addEventListener("pointermove", (event) => {
  if (state.drag && event.buttons) slideAt(event);
});
landscape.addEventListener("pointerup", slideEnd);
landscape.addEventListener("blur", slideEnd);
landscape.addEventListener("keydown", (event) => {
  const reach = 10 ** +$("reach").value,
    a = state.drag?.a ?? 0;
  if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
    event.preventDefault();
    slideTo(
      Math.max(-reach, Math.min(reach, a + (reach / 60) * (event.key === "ArrowLeft" ? -1 : 1))),
    );
  }
  if (event.key === "Enter") {
    slideTo(state.best);
    slideEnd();
  }
});
document.addEventListener("keydown", (event) => {
  if (
    event.ctrlKey ||
    event.metaKey ||
    event.altKey ||
    event.target.matches("input[type=number], select")
  )
    return;
  ({ s: step, r: toggle, x: randomize })[event.key]?.();
});

// Controls
for (const [key, [name, formula]] of Object.entries(LOSSES)) {
  const label = document.createElement("label");
  label.innerHTML = `<input type="radio" name="loss" value="${key}" ${key === state.loss ? "checked" : ""}> ${name} <span class="gradient">${formula}</span>`;
  label.querySelector("input").addEventListener("change", () => {
    state.loss = key;
    state.history = [];
    draw();
  });
  $("losses").append(label);
}
for (let k = 0; k < 3; k++) {
  const row = document.createElement("tr");
  row.innerHTML =
    `<td><b style="color:${COLORS[k]}">${"●■▲"[k]} ${k}</b></td>` +
    [2 * k, 2 * k + 1, 6 + k]
      .map(
        (i) =>
          `<td><input id="p${i}" type="number" step="0.1" aria-label="${NAMES[i]}"></td><td class="gradient" id="g${i}"></td>`,
      )
      .join("");
  $("parameters").append(row);
}
NAMES.forEach((_, i) =>
  $("p" + i).addEventListener("input", (event) => {
    const v = parseFloat(event.target.value);
    if (!Number.isFinite(v)) return;
    const theta = flatten(state.W, state.b);
    theta[i] = v;
    setTheta(theta);
    draw();
  }),
);
for (const [value, text] of [
  ["gradient", "negative gradient"],
  ["random", "random"],
  ...NAMES.map((n) => [n, n]),
])
  $("direction").append(new Option(text, value));
$("direction").addEventListener("change", draw);
$("reach").addEventListener("input", draw);
$("redraw").addEventListener("click", () => {
  state.random = null;
  $("direction").value = "random";
  draw();
});
$("step").value = Math.log10(state.stepSize);
$("strength").value = Math.log10(state.strength);
$("margin").value = state.margin;
$("step").addEventListener("input", (event) => {
  state.stepSize = 10 ** +event.target.value;
  draw();
});
$("strength").addEventListener("input", (event) => {
  state.strength = +event.target.value < -4.05 ? 0 : 10 ** +event.target.value;
  state.history = [];
  draw();
});
$("margin").addEventListener("input", (event) => {
  state.margin = +event.target.value;
  state.history = [];
  draw();
});
$("once").addEventListener("click", step);
$("run").addEventListener("click", toggle);
$("random").addEventListener("click", randomize);
$("reset").addEventListener("click", () => {
  Object.assign(state, copy(START), { history: [], chosen: 0 });
  draw();
});
$("remove").addEventListener("click", remove);
document
  .querySelectorAll("[data-add]")
  .forEach((button) => button.addEventListener("click", () => add(+button.dataset.add)));
draw();
