// Interaction with the drawings: highlighting an object, drawing a box, and moving the boxes of the lesson.
// Results go into hidden fields or sliders, whose events redraw the page; elements are therefore looked up at each use.

// A click on a box, or Enter, highlights the rows of its object, and the reverse.
function highlight(from) {
  const element = from.closest("[data-object]");
  if (!element) return false;
  const id = element.dataset.object, wasHighlighted = element.classList.contains("chosen");
  document.querySelectorAll("[data-object]").forEach(
    (other) => other.classList.toggle("chosen", !wasHighlighted && other.dataset.object === id));
  return true;
}
document.addEventListener("click", (event) => highlight(event.target));
document.addEventListener("keydown", (event) => {
  if ((event.key === "Enter" || event.key === " ") && highlight(event.target)) event.preventDefault();
});

// Gradio's image buttons have no accessible name.
new MutationObserver(() => {
  document.querySelectorAll(".gallery-item:not([aria-label])").forEach(
    (button, index) => button.setAttribute("aria-label", `Example ${index + 1}`));
  document.querySelectorAll("button:has(> .image-frame):not([aria-label])").forEach((button) => {
    const label = button.closest(".block") && button.closest(".block").querySelector("[data-testid=block-label]");
    button.setAttribute("aria-label", (label && label.textContent.trim()) || "Image");
  });
}).observe(document, { childList: true, subtree: true });

// Svelte observes the native setter of a field, not assignments by scripts.
function setField(field, value) {
  const setter = Object.getOwnPropertyDescriptor(Object.getPrototypeOf(field), "value").set;
  setter.call(field, value);
  for (const kind of ["input", "change", "blur"]) field.dispatchEvent(new Event(kind, { bubbles: true }));
}

// Drawing an object in the image of the tab Matching; the box is sent when the pointer is released.
let drawing = null;
function fractions(event) {
  const area = drawing.svg.getBoundingClientRect();
  return [(event.clientX - area.left) / area.width, (event.clientY - area.top) / area.height].map(
    (value) => Math.min(1, Math.max(0, value)));
}
document.addEventListener("pointerdown", (event) => {
  const svg = event.target.closest("#scene svg.scene");
  if (!svg || event.button) return;
  drawing = { svg };
  drawing.start = fractions(event);
});
document.addEventListener("dragstart", (event) => {
  if (event.target.closest && event.target.closest("#scene svg, #own img")) event.preventDefault();
});
document.addEventListener("pointermove", (event) => {
  if (!drawing) return;
  const end = fractions(event), start = drawing.start, box = drawing.svg.viewBox.baseVal;
  drawing.rect = drawing.rect || drawing.svg.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "rect"));
  drawing.rect.setAttribute("class", "drawing");
  const sides = {
    x: Math.min(end[0], start[0]) * box.width, y: Math.min(end[1], start[1]) * box.height,
    width: Math.abs(end[0] - start[0]) * box.width, height: Math.abs(end[1] - start[1]) * box.height,
  };
  Object.entries(sides).forEach(([name, value]) => drawing.rect.setAttribute(name, value));
});
document.addEventListener("pointerup", (event) => {
  if (!drawing) return;
  const end = fractions(event), { start, rect } = drawing;
  drawing = null;
  if (rect) rect.remove();
  if (Math.abs(end[0] - start[0]) < 0.02 || Math.abs(end[1] - start[1]) < 0.02) return;  // a click, which highlights
  const field = document.querySelector("#scene-drawn textarea, #scene-drawn input");
  // The time makes two equal boxes different values, so that the second one changes the field too.
  setField(field, [...start, ...end].map((value) => value.toFixed(4)).join(" ") + " " + Date.now());
});

// Moving boxes of the lesson by the pointer or the arrow keys. A box has `data-move`, its name in the field of centers, or
// `data-sliders`, the sliders of its position. `unit` is the length of a change of 1, in SVG units.
const MIN_INTERVAL_MS = 90, KEY_STEP = 0.05, REDRAW_MS = 400;
let drag = null;
function slidersOf(element) {
  return element.dataset.sliders.split(" ").map((id) => document.querySelector("#" + id + " input[type=number]"));
}
function movableOf(element) {
  return element.dataset.move
    ? { name: element.dataset.move, unit: element.ownerSVGElement.viewBox.baseVal.width, start: [+element.dataset.x, +element.dataset.y] }
    : { sliders: slidersOf(element), unit: +element.dataset.unit, start: slidersOf(element).map((field) => +field.value) };
}
function move(movable, offset) {
  const position = movable.start.map((value, axis) => value + offset[axis] / movable.unit);
  if (movable.name) {
    const field = document.querySelector("#lesson-centers textarea, #lesson-centers input");
    const center = position.map((value) => +value.toFixed(3));
    setField(field, JSON.stringify({ ...JSON.parse(field.value || "{}"), [movable.name]: center }));
  } else {
    movable.sliders.forEach((field, axis) =>
      setField(field, Math.min(+field.max, Math.max(+field.min, +position[axis].toFixed(2)))));
  }
}
function dragOffset(event) {
  return [(event.clientX - drag.pointer[0]) * drag.scale, (event.clientY - drag.pointer[1]) * drag.scale];
}
document.addEventListener("pointerdown", (event) => {
  const element = event.target.closest(".drag");
  if (!element) return;
  event.preventDefault();
  element.focus({ preventScroll: true });
  const svg = element.ownerSVGElement;
  const scale = svg.viewBox.baseVal.width / svg.getBoundingClientRect().width;
  drag = { movable: movableOf(element), pointer: [event.clientX, event.clientY], scale, lastMove: 0 };
});
document.addEventListener("pointermove", (event) => {
  if (!drag || Date.now() - drag.lastMove < MIN_INTERVAL_MS) return;
  drag.lastMove = Date.now();
  move(drag.movable, dragOffset(event));
});
document.addEventListener("pointerup", (event) => {
  if (drag) move(drag.movable, dragOffset(event));
  drag = null;
});
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
document.addEventListener("keydown", (event) => {
  const element = event.target.closest && event.target.closest(".drag"), arrow = ARROWS[event.key];
  if (!element || !arrow) return;
  event.preventDefault();
  const { move: name, unit } = element.dataset, movable = movableOf(element);
  move(movable, arrow.map((value) => KEY_STEP * value * movable.unit));
  // The page is redrawn, and the new element gets the focus of the old one.
  const selector = ".drag" + (name ? `[data-move="${name}"]` : `[data-unit="${unit}"]`);
  setTimeout(() => { const redrawn = document.querySelector(selector); if (redrawn) redrawn.focus({ preventScroll: true }); }, REDRAW_MS);
});
