// A click on a box, or Enter, chooses its rows as well, and the other way round.
function choose(from) {
  const one = from.closest("[data-object]");
  if (!one) return false;
  const id = one.dataset.object, was = one.classList.contains("chosen");
  document.querySelectorAll("[data-object]").forEach(
    (each) => each.classList.toggle("chosen", !was && each.dataset.object === id));
  return true;
}
document.addEventListener("click", (event) => choose(event.target));
document.addEventListener("keydown", (event) => {
  if ((event.key === "Enter" || event.key === " ") && choose(event.target)) event.preventDefault();
});
// Gradio's buttons that are pictures have no words to those who can't see them.
new MutationObserver(() => {
  document.querySelectorAll(".gallery-item:not([aria-label])").forEach((one, place) => one.setAttribute("aria-label", `Example ${place + 1}`));
  document.querySelectorAll("button:has(> .image-frame):not([aria-label])").forEach((one) => {
    const label = one.closest(".block") && one.closest(".block").querySelector("[data-testid=block-label]");
    one.setAttribute("aria-label", (label && label.textContent.trim()) || "Picture");
  });
}).observe(document, { childList: true, subtree: true });
// Boxes of the lesson are dragged, or moved by arrow keys. What they were moved to goes into a field or into sliders, which
// the page answers; it draws them anew meanwhile, so nothing here holds on to an element.
let drag = null;
function put(field, value) {
  const own = Object.getOwnPropertyDescriptor(Object.getPrototypeOf(field), "value").set;
  own.call(field, value);
  for (const kind of ["input", "change", "blur"]) field.dispatchEvent(new Event(kind, { bubbles: true }));
}
function sliders(one) {
  return one.dataset.sliders.split(" ").map((id) => document.querySelector("#" + id + " input[type=number]"));
}
function held(one) {
  return one.dataset.move
    ? { move: one.dataset.move, unit: 420, at: [+one.dataset.x, +one.dataset.y] }
    : { to: sliders(one), unit: +one.dataset.unit, at: sliders(one).map((field) => +field.value) };
}
function bring(one, by) {
  const at = one.at.map((value, axis) => value + by[axis] / one.unit);
  if (one.move) {
    const field = document.querySelector("#lesson-moved textarea, #lesson-moved input");
    put(field, JSON.stringify({ ...JSON.parse(field.value || "{}"), [one.move]: at.map((value) => +value.toFixed(3)) }));
  } else {
    one.to.forEach((field, axis) => put(field, Math.min(+field.max, Math.max(+field.min, +at[axis].toFixed(2)))));
  }
}
function across(event) {
  return [(event.clientX - drag.from[0]) * drag.scale, (event.clientY - drag.from[1]) * drag.scale];
}
document.addEventListener("pointerdown", (event) => {
  const one = event.target.closest(".drag");
  if (!one) return;
  event.preventDefault();
  one.focus({ preventScroll: true });
  const svg = one.ownerSVGElement;
  drag = { ...held(one), from: [event.clientX, event.clientY], scale: svg.viewBox.baseVal.width / svg.getBoundingClientRect().width, last: 0 };
});
// An object is drawn in the picture of the matching; what is drawn shows at once, and is told when the pointer is let go.
let drawn = null;
function place(event) {
  const at = drawn.svg.getBoundingClientRect();
  return [(event.clientX - at.left) / at.width, (event.clientY - at.top) / at.height].map((value) => Math.min(1, Math.max(0, value)));
}
document.addEventListener("pointerdown", (event) => {
  const svg = event.target.closest("#scene svg.scene");
  if (!svg || event.button) return;
  drawn = { svg };
  drawn.from = place(event);
});
document.addEventListener("dragstart", (event) => { if (event.target.closest && event.target.closest("#scene svg, #own img")) event.preventDefault(); });
document.addEventListener("pointermove", (event) => {
  if (!drawn) return;
  const to = place(event), box = drawn.svg.viewBox.baseVal;
  drawn.rect = drawn.rect || drawn.svg.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "rect"));
  drawn.rect.setAttribute("class", "drawing");
  const sides = { x: Math.min(to[0], drawn.from[0]) * box.width, y: Math.min(to[1], drawn.from[1]) * box.height,
    width: Math.abs(to[0] - drawn.from[0]) * box.width, height: Math.abs(to[1] - drawn.from[1]) * box.height };
  Object.entries(sides).forEach(([name, value]) => drawn.rect.setAttribute(name, value));
});
document.addEventListener("pointerup", (event) => {
  if (!drawn) return;
  const to = place(event), was = drawn;
  drawn = null;
  if (was.rect) was.rect.remove();
  if (Math.abs(to[0] - was.from[0]) < 0.02 || Math.abs(to[1] - was.from[1]) < 0.02) return;  // a click, which chooses
  const field = document.querySelector("#scene-drawn textarea, #scene-drawn input");
  put(field, [...was.from, ...to].map((value) => value.toFixed(4)).join(" ") + " " + Date.now());
});
document.addEventListener("pointermove", (event) => {
  if (!drag || Date.now() - drag.last < 90) return;
  drag.last = Date.now();
  bring(drag, across(event));
});
document.addEventListener("pointerup", (event) => {
  if (drag) bring(drag, across(event));
  drag = null;
});
const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
document.addEventListener("keydown", (event) => {
  const one = event.target.closest && event.target.closest(".drag"), step = STEPS[event.key];
  if (!one || !step) return;
  event.preventDefault();
  const name = one.dataset.move ? `[data-move="${one.dataset.move}"]` : `[data-unit="${one.dataset.unit}"]`, state = held(one);
  bring(state, step.map((value) => 0.05 * value * state.unit));
  setTimeout(() => { const again = document.querySelector(".drag" + name); if (again) again.focus({ preventScroll: true }); }, 400);
});
