"""How the page looks: one language of colours and lines, in the light and in the dark, and the little script of the pictures."""

from __future__ import annotations

from typing import Any

import gradio as gr

FONTS = ["system-ui", "-apple-system", "Segoe UI", "Liberation Sans", "Arial", "sans-serif"]
STYLE = """<style>
.gradio-container > .main { max-width: 1180px !important; margin: 0 auto !important; padding: 20px 24px !important; }
#head h1 { font-size: 1.5rem; font-weight: 650; letter-spacing: -0.01em; margin: 0 0 0.1rem; }
#head p { opacity: 0.75; margin: 0; }
#status { min-height: 1.6rem; }
#status p { font-size: 0.95rem; margin: 0; }
#file, .unseen { position: absolute; width: 1px; height: 1px; opacity: 0; overflow: hidden; padding: 0; min-width: 0; }
#result .scene { max-height: 72vh; } #result .scene text { font-size: 24px; stroke-width: 5px; }
footer { display: none !important; }
.gradio-container, .gradio-container > .main, .gradio-container .column { min-width: 0 !important; }
.scene { width: 100%; height: auto; display: block; border-radius: 6px; }
.scene rect { fill: transparent; vector-effect: non-scaling-stroke; }
.scene .free { stroke: #ffffff; stroke-opacity: 0.35; stroke-width: 1; }
.scene .true { stroke: var(--own); stroke-width: 3.5; }
.scene .said { stroke: var(--own); stroke-width: 2.5; stroke-dasharray: 7 5; }
.scene line { stroke: var(--own); stroke-width: 2; }
.scene text { font: 600 15px system-ui, "Liberation Sans", sans-serif; fill: #ffffff; stroke: #111111; stroke-width: 3.5px; paint-order: stroke; }
#scene svg.scene { touch-action: pan-y; cursor: crosshair; } #scene rect.drawing { stroke: #ffffff; stroke-width: 2; stroke-dasharray: 4 3; }
.scene g { cursor: pointer; outline: none; }
.scene g.chosen rect, .scene g:focus-visible rect { stroke-width: 6; }
.legend { display: flex; flex-wrap: wrap; gap: 0.2rem 1.2rem; font-size: 0.85rem; opacity: 0.85; margin: 0.4rem 0 0; }
.legend i { display: inline-block; width: 1.7rem; margin-right: 0.4rem; vertical-align: middle; border-top: 3px solid currentColor; }
.legend .said { border-top-style: dashed; } .legend .free { border-top-width: 1px; opacity: 0.5; }
.wide { overflow-x: auto; } .many { max-height: 430px; overflow-y: auto; } .wide thead, .wide tbody, .wide tr { border: 0 !important; }
.wide table { border: 0 !important; border-collapse: collapse; font-size: 0.86rem; width: 100%; font-variant-numeric: tabular-nums; }
figure.told { margin: 0; } .told figcaption { padding: 0.2rem 0 0.5rem; font-weight: 600; }
.wide th, .wide td { padding: 0.28rem 0.5rem !important; text-align: right !important; border: 0 !important; border-bottom: 1px solid var(--border-color-primary) !important; white-space: nowrap; }
.wide th[scope=row], .wide th:first-child { text-align: left !important; font-weight: 500; }
.wide tr[data-object] { cursor: pointer; }
.wide tr.chosen > *, .wide tr[data-object]:focus-visible > * { background: color-mix(in srgb, var(--primary-500) 22%, transparent); outline: none; }
.wide tr.sum > * { font-weight: 650; }
.heat td { background: color-mix(in srgb, var(--primary-500) calc((1 - var(--heat)) * 60%), transparent); }
.heat td.taken { outline: 2.5px solid var(--body-text-color); outline-offset: -2.5px; font-weight: 700; }
.wide td.changed { color: var(--primary-600); font-weight: 700; } .dark .wide td.changed { color: var(--primary-300); }
.dot { display: inline-block; width: 0.7rem; height: 0.7rem; border-radius: 50%; margin-right: 0.4rem; vertical-align: baseline; }
.bar { display: inline-block; height: 0.6rem; width: calc(var(--size) * 3rem); background: var(--primary-500); margin-right: 0.4rem; border-radius: 2px; }
.toy { width: 100%; max-width: 440px; height: auto; display: block; }
.toy .page { fill: var(--background-fill-secondary); stroke: var(--border-color-primary); }
.toy rect:not(.page) { fill: transparent; } .toy .true { stroke-width: 3; } .toy .said { stroke-width: 2.2; stroke-dasharray: 7 5; }
.toy .free { stroke-width: 1; opacity: 0.5; } .toy .around { stroke-width: 1.2; stroke-dasharray: 2 4; opacity: 0.7; } .toy line { stroke-width: 1.8; }
.toy text, .chart text { font: 600 13px system-ui, "Liberation Sans", sans-serif; fill: currentColor; }
.toy .drag { cursor: grab; outline: none; touch-action: none; } .toy .drag:focus-visible rect { stroke-width: 5; }
.toy rect.shared { fill: var(--primary-500); fill-opacity: 0.6; } .toy rect.covered { fill: var(--primary-500); fill-opacity: 0.16; }
.toy rect.blank { fill: var(--background-fill-secondary); }
.toy rect.hatched { fill: url(#empty); } .toy .hatch { stroke: #d97706; stroke-width: 1.6; stroke-opacity: 0.7; }
.pair { display: flex; gap: 1rem; flex-wrap: wrap; } .pair figure { flex: 1 1 220px; max-width: 380px; margin: 0; }
.chart { width: 100%; max-width: 540px; height: auto; } .chart .tick { font-weight: 400; font-size: 11px; opacity: 0.75; }
.chart .grid { stroke: var(--border-color-primary); } .chart polyline { fill: none; stroke-width: 2.5; }
.chart polyline.curve1 { stroke: #d97706; } .chart text.curve1 { fill: #d97706; } .chart polyline.curve2 { stroke: var(--primary-500); } .chart text.curve2 { fill: var(--primary-500); }
.places { display: grid; grid-template-columns: repeat(auto-fill, minmax(96px, 1fr)); gap: 0.6rem; } .places figure { margin: 0; text-align: center; font-size: 0.8rem; }
.places .page { fill: var(--background-fill-secondary); stroke: var(--border-color-primary); }
.places .looked { fill: #d97706; }
.formula { font-size: 0.9rem; opacity: 0.85; }
.padded { display: flex; flex-wrap: wrap; gap: 3px; margin: 0.3rem 0; }
.padded i { width: 15px; height: 15px; border-radius: 3px; border: 1.5px solid var(--body-text-color-subdued); }
.padded i.object { background: var(--primary-500); border-color: var(--primary-500); }
@media (max-width: 640px) {
  .gradio-container > .main { padding: 12px !important; }
  #image { height: 270px !important; }
  .scene text, #result .scene text { font-size: 34px; stroke-width: 7px; }
  button[role=tab] { padding: 0 7px !important; font-size: 0.85rem !important; }
  .gradio-container .row { flex-wrap: wrap !important; } .gradio-container .row > .column { flex: 1 1 100% !important; }
}
</style>"""
# A click on a box, or Enter, chooses its rows as well, and the other way round.
SCRIPT = """<script>
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
</script>"""
POLICY = b"default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'"
LOOK: dict[str, Any] = {
    "head": STYLE + SCRIPT,  # `css` would be rewritten to reach the components alone
    "theme": gr.themes.Base(primary_hue="teal", neutral_hue="slate", font=FONTS, font_mono=["monospace"]),
}
# What Gradio 5 and later versions name or place differently. Its share button would upload the picture.
OLD = int(gr.__version__.split(".")[0]) < 6
LOOK_IN_BLOCKS, LOOK_AT_LAUNCH = (LOOK, {}) if OLD else ({}, LOOK)
NO_SHARING: dict[str, Any] = {"show_share_button": False} if OLD else {"buttons": ["download", "fullscreen"]}
